from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from training.errors import ConfigError
from training.recipes.named import RECIPES
from training.recipes.synthetic import adding, copy_memory, latch, temporal_order

if TYPE_CHECKING:
    from training.examples.task import ExamplesTask

DRAWN = ("adding", "temporal-order", "copy")


def test_the_sum_is_that_of_one_marked_value_in_each_half() -> None:
    drawn = adding.draw(RECIPES["adding"](), 3, 200)
    value_BT, mark_BT = drawn.x_BTF.unbind(dim=-1)
    assert mark_BT[:, :50].sum(dim=1).tolist() == mark_BT[:, 50:].sum(dim=1).tolist() == [1.0] * 200
    torch.testing.assert_close(drawn.y[:, -1, 0], (value_BT * mark_BT).sum(dim=1))
    assert drawn.scored_BT.nonzero()[:, 1].unique().tolist() == [99]
    assert torch.var(drawn.y[:, -1, 0]).item() == pytest.approx(adding.WITHOUT_MEMORY, abs=0.03)


def test_the_order_is_that_of_the_two_marks() -> None:
    drawn = temporal_order.draw(RECIPES["temporal-order"](), 5, 200)
    symbol_BT = drawn.x_BTF.argmax(dim=-1)
    for symbols, order in zip(symbol_BT.tolist(), drawn.y[:, -1].tolist(), strict=True):
        text = [temporal_order.SYMBOLS[symbol] for symbol in symbols]
        marks = [(step, symbol) for step, symbol in enumerate(text) if symbol in "XY"]
        assert "".join(symbol for _, symbol in marks) == temporal_order.ORDERS[order]
        assert 10 <= marks[0][0] <= 20
        assert 50 <= marks[1][0] <= 60
        assert (text[0], text[-1]) == ("E", "B")


def test_the_letters_are_to_be_said_after_the_signal_in_their_order() -> None:
    drawn = copy_memory.draw(RECIPES["copy"](), 1, 20)
    symbol_BT = drawn.x_BTF.argmax(dim=-1)
    assert symbol_BT.shape == (20, 30)
    assert torch.equal(symbol_BT[:, :10], drawn.y[:, -10:])
    assert symbol_BT[0].eq(copy_memory.SIGNAL).nonzero().flatten().tolist() == [19]
    assert drawn.scored_BT[0].nonzero().flatten().tolist() == list(range(20, 30))


def test_the_first_value_says_the_bit_of_the_latch() -> None:
    config = latch.Latch(
        name="latch", cell="rnn", hidden=4, steps=1, batch=1, learning_rate=0.1, evaluate_every=1, patience=1
    )
    drawn = latch.draw(config, 0, 100)
    assert torch.equal((drawn.x_BTF[:, 0, 0] > 0).long(), drawn.y[:, -1])
    assert drawn.x_BTF[:, 1:].std().item() == pytest.approx(latch.NOISE, abs=0.01)


@pytest.mark.parametrize("name", DRAWN)
def test_each_step_has_sequences_of_its_own_and_always_the_same(name: str) -> None:
    first, second = task_of(name), task_of(name)
    assert torch.equal(first.draw(7).x_BTF, second.draw(7).x_BTF)
    assert not torch.equal(first.draw(7).x_BTF, first.draw(8).x_BTF)
    assert not torch.equal(first.validation.x_BTF, first.test.x_BTF)
    assert not torch.equal(first.draw(7).x_BTF, task_of(name, seed=1).draw(7).x_BTF)


@pytest.mark.parametrize(
    ("name", "changes"), [("adding", {"length": 1}), ("temporal-order", {"length": 9}), ("copy", {"silence": 0})]
)
def test_what_is_too_short_is_refused(name: str, changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be at least"):
        replace(RECIPES[name](), **changes)


def task_of(name: str, **changes: int) -> ExamplesTask:
    return replace(RECIPES[name](), **changes).task()
