"""The inside of a network as lines of text, one for each step. Pure: values in, lines out.

From left to right as data runs through a unit: input gate, forget gate, cell, output gate, hidden. A unit of a wide
layer is one character; units that do not fit are left out, and the header says how many.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np

from tidegate.answers import Answer, TraceLayout
from tidegate.drawing import glyphs
from tidegate.drawing.glyphs import Style
from tidegate.drawing.names import layers_in_short, output_names, output_texts, printable
from tidegate.model import Model, TensorSpec

# What is drawn of a cell, in this order, with its short label. The candidate is left to the data: it is no gate.
_LABELS = {"input": "i", "forget": "f", "update": "z", "reset": "r", "cell": "c", "output": "o", "hidden": "h"}
_STATES = {"cell", "hidden"}
_BAR_UNITS = 4  # as long as a layer has no more units, its states are bars
_BAR_WIDTH = 9
_STEP_WIDTH = 6
_SERIES_WIDTH = 12
_NUMBER_WIDTH = 9
_LONG = 1e4  # numbers from here on are written with an exponent
_MOST_NUMBERS = 4  # outputs that are drawn as numbers


@dataclass(frozen=True, slots=True)
class Look:
    """How much room a drawing takes: units of each layer, long or short labels, bars or single marks for states."""

    units: int
    long_labels: bool
    bars: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One part of one layer: which units of it are drawn, and how."""

    layer: int
    part: str
    units: tuple[int, ...]
    look: Look

    @property
    def label(self) -> str:
        return self.part if self.look.long_labels else _LABELS[self.part]

    @property
    def is_bar(self) -> bool:
        return self.look.bars and self.part in _STATES

    @property
    def width(self) -> int:
        return max(len(self.label), self._marks_width)

    @property
    def _marks_width(self) -> int:
        return len(self.units) * (_BAR_WIDTH + 1) - 1 if self.is_bar else len(self.units)

    def marks(self, values: Sequence[float] | np.ndarray, style: Style) -> str:
        room = " " * (self.width - self._marks_width)
        if self.is_bar:
            return " ".join(glyphs.bar(float(value), style) for value in values) + room
        draw = glyphs.state if self.part in _STATES else glyphs.gate
        return "".join(draw(float(value), style) for value in values) + room


class Drawing:
    """Draws answers: first `header`, then a `line` for each. `apart`: the names of what tells their series apart."""

    def __init__(
        self,
        model: Model,
        layout: TraceLayout,
        width: int,
        style: Style,
        units: Sequence[int] | None = None,
        apart: Sequence[str] = (),
    ) -> None:
        self._model = model
        self._apart = apart
        self._style = style
        self._width = width
        self._names = [name for spec in model.outputs for name in _labels(spec)]
        self._shown = self._names[:_MOST_NUMBERS]
        self._groups = _fitting(layout, width - self._left_width - 2, units)
        self._layers = {layer: list(groups) for layer, groups in groupby(self._groups, attrgetter("layer"))}
        self._hidden_units = _hidden_units(layout, self._groups)

    @property
    def _left_width(self) -> int:
        return len(self._series(())) + _STEP_WIDTH + sum(2 + self._number_width(name) for name in self._shown)

    def _series(self, values: Sequence[str]) -> str:
        """The left column: of which series a line is."""
        return _cut(printable(", ".join(values)), _SERIES_WIDTH).ljust(_SERIES_WIDTH) if self._apart else ""

    def _number_width(self, name: str) -> int:
        return max(_NUMBER_WIDTH, min(len(name), 2 * _NUMBER_WIDTH))

    # The header.

    def header(self) -> list[str]:
        asides = [self._style.dim(line) for line in (self._legend(), self._notes()) if line]
        layers = [line for line in [self._layers_line()] if line]
        return [self._style.bold(self._title()), *asides, *layers, self._labels_line()]

    def _title(self) -> str:
        return f"{self._model.name} version {self._model.version}: {layers_in_short(self._model.layers)}"

    def _legend(self) -> str:
        between = "▓▒░" if self._style.unicode else "+:."
        gates = f"gates: o open (> {glyphs.OPEN:g})  {between} between  - closed (< {glyphs.CLOSED:g})"
        return gates if any(group.part not in _STATES for group in self._groups) else ""

    def _layers_line(self) -> str:
        kinds = {layer.index: layer.kind for layer in self._model.layers}
        names = []
        for layer, groups in self._layers.items():
            width = sum(group.width for group in groups) + 2 * (len(groups) - 1)
            name = next(
                (n for n in (f"layer {layer} {kinds.get(layer, '')}".strip(), f"l{layer}") if len(n) <= width), ""
            )
            names.append(name.ljust(width))
        return (" " * self._left_width + "  " + self._gap.join(names)).rstrip() if len(names) > 1 else ""

    def _labels_line(self) -> str:
        numbers = "".join(
            "  " + _cut(name, self._number_width(name)).rjust(self._number_width(name)) for name in self._shown
        )
        labels = ["  ".join(group.label.ljust(group.width) for group in groups) for groups in self._layers.values()]
        return self._style.bold(
            (self._series(self._apart) + "step".rjust(_STEP_WIDTH) + numbers + "  " + self._gap.join(labels)).rstrip()
        )

    def _notes(self) -> str:
        notes = _units_left_out(self._hidden_units)
        if len(self._names) > len(self._shown):
            notes.append(f"+{len(self._names) - len(self._shown)} more outputs")
        return _cut("; ".join(notes), self._width)

    # The lines.

    def line(self, answer: Answer, series: Sequence[str] = ()) -> str:
        texts = [text for spec in self._model.outputs for text in self._texts(spec, answer)]
        left = self._series(series) + str(answer.step).rjust(_STEP_WIDTH)
        for name, text in zip(self._shown, texts, strict=False):
            width = self._number_width(name)
            left += "  " + _cut(text if answer.answered else "", width).rjust(width)
        if answer.trace is None:
            return left
        marks = [
            "  ".join(
                group.marks(answer.layer[group.layer][group.part][list(group.units)], self._style) for group in groups
            )
            for groups in self._layers.values()
        ]
        return (left + "  " + self._gap.join(marks)).rstrip()

    def _texts(self, spec: TensorSpec, answer: Answer) -> list[str]:
        return [printable(text) for text in output_texts(spec, answer.outputs[spec.name], _number)]

    @property
    def _gap(self) -> str:
        return self._style.dim("  │ " if self._style.unicode else "  | ")


