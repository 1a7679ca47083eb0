"""Signals to stop, which come between two bytecodes: held back during work that must be completed."""

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, Self

INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_at_an_interrupt() -> None:
    """From now on Ctrl-C ends the process at once and quietly: also in imports, and while the interpreter ends."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # interrupted as it began


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Inside, the first Ctrl-C raises KeyboardInterrupt, so that things are left in order; a second one does not wait.

    Where Python would only print it and go on, as in a finaliser, the process ends.
    """
    if signal.getsignal(signal.SIGINT) is not _leave:  # ignored, as in the background of a shell
        yield
        return
    before = sys.unraisablehook
    sys.unraisablehook = lambda raised: _leave() if raised.exc_type is KeyboardInterrupt else before(raised)
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)
        sys.unraisablehook = before


def _raise(*_: object) -> NoReturn:
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def _leave(*_: int | FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


class Stopped(KeyboardInterrupt):
    """A signal came; `status` is what a command that it ended exits with."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class Interrupt:
    """Takes the signals over for as long as it is entered, but those that are ignored; only in a main thread."""

    def __init__(self) -> None:
        self._held = False
        self._came = 0  # the number of a signal that is held back

    def __enter__(self) -> Self:
        wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._take) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """The body is carried out to its end; then a signal that came meanwhile raises Stopped."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            raise Stopped(self._came)

    def _take(self, number: int, *_: object) -> None:
        if not self._held:
            raise Stopped(number)
        self._came = number
