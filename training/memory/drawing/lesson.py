"""The lesson's figure from a trained unit: its memory at each step, and around it the three gates, open or closed.

As in Graves' figure the input gate stands below the unit, the forget gate to its left, the output gate above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.memory.drawing.svg import element, picture, text
from training.recipes.figure import LESSON

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT, COLUMN, MIDDLE = 96, 88, 150
ROWS = {"answer": 34, "output gate": 92, "the unit": MIDDLE, "input gate": 208, "value in": 262, "told to": 288}


def lesson(values: Mapping[str, Any]) -> str:
    """A column for each step of the lesson."""
    parts = [text(0, at + 4, name) for name, at in ROWS.items()]
    for step, (value, write, read) in enumerate(LESSON):
        x = LEFT + COLUMN * (step + 0.5)
        parts.append(text(x, 14, f"t={step}", "tick", "middle"))
        parts.append(
            text(x, ROWS["answer"] + 4, rounded(values["answer"][step]), "title" if read else "tick", "middle")
        )
        parts.append(gate(x, ROWS["output gate"], values["output"][step]))
        parts.append(unit(x, values["memory"][step]))
        parts.append(gate(x - COLUMN / 2, MIDDLE, values["forget"][step]))
        parts.append(gate(x, ROWS["input gate"], values["input"][step]))
        parts.append(text(x, ROWS["value in"] + 4, f"{value:g}", "title" if write else "tick", "middle"))
        told = "write" if write else "read" if read else ""
        parts.append(text(x, ROWS["told to"] + 4, told, "title", "middle"))
    height = ROWS["told to"] + 20
    return picture(LEFT + COLUMN * len(LESSON), height, "".join(parts), "gates of one unit at each step of the lesson")


def rounded(value: float) -> str:
    """Two decimals, and no sign before a 0."""
    return f"{round(value, 2) + 0.0:.2f}"


def gate(x: float, y: float, value: float) -> str:
    """A ring that is the fuller, the wider the gate is open, with its number."""
    ring = element("circle", cx=x, cy=float(y), r=11.0, class_="ring")
    full = element("circle", cx=x, cy=float(y), r=11 * value**0.5, class_="fill gate")
    return ring + full + text(x, y + 25, f"{value:.2f}", "tick", "middle")


def unit(x: float, memory: float | None) -> str:
    """The unit, the darker the more of the written value it holds."""
    share = min(max(memory or 0.0, 0.0), 1.0)
    body = element("circle", cx=x, cy=float(MIDDLE), r=20.0, class_="unit")
    held = element("circle", cx=x, cy=float(MIDDLE), r=20.0, class_="fill held", fill_opacity=share)
    told = (
        "" if memory is None else text(x, MIDDLE + 4, f"{memory:.2f}", "held-text" if share > 0.5 else "tick", "middle")
    )
    return body + held + told
