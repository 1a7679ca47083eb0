"""Where the demonstration writes: headings, sentences, pictures. Colours in a terminal, plain text in a pipe."""

import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from tidegate.drawing.glyphs import Style

_WIDEST = 100  # sentences that are longer are hard to read


class Page:
    """A console, and what fits on it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.style = Style(
            colour=console.is_terminal and console.color_system is not None and not console.no_color,
            unicode=not console.options.ascii_only,
        )
        self._chapter = 0

    @property
    def width(self) -> int:
        """Characters in a line."""
        return min(self.console.width, _WIDEST)

    def title(self, text: str) -> None:
        """What all of this is."""
        self.console.print(Text(text, "bold"), Text("=" * len(text), "dim"), sep="\n")

    def heading(self, text: str) -> None:
        """The next chapter begins."""
        self._chapter += 1
        line = f"{self._chapter}. {text}"
        self.console.print("", Text(line, "bold cyan"), Text("-" * len(line), "dim"), sep="\n")

    def say(self, text: str) -> None:
        """A paragraph."""
        self.draw(textwrap.wrap(text, self.width, break_on_hyphens=False))

    def gap(self) -> None:
        """An empty line."""
        self.console.print()

    def draw(self, lines: Iterable[str]) -> None:
        """Lines as they are."""
        for line in lines:
            self.console.print(Text.from_ansi(line), no_wrap=True, overflow="ignore", crop=False)


def page() -> Page:
    """The page on standard output."""
    return Page(Console(highlight=False, markup=False, emoji=False))
