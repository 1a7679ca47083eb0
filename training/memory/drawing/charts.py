"""The pictures of the page: gradients against lag, steps against length, half-lives, saturation, kept and written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.memory.drawing.plot import Plot, Scale
from training.memory.drawing.svg import element, picture, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.memory.numbers import Spread

CLASSES = {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm", "LSTM, forget bias 1": "bias", "LSTM, chrono": "chrono"}
WIDTH = 720
# Below this a gradient is drawn at the edge: double precision has no more to say.
SMALLEST = 1e-24


def key(names: Sequence[str]) -> str:
    """Which colour is which network."""
    parts, at = [], 0.0
    for name in names:
        parts.append(element("rect", x=at, y=4.0, width=16.0, height=6.0, rx=3.0, class_=f"fill {CLASSES[name]}"))
        parts.append(text(at + 22, 12, name))
        at += 46 + 7.3 * len(name)
    return picture(WIDTH, 20, "".join(parts), "colours: " + ", ".join(names))


@dataclass(frozen=True)
class Panel:
    """A frame of curves by the network's name, and the lag that the task asks for."""

    title: str
    curves: Mapping[str, Spread]
    asked: float | None = None


def gradients(panels: Sequence[Panel], smallest: float = SMALLEST) -> str:
    """Size of the gradient against lag, a panel beside the other, with the spread of the seeds."""
    gap, left, top, height = 70, 56, 56, 250
    width = (WIDTH - left - 16 - gap * (len(panels) - 1)) / len(panels)
    decades = [10.0**power for power in range(0, -25, -4) if 10.0**power >= smallest]
    parts = []
    for index, panel in enumerate(panels):
        lags = max(len(curve.middle) for curve in panel.curves.values())
        x = Scale(0, lags - 1, tuple(float(lag) for lag in range(0, lags, 20 if lags > 30 else 5)))
        plot = Plot(left + index * (width + gap), top, width, height, x, Scale(smallest, 10, tuple(decades), log=True))
        parts.append(plot.frame(panel.title, "steps back", "size of the gradient" if index == 0 else ""))
        for name, curve in panel.curves.items():
            xs = list(range(len(curve.middle)))
            parts.append(plot.band(xs, curve.low, curve.high, CLASSES[name]))
            parts.append(plot.line(list(zip(xs, curve.middle, strict=True)), CLASSES[name]))
        if panel.asked is not None:
            parts.append(plot.upright(panel.asked, "needed here"))
    return picture(WIDTH, top + height + 44, "".join(parts), "size of the gradient against lag")


@dataclass(frozen=True)
class Solved:
    """What became of the seeds of one network at one length: the step of each that solved it, None for the others."""

    steps: Sequence[int | None]
    limit: int


def steps_to_solve(title: str, found: Mapping[str, Mapping[int, Solved]], left: int = 56) -> str:
    """Steps until solved against length, a dot for each seed; those that never did lie on the line at the top."""
    lengths = sorted({length for by in found.values() for length in by})
    limit = max(one.limit for by in found.values() for one in by.values())
    top, height = 56, 220
    y = Scale(0, limit * 1.18, tuple(round(limit * part / 4) for part in range(5)))
    x = Scale(0, len(lengths), ())
    plot = Plot(left, top, WIDTH - left - 16, height, x, y)
    parts = [plot.frame(title, "length of a sequence", "steps of training until solved")]
    parts.append(plot.line([(0, limit * 1.1), (len(lengths), limit * 1.1)], "never"))
    parts.append(text(WIDTH - 16, plot.at(0, limit * 1.1)[1] - 12, "never, within the steps given", "tick", "end"))
    for column, length in enumerate(lengths):
        parts.append(text(plot.at(column + 0.5, 0)[0], top + height + 16, str(length), "tick", "middle"))
        for row, (name, by) in enumerate(found.items()):
            for seed, step in enumerate(by[length].steps if length in by else ()):
                at = column + 0.14 + 0.72 * (row + 0.22 * seed) / len(found)
                open_ = "" if step is not None else " open"
                parts.append(plot.dot(at, limit * 1.1 if step is None else step, CLASSES[name] + open_, 5))
    return picture(WIDTH, top + height + 44, "".join(parts), f"{title}: steps until solved against length")


def half_lives(rows: Sequence[tuple[str, str, Sequence[float]]], asked: float) -> str:
    """A dot for each unit, from fast to slow; a row for each network before and after."""
    left, top, step = 190, 40, 30
    x = Scale(0.3, 3000, (1, 10, 100, 1000), log=True)
    plot = Plot(left, top, WIDTH - left - 20, step * len(rows), x, Scale(0, len(rows), ()))
    parts = [plot.frame("", "steps until half of a unit's memory is left", "")]
    for index, (name, when, values) in enumerate(rows):
        at = len(rows) - index - 0.5
        parts.append(text(0, plot.at(1, at)[1] + 4, f"{name}, {when}"))
        parts += [plot.dot(value, at, f"{CLASSES[name]} faint", 4) for value in values]
    parts.append(plot.upright(asked, "the task asks for this"))
    return picture(WIDTH, top + step * len(rows) + 44, "".join(parts), "half-lives of units")


def triangles(gates: Mapping[str, Sequence[tuple[str, float, float]]]) -> str:
    """Karpathy's triangle for each gate: how often a unit's gate is open (across) and closed (up)."""
    gap, left, top = 56, 44, 56
    size = (WIDTH - left - 16 - gap * (len(gates) - 1)) / max(len(gates), 3)
    unit = Scale(0, 1, (0.0, 0.5, 1.0))
    parts = []
    for index, (gate, dots) in enumerate(gates.items()):
        plot = Plot(left + index * (size + gap), top, size, size, unit, unit)
        parts.append(plot.frame(f"{gate} gate", "share of steps open", "share closed" if index == 0 else ""))
        parts.append(plot.line([(0, 1), (1, 0)], "never"))
        parts += [plot.dot(right, closed, f"{CLASSES[name]} faint", 4) for name, right, closed in dots]
    return picture(WIDTH, int(top + size + 44), "".join(parts), "share of steps at which gates are open and closed")


def flow(kept: Sequence[float], written: Sequence[float], title: str) -> str:
    """Kept and written at each step, one on the other."""
    left, top, height = 56, 50, 150
    most = max(k + w for k, w in zip(kept, written, strict=True)) * 1.05 or 1.0
    ticks = tuple(float(step) for step in range(0, len(kept), 1 if len(kept) < 12 else 10))
    plot = Plot(left, top, WIDTH - left - 16, height, Scale(-0.5, len(kept) - 0.5, ticks), rounded(most))
    parts = [plot.frame(title, "step", "")]
    for step, (k, w) in enumerate(zip(kept, written, strict=True)):
        for low, high, class_ in ((0.0, k, "kept"), (k, k + w, "written")):
            x0, y0 = plot.at(step - 0.38, high)
            x1, y1 = plot.at(step + 0.38, low)
            parts.append(element("rect", x=x0, y=y0, width=x1 - x0, height=y1 - y0, class_=f"fill {class_}"))
    return picture(WIDTH, top + height + 44, "".join(parts), title)


def rounded(most: float) -> Scale:
    """From 0 to a bit above the largest value, with ticks at multiples of 1, 2 or 5."""
    power = 10 ** math.floor(math.log10(most))
    step = next(power * digit for digit in (5, 2, 1, 0.5) if most >= 2 * power * digit)
    return Scale(0, most, tuple(step * index for index in range(int(most / step) + 1)))
