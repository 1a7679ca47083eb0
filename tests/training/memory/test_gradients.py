"""Gates, states and gradients of the equations are torch's own; the known table of gradients is met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from training.memory.equations import Layer, of_torch, run
from training.memory.experiments import carry_out
from training.memory.gradients import reach_of
from training.memory.numbers import Beginning, beginnings
from training.memory.plan import Experiment

if TYPE_CHECKING:
    from pathlib import Path

CELLS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def cell_of(kind: str, features: int = 3, hidden: int = 5, seed: int = 0) -> torch.nn.RNNBase:
    torch.manual_seed(seed)
    return CELLS[kind](features, hidden, batch_first=True).double()


def x_of(steps: int, features: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, steps, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", CELLS)
def test_the_equations_give_torchs_states(kind: str) -> None:
    cell, x_1TF = cell_of(kind), x_of(9)
    (layer,) = of_torch(cell)
    wanted, state = cell(x_1TF)
    passage = run(layer, x_1TF[0].numpy())
    np.testing.assert_allclose(passage.h[1:], wanted[0].detach().numpy(), atol=1e-12)
    if kind == "lstm":
        np.testing.assert_allclose(passage.c[-1], state[1][0, 0].detach().numpy(), atol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_the_gradient_by_each_input_is_autograds(kind: str) -> None:
    cell, x_1TF = cell_of(kind), x_of(7)
    x_1TF.requires_grad_()
    (layer,) = of_torch(cell)
    last_H = cell(x_1TF)[0][0, -1]
    rows = [torch.autograd.grad(unit, x_1TF, retain_graph=True)[0][0] for unit in last_H]
    wanted_T = torch.stack(rows).square().sum(dim=(0, 2)).sqrt() / len(last_H) ** 0.5
    found = reach_of(layer, run(layer, x_1TF[0].detach().numpy()))
    np.testing.assert_allclose(found.by_input, wanted_T.flip(0).numpy(), rtol=1e-9)


@pytest.mark.parametrize("kind", CELLS)
def test_the_gradient_by_the_state_that_carries_the_memory_is_autograds(kind: str) -> None:
    cell, x_1TF = cell_of(kind), x_of(6)
    (layer,) = of_torch(cell)
    found = reach_of(layer, run(layer, x_1TF[0].numpy()))
    for lag in range(1, 5):
        _, before = cell(x_1TF[:, : 6 - lag])
        h, c = before if kind == "lstm" else (before, before)
        carrier = c.detach().clone().requires_grad_()
        if kind == "lstm":  # h of that step is o tanh(c)
            out_H = run(layer, x_1TF[0].numpy()).gates["output"][5 - lag]
            h = torch.from_numpy(out_H) * torch.tanh(carrier)
        last_H = cell(x_1TF[:, 6 - lag :], (h, carrier) if kind == "lstm" else carrier)[0][0, -1]
        rows = [torch.autograd.grad(unit, carrier, retain_graph=True)[0].flatten() for unit in last_H]
        assert found.by_carrier[lag] == pytest.approx(torch.stack(rows).norm().item() / 5**0.5, rel=1e-9)


def test_a_gru_whose_reset_comes_before_is_differentiated_too() -> None:
    cell, x_1TF = cell_of("gru"), x_of(6)
    (layer,) = of_torch(cell)
    before = Layer("gru", layer.from_x, layer.from_h, layer.bias_x, layer.bias_h, reset_after=False)
    found = reach_of(before, run(before, x_1TF[0].numpy()))
    for lag in (0, 2, 5):
        columns = []
        for feature in range(3):
            apart = []
            for sign in (1, -1):
                x_TF = x_1TF[0].numpy().copy()
                x_TF[5 - lag, feature] += sign * 1e-6
                apart.append(run(before, x_TF).h[-1])
            columns.append((apart[0] - apart[1]) / 2e-6)
        assert found.by_input[lag] == pytest.approx(np.linalg.norm(columns) / 5**0.5, rel=1e-5)


LAGS = (1, 10, 20, 50, 99)
# Measured before by autograd: mean over random directions of h_T, 64 units, random input, 100 steps, one seed.
KNOWN = {
    "RNN": (0.55, 5e-3, 4e-5, 2e-11, 1e-21),
    "GRU": (0.53, 7e-3, 8e-5, 1e-10, 4e-20),
    "LSTM": (0.25, 3e-3, 2e-5, 3e-11, 1e-20),
    "LSTM, forget bias 1": (0.37, 0.059, 0.012, 1e-4, 1e-7),
    "LSTM, chrono": (0.48, 0.38, 0.31, 0.19, 0.096),
}


@pytest.fixture(scope="module")
def begun() -> list[Beginning]:
    torch.set_num_threads(1)
    return beginnings(4)


@pytest.mark.parametrize("name", KNOWN)
def test_before_training_the_gradient_falls_with_the_lag_as_is_known(name: str, begun: list[Beginning]) -> None:
    mean_T = np.mean([one.reach.by_carrier for one in begun if one.start == name], axis=0)
    for lag, known in zip(LAGS, KNOWN[name], strict=True):
        assert abs(np.log10(mean_T[lag] / known)) < 1, (name, lag, mean_T[lag], known)


def test_training_opens_the_path_of_a_network_that_began_with_an_open_one(tmp_path: Path) -> None:
    experiment = Experiment("temporal-order", "LSTM, chrono", 60, 32, seed=0, limit=600, every=50)
    outcome = carry_out(experiment, tmp_path, lambda: False)
    assert outcome is not None
    assert outcome.solved_at is not None
    before, after = (probe.by_carrier[59] for probe in (outcome.before, outcome.after))
    assert abs(np.log10(before / 1e-1)) < 1
    assert abs(np.log10(after / 8e-1)) < 1
    assert after > before


def test_a_gate_that_stays_open_carries_the_gradient_without_loss() -> None:
    hidden = 2
    bias = np.repeat([-40.0, 40.0, 0.0, 40.0], hidden)  # nothing written, everything kept
    layer = Layer("lstm", np.ones((8, 1)), np.zeros((8, hidden)), bias, np.zeros(8))
    found = reach_of(layer, run(layer, np.zeros((50, 1))))
    np.testing.assert_allclose(found.by_carrier, 1.0, atol=1e-12)
