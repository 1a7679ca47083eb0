from __future__ import annotations

import numpy as np
import pytest
import torch

from training.memory.equations import of_torch, run
from training.memory.measures import LONGEST, flow, half_lives, saturation


def test_a_half_life_is_the_step_at_which_half_is_left() -> None:
    for f, steps in ((0.731, 2.2), (0.9, 6.6), (0.95, 13.5), (0.99, 69), (0.999, 693)):
        found = half_lives(np.full((30, 1), f))[0]
        assert found == pytest.approx(steps, rel=0.01)
        assert f**found == pytest.approx(0.5, rel=1e-9)


def test_of_a_gate_that_moves_the_mean_of_the_logarithm_counts() -> None:
    kept_TH = np.array([[0.5], [0.98]] * 20)
    assert kept_TH.prod() == pytest.approx(0.5 ** (40 / half_lives(kept_TH)[0]))


def test_a_gate_that_is_fully_open_or_shut_has_a_half_life_too() -> None:
    assert half_lives(np.ones((5, 1)))[0] == LONGEST
    assert half_lives(np.zeros((5, 1)))[0] < 0.01


def test_saturation_counts_the_steps_above_and_below_the_thresholds() -> None:
    found = saturation(np.array([[0.95, 0.5], [0.05, 0.5], [0.99, 0.91], [0.2, 0.0]]))
    assert found.right.tolist() == [0.5, 0.25]
    assert found.left.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_what_is_kept_and_what_is_written_add_up_to_the_state(kind: str) -> None:
    torch.manual_seed(0)
    (layer,) = of_torch(getattr(torch.nn, kind)(3, 4).double())
    passage = run(layer, np.random.default_rng(0).normal(size=(12, 3)))
    found = flow(layer, passage)
    assert found is not None
    np.testing.assert_allclose(found.kept + found.written, (passage.c if kind == "LSTM" else passage.h)[1:], atol=1e-12)


def test_an_rnn_has_no_such_sum() -> None:
    (layer,) = of_torch(torch.nn.RNN(3, 4).double())
    assert flow(layer, run(layer, np.zeros((2, 3)))) is None
