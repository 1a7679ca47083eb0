"""A fit on a graphics card: data and losses stay in the processor's memory, the network and its state do not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from tests.training.card import assert_the_same_on_both
from training.errors import ConfigError
from training.fitting.trainer import Trainer
from training.recipes.named import copy_memory

if TYPE_CHECKING:
    from tests.training.card import Card
    from training.recipes.recall import Recall


def test_recall_is_fitted_on_a_card_as_on_the_processor(card: Card, brief: Recall) -> None:
    assert_the_same_on_both(replace(brief, steps=2, evaluate_every=2), 2)
    assert card.moved


def test_a_recipe_of_examples_is_fitted_on_a_card_as_on_the_processor(card: Card) -> None:
    assert_the_same_on_both(replace(copy_memory(), steps=2, evaluate_every=2, batch=4, hidden=8), 2)
    assert card.moved


def test_where_there_is_no_card_it_is_said(brief: Recall) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    config = replace(brief, device="cuda")
    with pytest.raises(ConfigError, match="--device: cuda: no graphics card that torch can use"):
        Trainer(config, config.task())


def test_more_processes_than_cards_are_refused(brief: Recall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    config = replace(brief, device="cuda")
    with pytest.raises(ConfigError, match=r"1 graphics card\(s\), too few for process 2 of this machine"):
        Trainer(config, config.task())
