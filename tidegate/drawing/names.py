"""What a model's layers are called in short, and its inputs, outputs and traces as columns of a table. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tidegate.answers import Array, TraceLayout
from tidegate.columns.words import category_of, class_of
from tidegate.model import Layer, TensorSpec


def printable(text: str) -> str:
    """Text of others for a terminal: what could move its cursor or change its colours is shown by its number."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def column_names(spec: TensorSpec) -> list[str]:
    """One name for each number of one row: its features, else the tensor's name, with an index if there are several."""
    count = math.prod(spec.shape)
    if len(spec.features) == count:
        return [printable(name) for name in spec.features]
    name = printable(spec.name)
    return [name] if count == 1 else [f"{name}.{index}" for index in range(count)]


def output_names(spec: TensorSpec) -> list[str]:
    """One name for each of `output_texts`: the class of an output that has classes, then its numbers."""
    names = column_names(spec)
    of_class = printable(spec.name)
    return [*([f"{of_class}.class" if of_class in names else of_class] if spec.classes else []), *names]


def output_texts(spec: TensorSpec, array: Array, number: Callable[[Any], str] = str) -> list[str]:
    """The class of an output that has classes, and each number, or the category that it is the number of."""
    values = np.ravel(array)
    columns = spec.columns if len(spec.columns) == len(values) else [None] * len(values)
    texts = [
        category_of(column, value) if column is not None and column.categories else number(value)
        for column, value in zip(columns, values, strict=True)
    ]
    return [class_of(spec.legend, values), *texts] if spec.classes else texts


def trace_names(layout: TraceLayout) -> Iterator[str]:
    """One name for each column of a trace in the order of `trace_order`, like l0.forget.3: layer, part, unit."""
    for layer, parts in sorted(layout.columns.items()):
        for part, run in parts.items():
            for unit in range(run.stop - run.start):
                yield f"l{layer}.{part}.{unit}"


def layers_in_short(layers: Sequence[Layer]) -> str:
    runs: list[tuple[str, int, int]] = []
    for layer in layers:
        if runs and runs[-1][:2] == (layer.kind, layer.hidden_size):
            runs[-1] = (layer.kind, layer.hidden_size, runs[-1][2] + 1)
        else:
            runs.append((layer.kind, layer.hidden_size, 1))
    return ", ".join(f"{kind} {count}x{size}" if count > 1 else f"{kind} {size}" for kind, size, count in runs)
