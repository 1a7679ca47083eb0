"""What becomes of sequences at this server: they come, go on, and leave. Watchers log, count or trace it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

log = logging.getLogger(__name__)

CLOSED = "closed"  # by its client
PARKED = "parked"  # its client or the server's stop had it kept for later
DISCONNECTED = "disconnected"  # its stream broke off; it is parked if it had taken a step
NOT_OPENED = "not opened"  # opening it failed half-way


class Living(Protocol):
    """What is known of a sequence that came here, also while it leaves."""

    id: str
    owner: str
    began: float  # when it came here, in seconds of the monotonic clock
    resumed: bool  # or opened here
    trace: str  # the `traceparent` of the client that brought it here; empty: none

    @property
    def place(self) -> tuple[str, int]:
        """The name and version of its model."""

    @property
    def taken(self) -> int:
        """How many steps it has taken in all."""


class Watcher(Protocol):
    """Called in the event loop, for up to some hundred sequences of one model at a time: it has to be quick."""

    def came(self, those: Sequence[Living]) -> None:
        """They were opened, or resumed."""

    def kept(self, those: Sequence[Living], steps: Sequence[int]) -> None:
        """The store has checkpoints of them, after so many steps each. They may have left since."""

    def moved(self, one: Living, before: tuple[str, int]) -> None:
        """It goes on with another version."""

    def left(self, those: Sequence[Living], why: str) -> None:
        """They are not here any more; each of them came before. `why` is one of the words above, or a reason."""

    def gone(self, ids: Sequence[str], why: str) -> None:
        """The store has ended parked sequences, which are on no stream."""


class Lives:
    """Tells all watchers. One that fails is logged, and changes nothing."""

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self._watchers = watchers

    def came(self, those: Sequence[Living]) -> None:
        self._tell(lambda watcher: watcher.came(those))

    def kept(self, those: Sequence[Living], steps: Sequence[int]) -> None:
        self._tell(lambda watcher: watcher.kept(those, steps))

    def moved(self, one: Living, before: tuple[str, int]) -> None:
        self._tell(lambda watcher: watcher.moved(one, before))

    def left(self, those: Sequence[Living], why: str) -> None:
        if those:
            self._tell(lambda watcher: watcher.left(those, why))

    def gone(self, ids: Sequence[str], why: str) -> None:
        if ids:
            self._tell(lambda watcher: watcher.gone(ids, why))

    def _tell(self, call: Callable[[Watcher], None]) -> None:
        for watcher in self._watchers:
            try:
                call(watcher)
            except Exception:
                log.exception("what watches sequences failed")
