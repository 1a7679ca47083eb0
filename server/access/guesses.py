"""How long the answer to a wrong token takes: after a few, each one from an address twice as long. Pure."""

from collections import OrderedDict

_FREE = 3  # mistakes
_FIRST, _LONGEST = 0.05, 10.0  # seconds
_FORGOTTEN = 600.0  # seconds without a wrong token
_MOST = 10_000  # addresses that are remembered


class Guesses:
    """Counts wrong tokens by address."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the last came

    def wrong(self, address: str, now: float) -> float:
        """Another one came, by a monotonic clock in seconds; for how many seconds its answer is to wait."""
        count, last = self._seen.pop(address, (0, now))
        count = 0 if now - last > _FORGOTTEN else count
        self._seen[address] = count + 1, now
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        return 0.0 if count < _FREE else min(_LONGEST, _FIRST * 2.0 ** min(count - _FREE, 30))
