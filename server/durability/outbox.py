"""What is not in the store yet of sequences that have left: the last states of the parked, the ends of the closed.

Bounded in bytes: while a store does not answer, the client that has most there gives up its oldest first.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from math import inf

from server.caller import address_of
from server.durability.sequence import ServedSequence
from server.durability.snapshot import Snapshot, taken
from server.stores import store

_MOST = 256 * 2**20  # bytes of states that may wait for a store that does not answer
_EACH = 1_024  # bytes that a parked sequence takes beside its state
_MOST_ENDS = 100_000


class Outbox:
    """By the address of their clients, each in the order in which they left."""

    def __init__(self) -> None:
        self._snapshots: dict[str, deque[Snapshot]] = {}  # none is empty
        self._bytes: Counter[str] = Counter()
        self._ends: list[store.End] = []

    def __bool__(self) -> bool:
        return bool(self._snapshots or self._ends)

    @property
    def unwritten(self) -> int:
        """How many sequences were parked and wait to be written."""
        return sum(len(leaving.sequences) for waiting in self._snapshots.values() for leaving in waiting)

    def park(self, sequences: Sequence[ServedSequence]) -> None:
        """Copies states of one model out of their slots; those that give way stay as the store has them."""
        self.add([taken(sequences, awake=False)])
        while self._bytes.total() > _MOST:
            ((largest, _),) = self._bytes.most_common(1)
            self._pop(largest)

    def end(self, sequences: Sequence[ServedSequence]) -> None:
        """They were closed; if too many wait already, they stay in the store until they expire."""
        if len(self._ends) < _MOST_ENDS:
            self._ends.extend(store.End(sequence.id, sequence.fence, store.Reason.ENDED) for sequence in sequences)

    def take(self, most: float = inf) -> list[Snapshot]:
        """Who is parked, to be written now: so many sequences, or a few more."""
        taken: list[Snapshot] = []
        count = 0
        while self._snapshots and count < most:
            taken.append(self._pop(next(iter(self._snapshots))))
            count += len(taken[-1].sequences)
        return taken

    def put_back(self, snapshots: Sequence[Snapshot]) -> None:
        """These could not be written."""
        for leaving in reversed(snapshots):
            self._of(leaving).appendleft(leaving)

    def add(self, snapshots: Iterable[Snapshot]) -> None:
        """These have to be written once more."""
        for leaving in snapshots:
            self._of(leaving).append(leaving)

    def _pop(self, address: str) -> Snapshot:
        leaving = self._snapshots[address].popleft()
        self._bytes[address] -= _size(leaving)
        if not self._snapshots[address]:
            del self._snapshots[address], self._bytes[address]
        return leaving

    def _of(self, leaving: Snapshot) -> deque[Snapshot]:
        address = address_of(leaving.sequences[0].owner)
        self._bytes[address] += _size(leaving)
        return self._snapshots.setdefault(address, deque())

    def ends(self) -> list[store.End]:
        """Who was closed. To be written after all states that may be creating them."""
        return list(self._ends)

    def ended(self, count: int) -> None:
        """The first of them are written."""
        del self._ends[:count]


def _size(leaving: Snapshot) -> int:
    return leaving.states.nbytes + _EACH * len(leaving.sequences)
