"""Draws the ladder of a model as lines of text, with the notes that the caller gives."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stepgraph.report.ladder import MOVES, Rung
from stepgraph.report.words import Box

WIDTH = 80
_LEFT, _RAIL, _INNER = 2, 8, 36  # columns: where a box begins, where the line runs, how wide a box is inside
_INDENT = " " * _RAIL
_LOOP_WIDTH = WIDTH - _LEFT - _INNER - 7


@dataclass(frozen=True)
class Line:
    """A line of a page and how it is shown: "" plain, else "title", "good" or "bad"."""

    text: str
    style: Literal["", "title", "good", "bad"] = ""


@dataclass(frozen=True)
class Note:
    """Text beside a rung; `loop` draws an arrow from a cell back to itself."""

    lines: tuple[str, ...] = ()
    loop: bool = False


def draw(rungs: Sequence[Rung], notes: Mapping[str, Note], marked: Mapping[str, str]) -> list[Line]:
    """The ladder in lines of 80 columns.

    `notes` are what to write beside inputs, outputs and cells, by name; `marked` what to say of a node, by its name.
    """
    page = _Page(rungs, notes, marked)
    for i in range(len(rungs)):
        page.add(i)
    return page.lines


@dataclass
class _Page:
    rungs: Sequence[Rung]
    notes: Mapping[str, Note]
    marked: Mapping[str, str]
    lines: list[Line] = field(default_factory=list)

    def add(self, i: int) -> None:
        rung = self.rungs[i]
        self._join(i, rung)
        if rung.kind == "operators":
            self._operators(rung)
        elif rung.kind == "cell":
            self._cell(rung, ends=not self._goes_on(i))
        else:
            self._port(rung)

    def _goes_on(self, i: int) -> bool:
        return i + 1 < len(self.rungs) and i in self.rungs[i + 1].above

    def _join(self, i: int, rung: Rung) -> None:
        """The line into a rung: from the rung above, from others beside it, or from others only."""
        straight = i - 1 in rung.above
        others = ", ".join(self._called(self.rungs[k]) for k in rung.above if k != i - 1)
        if not straight and i:
            self._say("")
        if straight and self.rungs[i - 1].kind in ("input", "cell"):
            self._say(f"{_INDENT}│")
        if others:
            self._wrapped(f"{_INDENT}{'├' if straight else '┌'}── {'with' if straight else 'from'} ", others)
        if others and rung.kind == "cell":
            self._say(f"{_INDENT}│")

    def _called(self, rung: Rung) -> str:
        """A rung's name: its last operator that computes, or the rung above where all only reshape."""
        computing = [word.text for word in rung.words if word.text not in MOVES]
        if rung.kind == "operators" and not computing and len(rung.above) == 1:
            return self._called(self.rungs[rung.above[0]])
        return computing[-1] if rung.kind == "operators" and computing else shortened(rung.name, 30)

    def _port(self, rung: Rung) -> None:
        if rung.kind == "output" and rung.above:
            self._say(f"{_INDENT}▼")
        note = "  ".join(self.notes.get(rung.name, Note((rung.declared,))).lines)
        self._wrapped(_INDENT, f"{shortened(rung.name, 40)}  {note}".rstrip())

    def _operators(self, rung: Rung) -> None:
        plain: list[str] = []
        for word in (*rung.words, None):
            said = next((self.marked[n] for n in word.nodes if n in self.marked), None) if word else None
            if (said or word is None) and plain:
                self._wrapped(f"{_INDENT}│  ", ", ".join(_counted(plain)))
                plain = []
            if word and said:
                self._wrapped(f"{_INDENT}│  ", f"{word.text}  <-- {said}", "bad")
            elif word:
                plain.append(word.text)

    def _cell(self, rung: Rung, ends: bool) -> None:
        assert rung.box is not None
        said = next((self.marked[n] for word in rung.words for n in word.nodes if n in self.marked), None)
        note = Note((f"<-- {said}",)) if said else self.notes.get(rung.name, Note())
        beside = [part for line in note.lines for part in textwrap.wrap(line, _LOOP_WIDTH)]
        inside = _inside(rung.name, rung.box)
        height = max(len(inside), len(beside), 2)
        inside += [""] * (height - len(inside))
        beside += [""] * (height - len(beside))
        style: Literal["", "bad"] = "bad" if said else ""
        self._say(f"{' ' * _LEFT}┌{_edge('┴' if rung.above else '─')}┐", style)
        for k, (text, right) in enumerate(zip(inside, beside, strict=True)):
            rail = ("│   ", "├──╮" if k == 0 else "│◀─╯" if k == height - 1 else "│  │")[note.loop]
            self._say(f"{' ' * _LEFT}│ {text:{_INNER - 2}} {rail} {right}".rstrip(), style)
        self._say(f"{' ' * _LEFT}└{_edge('─' if ends else '┬')}┘", style)

    def _wrapped(self, head: str, text: str, style: Literal["", "bad"] = "") -> None:
        room = WIDTH - len(head)
        for k, part in enumerate(textwrap.wrap(text, room, break_on_hyphens=False) or [""]):
            rest = head if "│" in head else _INDENT + ("│" if "├" in head or "┌" in head else " ")
            self._say((head if k == 0 else rest.ljust(len(head))) + part, style)

    def _say(self, text: str, style: Literal["", "bad"] = "") -> None:
        self.lines.append(Line(text, style))


def _inside(name: str, box: Box) -> list[str]:
    sizes = f"{'?' if box.input_size is None else box.input_size} -> {box.hidden_size or '?'}"
    special = textwrap.wrap(", ".join(box.special), _INNER - 2)
    return [f"{box.kind}  {sizes}", *special, shortened(name, _INNER - 2)]


def _edge(joint: str) -> str:
    before = _RAIL - _LEFT - 1
    return "─" * before + joint + "─" * (_INNER - before - 1)


def _counted(words: Sequence[str]) -> list[str]:
    """The words, with a count where one is repeated."""
    counted: list[tuple[str, int]] = []
    for word in words:
        times = counted.pop()[1] if counted and counted[-1][0] == word else 0
        counted.append((word, times + 1))
    return [word if times == 1 else f"{word} x{times}" for word, times in counted]


def shortened(name: str, room: int) -> str:
    if len(name) <= room:
        return name
    return f"{name[: (room - 3) // 2]}...{name[len(name) - (room - 2) // 2 :]}"
