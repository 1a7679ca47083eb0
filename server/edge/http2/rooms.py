"""Memory for messages that are larger than the window of a stream: so many bytes of one address at a time, in order."""

from collections import deque
from collections.abc import Callable


class Rooms:
    """Of all connections. A message that finds no room waits unread at its client."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._taken = 0
        self._of: dict[str, _Address] = {}

    def take(self, address: str, size: int, ready: Callable[[], None]) -> Callable[[], None]:
        """Calls `ready` once there is room for so many bytes. The function that is returned gives the room back."""
        wish = _Wish(address, size, ready)
        self._of.setdefault(address, _Address()).waiting.append(wish)
        self._serve(address)
        return lambda: self._give_back(wish)

    def _serve(self, address: str) -> None:
        """Whoever is first in its address's line gets room; a message alone always does, however large it is."""
        line = self._of[address]
        while line.waiting:
            wish = line.waiting[0]
            if line.taken and line.taken + wish.size > self._most_of_one:
                return
            if self._taken and self._taken + wish.size > self._most:
                return
            line.waiting.popleft()
            wish.granted = True
            line.taken += wish.size
            self._taken += wish.size
            wish.ready()

    def _give_back(self, wish: "_Wish") -> None:
        if wish.gone:
            return
        wish.gone = True
        line = self._of[wish.address]
        if wish.granted:
            line.taken -= wish.size
            self._taken -= wish.size
        else:
            line.waiting.remove(wish)
        if not line.waiting and not line.taken:
            del self._of[wish.address]
        for address in list(self._of):
            self._serve(address)


class _Address:
    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[_Wish] = deque()


class _Wish:
    def __init__(self, address: str, size: int, ready: Callable[[], None]) -> None:
        self.address = address
        self.size = size
        self.ready = ready
        self.granted = False
        self.gone = False
