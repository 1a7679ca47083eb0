"""The client's own numbers for its sequences on one stream: always the smallest that are free."""

from bisect import insort


class Handles:
    """Runs of consecutive free numbers, smallest first. The last run has no end."""

    def __init__(self) -> None:
        self._free: list[tuple[int, float]] = [(0, float("inf"))]  # (first, one past the last)

    def take(self, count: int) -> int:
        at = next(at for at, (first, end) in enumerate(self._free) if end - first >= count)
        first, end = self._free[at]
        self._free[at : at + 1] = [(first + count, end)] if first + count < end else []
        return first

    def give(self, first: int, count: int) -> None:
        insort(self._free, (first, first + count))
        merged: list[tuple[int, float]] = []
        for run in self._free:
            if merged and merged[-1][1] == run[0]:
                merged[-1] = (merged[-1][0], run[1])
            else:
                merged.append(run)
        self._free = merged
