"""The engine by itself."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
import onnx

from stepgraph.loading import load
from tests.lab.looks import stack

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_many_steps_hold_the_state_of_the_last_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state may be a thousand times as large as an answer."""
    onnx.save(stack("LSTM", 1, 4, 4), tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx", 1, 0.0)
    step, states, alive = model.engine._step, list[weakref.ref[np.ndarray]](), list[int]()

    def watched(inputs: dict[str, np.ndarray], state: np.ndarray, trace: bool) -> list[np.ndarray]:
        values = step(inputs, state, trace)
        states.append(weakref.ref(values[len(model.graph.outputs)]))
        alive.append(sum(each() is not None for each in states))
        return values

    monkeypatch.setattr(model.engine, "_step", watched)
    model.engine.run({"x": np.ones((20, 1, 4), np.float32)}, model.graph.start(1), trace=True)
    assert max(alive) <= 2
