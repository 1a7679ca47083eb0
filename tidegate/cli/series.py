"""The sequences of a table's series: one for each, opened at its first row, and only so many of them at a time."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Self

from tidegate.columns.known_ahead import Series
from tidegate.errors import ServerBusy, TimedOut
from tidegate.sequence import Sequence as OpenSequence
from tidegate.state import State

_MOST = 1000  # that are open at a time, where a server has room for so many
_SOON = 2.0  # seconds that a server without room may take to have some
_FULL = frozenset({"TOO_MANY_SEQUENCES", "TOO_MANY_OF_OWNER"})


class Sequences:
    """Where there would be too many, the one that is unused for longest is ended; its state begins the next one.

    `begin` opens a sequence, from a state if one is given, within so many seconds. `state`: that of the only series.
    """

    def __init__(
        self, begin: Callable[[State | None, float | None], OpenSequence], state: State | None = None, most: int = _MOST
    ) -> None:
        self._begin = begin
        self._state = state
        self._most = most
        self._open: OrderedDict[Series, OpenSequence] = OrderedDict()
        self._states: dict[Series, State] = {}  # of those that were ended to make room

    def of(self, series: Series) -> OpenSequence:
        """The sequence of a series, which stands after its last row."""
        if series in self._open:
            self._open.move_to_end(series)
            return self._open[series]
        if len(self._open) >= self._most:
            self._put_aside()
        self._open[series] = self._opened(self._states.get(series, self._state))
        return self._open[series]

    def _opened(self, state: State | None) -> OpenSequence:
        try:
            return self._begin(state, _SOON if self._open else None)
        except TimedOut:
            if not self._open:
                raise
        except ServerBusy as busy:
            if busy.reason not in _FULL or not self._open:
                raise
            self._most = len(self._open)
            self._put_aside()
        return self._begin(state, None)

    def _put_aside(self) -> None:
        series, sequence = self._open.popitem(last=False)
        self._states[series] = sequence.state()
        sequence.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sequence in self._open.values():
            with sequence:  # ends it
                pass
