"""The lesson's figure: one unit over time with its gates around it (Graves 2012, figure 4.4). Pure.

Time runs from left to right. The output gate stands above the unit, the forget gate to its left, the input gate below:
o is open, - is closed. The unit is the fuller, the more it holds of what it held at most.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tidegate.answers import Answers, Array, LayerTrace, Prediction
from tidegate.drawing import glyphs
from tidegate.drawing.glyphs import Style

_COLUMN = 8  # characters for each step
_LABEL = 14
# Where a gate stands, whichever cell it belongs to: a GRU's gates take the places of what they do.
_ABOVE, _LEFT, _BELOW = ("output",), ("forget", "update"), ("input", "reset")

_PLAIN = Style()


def figure(answers: Answers | Prediction, layer: int = 0, unit: int = 0, style: Style = _PLAIN) -> list[str]:
    """Lines for one unit of one layer over a block of steps, each of them traced. Raises NotTraced.

    The largest amount of the block is drawn as full. A layer without gates is its unit alone.
    """
    trace = answers.layer[layer]
    held = trace["cell" if "cell" in trace.parts else "hidden"][:, unit]
    most = float(np.abs(held).max(initial=1e-9))
    outputs = answers.output.reshape(len(answers), -1)[:, 0]

    def mark(name: str) -> list[str]:
        return [glyphs.gate(float(value), style) for value in trace[name][:, unit]]

    rows = [
        _row("answer", (f"{value:z.2f}" for value in outputs)),
        *(_row(f"{name} gate", (f"  {m}" for m in mark(name))) for name in _first(trace, _ABOVE)),
        _row(", ".join([*_first(trace, _LEFT), "unit"]), _units(trace, held, most, mark, style)),
        *(_row(f"{name} gate", (f"  {m}" for m in mark(name))) for name in _first(trace, _BELOW)),
        _row("step", (f"  {step}" for step in answers.steps)),
    ]
    return [row.rstrip() for row in rows]


def _units(
    trace: LayerTrace, held: Array, most: float, mark: Callable[[str], list[str]], style: Style
) -> Iterable[str]:
    left = next((mark(name) for name in _first(trace, _LEFT)), [" "] * len(held))
    return (f"{m} {glyphs.shade(abs(value) / most, style) * 3}" for m, value in zip(left, held.tolist(), strict=True))


def _first(trace: LayerTrace, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in trace.parts][:1]


def _row(label: str, cells: Iterable[str]) -> str:
    return label.rjust(_LABEL) + "   " + "".join(cell + " " * (_COLUMN - glyphs.visible_length(cell)) for cell in cells)
