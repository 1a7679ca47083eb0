"""The log: as lines for people, or a JSON object a line; what is repeated is written a few times, and then counted.

A record may carry `fields` (as `extra={"fields": {...}}`): what its sentence says, by name.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from server.settings import Settings

_OURS = "server", "stepgraph", "tidegate"  # of libraries only warnings are written
_PERIOD = 10.0  # seconds
_MOST = 100  # records of one kind in a period
_MOST_TRACEBACKS = 3
_KINDS = 1_000  # places in the code that are counted at a time
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def begin(settings: Settings, process: str = "") -> None:
    """Writes the log to stderr from now on. `process`: which of several it is."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RateLimit())
    handler.setFormatter(Json(process) if settings.log_format == "json" else Text(process))
    level = logging.getLevelName(settings.log_level.upper())
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])
    observer = settings.observer.partition(":")[0]  # its words are asked for like the server's own
    for name in (*_OURS, observer):
        logging.getLogger(name).setLevel(level)


class Text(logging.Formatter):
    """A line for a person. Control characters, which clients may have sent, are written as escapes."""

    def __init__(self, process: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process and process + ' '}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], record.message)
        return super().formatMessage(record)


class Json(logging.Formatter):
    """An object with time, level, logger, message, and the record's fields."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


@dataclass(slots=True)
class _Kind:
    """The records of one line of code since `since`."""

    since: float
    said: int = 0
    withheld: int = 0


class RateLimit(logging.Filter):
    """Passes so many records of each line of code in a period; the first one after it says how many were left out.

    Records with fields pass: who writes them bounds them.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "fields"):
            return True
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
