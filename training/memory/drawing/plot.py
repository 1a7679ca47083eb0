"""A frame with two scales, and lines, bands and dots in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.memory.drawing.svg import element, text

if TYPE_CHECKING:
    from collections.abc import Sequence

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` onto a line; `ticks` are those with a label."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1; what lies outside is put at the edge."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return (at - low) / (high - low)

    def told(self, value: float) -> str:
        if self.log and not 0.01 <= value <= 9999:
            return "10" + power(value)
        return f"{value:g}"


def power(value: float) -> str:
    """The exponent of a power of ten, raised."""
    return str(round(math.log10(value))).translate(SUPERSCRIPT)


@dataclass(frozen=True)
class Plot:
    """A frame at a place in a picture."""

    left: float
    top: float
    width: float
    height: float
    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + self.x.share(x) * self.width, self.top + (1 - self.y.share(y)) * self.height

    def frame(self, title: str, x_label: str, y_label: str) -> str:
        bottom, right = self.top + self.height, self.left + self.width
        parts = [text(self.left, self.top - 30, title, "title"), text(right, bottom + 34, x_label, anchor="end")]
        if y_label:
            parts.append(text(self.left - 40, self.top - 12, y_label))
        for tick in self.x.ticks:
            at = self.at(tick, self.y.low)[0]
            parts.append(element("line", x1=at, x2=at, y1=float(self.top), y2=float(bottom), class_="grid"))
            parts.append(text(at, bottom + 16, self.x.told(tick), "tick", "middle"))
        for tick in self.y.ticks:
            at = self.at(self.x.low, tick)[1]
            parts.append(element("line", x1=float(self.left), x2=float(right), y1=at, y2=at, class_="grid"))
            parts.append(text(self.left - 6, at + 4, self.y.told(tick), "tick", "end"))
        return "".join(parts)

    def line(self, points: Sequence[tuple[float, float]], class_: str) -> str:
        return element("polyline", points=self._points(points), class_=f"line {class_}")

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], class_: str) -> str:
        there = list(zip(xs, high, strict=True))
        back = list(zip(xs, low, strict=True))[::-1]
        return element("polygon", points=self._points(there + back), class_=f"band {class_}")

    def dot(self, x: float, y: float, class_: str, radius: float = 3.5) -> str:
        at_x, at_y = self.at(x, y)
        return element("circle", cx=at_x, cy=at_y, r=float(radius), class_=f"dot {class_}")

    def upright(self, x: float, words: str) -> str:
        """A dashed line at one x, with words at its head."""
        at = self.at(x, self.y.low)[0]
        line = element("line", x1=at, x2=at, y1=self.top - 4.0, y2=float(self.top + self.height), class_="mark")
        return line + text(at, self.top - 8, words, "tick", "middle")

    def _points(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
