"""Runs a loaded model one step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stepgraph.model import LoadedModel


def streamed(loaded: LoadedModel, x_BTI: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The output `y` and what a trace shows of the one layer, [T, B, n] each, one step at a time."""
    state = np.tile(loaded.graph.initial, (len(x_BTI), 1))
    seen: dict[str, list[NDArray[np.float32]]] = {}
    for x_BI in x_BTI.transpose(1, 0, 2):
        result = loaded.engine.run({"x": x_BI[np.newaxis]}, state, trace=True)
        state = result.state
        assert result.trace is not None
        seen.setdefault("y", []).append(result.outputs["y"][0])
        for columns in loaded.graph.trace:
            seen.setdefault(columns.name, []).append(result.trace[0][:, columns.span])
    return {name: np.stack(values) for name, values in seen.items()}
