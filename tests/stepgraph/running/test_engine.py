"""The engine by itself."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
import onnx

from stepgraph.loading import load
from stepgraph.running import engine as engine_module
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


def test_a_slow_step_is_warmed_up_at_powers_of_two_and_what_lies_between_costs_as_much_as_the_one_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(stack("LSTM", 1, 4, 4), tmp_path / "model.onnx")
    engine = load(tmp_path / "model.onnx", 1, 0.0).engine
    sizes = list[int]()
    monkeypatch.setattr(engine_module, "_SLOW", 0.0)
    monkeypatch.setattr(engine, "run", lambda _, state, **_more: sizes.append(len(state)))
    engine.warm_up(100, 1.0)
    assert sizes == [size for size in (1, 2, 4, 8, 16, 32, 64) for _ in (True, False)]
    assert engine.largest == 100
    assert engine.seconds(100) == engine.seconds(64) > 0
    assert engine.seconds(7) == engine.seconds(4)
