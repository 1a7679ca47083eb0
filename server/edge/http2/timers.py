"""When connections are to be looked at: one timer of the event loop for all of them, as each takes 500 bytes."""

from __future__ import annotations

import asyncio
import logging
from math import ceil
from typing import Protocol

log = logging.getLogger(__name__)

_AT_ONCE = 64  # connections that are looked at in one turn of the loop: some tenths of a millisecond


class _Watched(Protocol):
    """A connection."""

    def look(self) -> None:
        """Its time has come."""


class Timers:
    """Of the connections of one server; each is called within a tick of its time.

    Args:
        loop: the event loop.
        tick: seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float) -> None:
        self._loop = loop
        self._tick = tick
        self._waiting: dict[int, set[_Watched]] = {}  # by the number of the tick that they are due at
        self._due: set[_Watched] = set()
        self._runs = False

    def after(self, seconds: float, watched: _Watched) -> int:
        """Has it looked at once; returns the number of the tick, with which that can be cancelled."""
        number = ceil((self._loop.time() + seconds) / self._tick)
        self._waiting.setdefault(number, set()).add(watched)
        if not self._runs:
            self._runs = True
            self._loop.call_later(self._tick, self._turn)
        return number

    def cancel(self, number: int, watched: _Watched) -> None:
        """It is not looked at."""
        self._due.discard(watched)
        if (waiting := self._waiting.get(number)) is not None:
            waiting.discard(watched)

    def _turn(self) -> None:
        now = self._loop.time() / self._tick
        for number in [number for number in self._waiting if number <= now]:
            self._due |= self._waiting.pop(number)
        for _ in range(min(len(self._due), _AT_ONCE)):
            try:
                self._due.pop().look()
            except Exception:  # the others have their time too
                log.exception("a connection failed")
        self._runs = bool(self._due or self._waiting)
        if self._runs:
            self._loop.call_later(0 if self._due else self._tick, self._turn)
