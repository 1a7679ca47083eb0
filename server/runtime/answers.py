"""The results of a model's batches on their way to their sinks."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter

from server.runtime.loop_turn import LoopTurn
from server.runtime.scheduler import Part

log = logging.getLogger(__name__)


class Answers:
    """Hands out results in their order, as many in a turn of the event loop as it has time for, and one at least.

    Args:
        turn: of the event loop.
    """

    def __init__(self, turn: LoopTurn) -> None:
        self._turn = turn
        self._waiting: deque[Part | Callable[[], None]] = deque()
        self._due = False  # they are handed out now, or from the next turn on

    def __bool__(self) -> bool:
        """Whether some wait for a turn to come."""
        return bool(self._waiting)

    def put(self, parts: Iterable[Part], then: Callable[[], None] | None = None) -> None:
        """Hands these out, and calls `then` after them."""
        self._waiting.extend(parts)
        if then is not None:
            self._waiting.append(then)
        if not self._due:
            self._go_on()

    def put_all(self, parts: Iterable[Part]) -> None:
        """Hands these out in this turn, and whatever waits before them."""
        self._waiting.extend(parts)
        while self._waiting:
            self._hand_out(self._waiting.popleft())

    def _go_on(self) -> None:
        self._due = True
        began = now = perf_counter()
        ends = began + self._turn.left
        while self._waiting:
            self._hand_out(self._waiting.popleft())
            now = perf_counter()
            if now >= ends:
                break
        self._turn.spend(now - began)
        if self._waiting:
            self._turn.later(self._go_on)
        else:
            self._due = False

    def _hand_out(self, what: Part | Callable[[], None]) -> None:
        try:
            if isinstance(what, Part):
                what.take.block.sink.answered(what)
            else:
                what()
        except Exception:
            log.exception("what waited for a step failed")
