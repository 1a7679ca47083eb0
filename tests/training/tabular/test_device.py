"""A table that is fitted on a graphics card: see `tests/training/card`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.training.card import assert_the_same_on_both, weights
from training.fitting import checkpoint
from training.fitting.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.training.card import Card
    from training.tabular.settings import Table


@pytest.mark.parametrize("changes", [{"lags": 3, "quantiles": (0.1, 0.9)}, {"target": ("kind",)}])
def test_a_table_is_fitted_on_a_card_as_on_the_processor(
    card: Card, brief_table: Callable[..., Table], changes: dict[str, object]
) -> None:
    assert_the_same_on_both(brief_table(steps=2, evaluate_every=2, window=12, **changes), 2)
    assert card.moved


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
def test_a_fit_on_a_card_goes_on_from_its_checkpoint(
    card: Card, brief_table: Callable[..., Table], tmp_path: Path
) -> None:
    config = brief_table(steps=4, evaluate_every=4, window=12, device="cuda")
    whole = Trainer(config, config.task())
    whole.fit(4)
    first = Trainer(config, config.task())
    first.fit(2)
    state = first.state()
    checkpoint.save(card.fetched(state), tmp_path / "checkpoint.pt")
    second = Trainer(config, config.task())
    second.resume(checkpoint.load(tmp_path / "checkpoint.pt"))
    second.fit(4)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())
