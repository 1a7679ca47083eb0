"""One time limit for an operation that waits several times."""

import math
import time


class Deadline:
    """So many seconds from now; None: never."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float | None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        return None if math.isinf(self._end) else max(0.0, self._end - time.monotonic())

    @property
    def limit(self) -> float:
        """The same as a `timeout=` that replaces a client's own limit: math.inf is none."""
        return max(0.0, self._end - time.monotonic())


NEVER = Deadline(None)
