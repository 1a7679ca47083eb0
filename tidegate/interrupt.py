"""Ctrl-C, which comes between two bytecodes: held back while something must not be left half-way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class Interrupt:
    """Takes the signal over for as long as it is entered; only in a process's main thread."""

    def __init__(self) -> None:
        self._held = False
        self._came = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """What is done inside is done to its end; then a signal that came meanwhile raises KeyboardInterrupt."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            raise KeyboardInterrupt

    def _take(self, *_: object) -> None:
        if not self._held:
            raise KeyboardInterrupt
        self._came = True