def _labels(spec: TensorSpec) -> list[str]:
    """The names of an output's texts, with their units where there is room."""
    units = {column.name: column.unit for column in spec.columns}
    names = [(name, f"{name} [{units[name]}]" if units.get(name) else name) for name in output_names(spec)]
    return [printable(long if len(long) <= 2 * _NUMBER_WIDTH else name) for name, long in names]


def _fitting(layout: TraceLayout, room: int, units: Sequence[int] | None) -> list[Group]:
    groups: list[Group] = []
    for look in _looks(layout, units):
        groups = _groups(layout, look, units)
        if _width(groups) <= room:
            return groups
    while groups and _width(groups) > room:
        groups.pop()
    return groups


def _looks(layout: TraceLayout, units: Sequence[int] | None) -> Iterator[Look]:
    most = len(units) if units is not None else max((_size(parts) for parts in layout.columns.values()), default=0)
    for count in range(most, 0, -1):
        for bars in (True, False) if count <= _BAR_UNITS else (False,):
            yield Look(count, long_labels=True, bars=bars)
        yield Look(count, long_labels=False, bars=False)


def _groups(layout: TraceLayout, look: Look, units: Sequence[int] | None) -> list[Group]:
    groups = []
    for layer, parts in sorted(layout.columns.items()):
        size = _size(parts)
        drawn = tuple(unit for unit in (range(size) if units is None else units) if unit < size)[: look.units]
        groups += [Group(layer, part, drawn, look) for part in _LABELS if part in parts and drawn]
    return groups


def _width(groups: Sequence[Group]) -> int:
    layers = len({group.layer for group in groups})
    return sum(group.width + 2 for group in groups) - 2 + 2 * (layers - 1)


def _hidden_units(layout: TraceLayout, groups: Sequence[Group]) -> dict[int, int]:
    drawn = {group.layer: len(group.units) for group in groups}
    return {layer: _size(parts) - drawn.get(layer, 0) for layer, parts in sorted(layout.columns.items())}


def _units_left_out(hidden: Mapping[int, int]) -> list[str]:
    if not any(hidden.values()):
        return []
    if len(set(hidden.values())) == 1:
        each = " in each layer" if len(hidden) > 1 else ""
        return [f"+{next(iter(hidden.values()))} more units{each}: --units and --layers choose"]
    return [f"layer {layer}: +{count} more units" for layer, count in hidden.items() if count]


def _size(parts: Mapping[str, slice]) -> int:
    run = next(iter(parts.values()))
    return int(run.stop) - int(run.start)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < _LONG else f"{value:.4g}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"
