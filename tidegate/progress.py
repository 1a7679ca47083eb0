"""How far something long is, on standard error: one line that changes each second, or in a pipe a line every ten."""

import sys
import time
from types import TracebackType
from typing import Self

_EVERY, _EVERY_PLAIN = 1.0, 10.0  # seconds between two lines in a terminal, and elsewhere


class Progress:
    """Says what `tell` is given. Short work says nothing; in a terminal the line is gone after the block."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every = _EVERY if self._terminal else _EVERY_PLAIN
        self._due = time.monotonic() + self._every
        self._width = 0

    def tell(self, sentence: str) -> None:
        """Says how far it is now, unless it was said a moment ago."""
        if time.monotonic() < self._due:
            return
        line = f"\r{sentence.ljust(self._width)}" if self._terminal else f"{sentence}\n"
        print(line, end="", file=sys.stderr, flush=True)
        self._due, self._width = time.monotonic() + self._every, len(sentence)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)
