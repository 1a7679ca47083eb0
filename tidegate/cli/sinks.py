"""Where answers are shown: as CSV, JSON lines or a drawing. A line is flushed as soon as its answer is there.

`apart` are the columns that tell series apart; with each answer come their values.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TextIO

import numpy as np

from tidegate.answers import Answer, Array
from tidegate.columns.words import class_of
from tidegate.drawing.glyphs import Style
from tidegate.drawing.lines import Drawing
from tidegate.drawing.names import output_names, output_texts, trace_names
from tidegate.model import Model


def style_of(file: TextIO) -> Style:
    try:
        "│█░▔→".encode(file.encoding or "ascii")
        block = True
    except UnicodeEncodeError:
        block = False
    return Style(colour=file.isatty() and not os.environ.get("NO_COLOR"), unicode=block)


class Sink(Protocol):
    """Where answers go, one after the other."""

    def write(self, answer: Answer, series: Sequence[str] = ()) -> None:
        """Writes one answer; what has to stand before the first one, too."""


class CsvSink:
    """A header, then a line for each step: its series, number, outputs and trace, empty where a step has none."""

    def __init__(self, file: TextIO, model: Model, apart: Sequence[str] = ()) -> None:
        self._apart = apart
        self._file = file
        self._write = csv.writer(file, lineterminator="\n").writerow
        self._specs = model.outputs
        self._outputs = [name for spec in model.outputs for name in output_names(spec)]
        self._trace: list[str] | None = None

    def write(self, answer: Answer, series: Sequence[str] = ()) -> None:
        if self._trace is None:
            self._trace = list(trace_names(answer.layout))
            self._write([*self._apart, "step", *self._outputs, *self._trace])
        numbers = [text for spec in self._specs for text in output_texts(spec, answer.outputs[spec.name])]
        if not answer.answered:
            numbers = [""] * len(self._outputs)
        self._write([*series, answer.step, *numbers, *self._inside(answer)])
        self._file.flush()

    def _inside(self, answer: Answer) -> Iterator[str]:
        if answer.trace is None:
            yield from [""] * len(self._trace or ())
            return
        for layer in answer.layer.values():
            for part in layer.parts:
                yield from _texts(layer[part])


class JsonSink:
    """A JSON object and a line for each step: outputs and their classes by name, traced layers by index and part."""

    def __init__(self, file: TextIO, model: Model, apart: Sequence[str] = ()) -> None:
        self._file = file
        self._apart = apart
        self._classified = [spec for spec in model.outputs if spec.classes]

    def write(self, answer: Answer, series: Sequence[str] = ()) -> None:
        record: dict[str, Any] = {"series": dict(zip(self._apart, series, strict=True))} if self._apart else {}
        record |= {"step": answer.step, "outputs": {n: _plain(a) for n, a in answer.outputs.items()}}
        if self._classified and answer.answered:
            outputs = answer.outputs
            record["classes"] = {spec.name: class_of(spec.legend, outputs[spec.name]) for spec in self._classified}
        if answer.trace is not None:
            record["layers"] = {
                str(index): {part: _plain(layer[part]) for part in layer.parts} for index, layer in answer.layer.items()
            }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


class DrawingSink:
    """A drawing for a person: a header, then a line for each step."""

    def __init__(self, file: TextIO, make: Callable[[Answer], Drawing]) -> None:
        self._file = file
        self._make = make
        self._drawing: Drawing | None = None

    def write(self, answer: Answer, series: Sequence[str] = ()) -> None:
        if self._drawing is None:
            self._drawing = self._make(answer)
            for line in self._drawing.header():
                self._file.write(line + "\n")
        self._file.write(self._drawing.line(answer, series) + "\n")
        self._file.flush()


def _texts(array: Array) -> list[str]:
    """Each number in as many digits as its type needs to be read back exactly."""
    return [str(value) for value in np.ravel(array)]


def _plain(array: Array) -> Any:  # noqa: ANN401 - nested lists of numbers, as deep as the array
    """The array as JSON's lists; floats in the digits of their own type, NaN and Inf as null, which JSON lacks."""
    if array.dtype.kind != "f":
        return array.tolist()
    if array.ndim:
        return [_plain(row) for row in array]
    return float(str(array)) if np.isfinite(array) else None
