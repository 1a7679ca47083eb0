"""What the columns of a model's inputs, outputs and traces are called in a table. Pure."""

import math
from collections.abc import Iterator

from tidegate.answers import TraceLayout
from tidegate.model import TensorSpec


def column_names(spec: TensorSpec) -> list[str]:
    """One name for each number of one row: its features, else the tensor's name, with an index if there are several."""
    count = math.prod(spec.shape)
    if len(spec.features) == count:
        return list(spec.features)
    return [spec.name] if count == 1 else [f"{spec.name}.{index}" for index in range(count)]


def trace_names(layout: TraceLayout) -> Iterator[str]:
    """One name for each column of a trace in the order of `trace_order`, like l0.forget.3: layer, part, unit."""
    for layer, parts in sorted(layout.columns.items()):
        for part, run in parts.items():
            for unit in range(run.stop - run.start):
                yield f"l{layer}.{part}.{unit}"
