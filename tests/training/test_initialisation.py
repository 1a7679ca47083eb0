from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from training.network import build

if TYPE_CHECKING:
    from training.recipes.recall import Recall

HIDDEN = 200


def bias(config: Recall, layer: int) -> dict[str, torch.Tensor]:
    """The sum of torch's two biases by gate: torch packs an LSTM as i, f, g, o and a GRU as r, z, n."""
    cell = build(config, config.task()).cell
    total = getattr(cell, f"bias_ih_l{layer}") + getattr(cell, f"bias_hh_l{layer}")
    return dict(zip("ifgo" if config.cell == "lstm" else "rzn", total.detach().split(HIDDEN), strict=True))


@pytest.fixture
def wide(brief: Recall) -> Recall:
    return replace(brief, hidden=HIDDEN, layers=2, chrono=None, forget_bias=None)


@pytest.mark.parametrize("layer", [0, 1])
def test_forget_bias_sets_the_forget_gate_of_an_lstm_and_nothing_else(wide: Recall, layer: int) -> None:
    before, after = bias(wide, layer), bias(replace(wide, forget_bias=1.5), layer)
    assert torch.all(after["f"] == 1.5)
    for gate in "igo":
        assert torch.equal(before[gate], after[gate])


@pytest.mark.parametrize("layer", [0, 1])
def test_forget_bias_sets_the_update_gate_of_a_gru_and_nothing_else(wide: Recall, layer: int) -> None:
    gru = replace(wide, cell="gru")
    before, after = bias(gru, layer), bias(replace(gru, forget_bias=2.0), layer)
    assert torch.all(after["z"] == 2.0)
    for gate in "rn":
        assert torch.equal(before[gate], after[gate])


@pytest.mark.parametrize("layer", [0, 1])
def test_chrono_spreads_the_forget_gates_over_time_scales_and_closes_the_input_gates(wide: Recall, layer: int) -> None:
    longest = 101
    found = bias(replace(wide, chrono=longest), layer)
    lag = found["f"].exp()
    assert torch.equal(found["i"], -found["f"])
    assert torch.all(found["g"] == 0)
    assert torch.all(found["o"] == 0)
    # Uniform on [1, 100]: mean 50.5, deviation 28.6, so the mean of 200 is within 4 of its own deviations of 2.0.
    assert lag.min() >= 1
    assert lag.max() <= longest - 1 + 1e-3
    assert abs(lag.mean().item() - 50.5) < 8.1
    assert lag.max() > 90


def test_chrono_opens_the_update_gates_of_a_gru(wide: Recall) -> None:
    found = bias(replace(wide, cell="gru", chrono=101), 0)
    assert found["z"].exp().min() >= 1
    assert found["z"].exp().max() > 90
    assert torch.all(found["r"] == 0)
    assert torch.all(found["n"] == 0)


def test_an_rnn_has_no_gate_and_ignores_both(wide: Recall) -> None:
    rnn = replace(wide, cell="rnn")
    plain = build(rnn, rnn.task()).state_dict()
    for changed in (replace(rnn, chrono=20), replace(rnn, forget_bias=1.0)):
        found = build(changed, changed.task()).state_dict()
        assert all(torch.equal(plain[name], found[name]) for name in plain)


def test_the_first_weights_depend_on_the_seed_alone(wide: Recall) -> None:
    torch.manual_seed(99)
    first = build(wide, wide.task()).state_dict()
    torch.rand(1000)
    second = build(wide, wide.task()).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
