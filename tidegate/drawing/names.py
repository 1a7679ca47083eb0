"""What a model's layers are called in short, and its inputs, outputs and traces as columns of a table. Pure."""

import math
from collections.abc import Iterator, Sequence

from tidegate.answers import TraceLayout
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
