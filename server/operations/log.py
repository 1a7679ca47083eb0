"""A limit of the log: a message that is repeated is written a few times, and then how often it was left out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_PERIOD = 10.0  # seconds
_MOST = 100  # records of one kind in a period
_MOST_TRACEBACKS = 3
_KINDS = 1_000  # places in the code that are counted at a time


@dataclass(slots=True)
class _Kind:
    """The records of one line of code since `since`."""

    since: float
    said: int = 0
    withheld: int = 0


class RateLimit(logging.Filter):
    """Passes so many records of each line of code in a period; the first one after it says how many were left out.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        if len(self._kinds) > _KINDS:
            self._kinds.clear()
        kind = self._kinds.setdefault((record.pathname, record.lineno), _Kind(now))
        if now - kind.since >= _PERIOD:
            if kind.withheld:
                record.msg = f"{record.getMessage()} ({kind.withheld} more like this were not written)"
                record.args = ()
            kind.since, kind.said, kind.withheld = now, 0, 0
        if kind.said >= (_MOST_TRACEBACKS if record.exc_info else _MOST):
            kind.withheld += 1
            return False
        kind.said += 1
        return True
