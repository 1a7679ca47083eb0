"""Signals to stop, which come between two bytecodes: held back while something must not be left half-way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        """What is done inside is done to its end; then a signal that came meanwhile raises Stopped."""
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
