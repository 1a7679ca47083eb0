"""Broken rules are seen: each operator's rule is made to claim what is wrong, and a drawn graph must contradict it.

TIDEGATE_DRAWN_GRAPHS in the environment breaks each of them in every way.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stepgraph.rules import shapes
from stepgraph.rules.axes import time_of, with_time
from stepgraph.rules.families import RULES
from stepgraph.rules.table import Entry
from stepgraph.rules.value import Value
from tests.drawn.graphs import CELLS
from tests.drawn.operators import OPERATORS
from tests.stepgraph.rules.test_reading import held

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepgraph.rules.table import Call

SEEDS = 80
slow = pytest.mark.skipif("TIDEGATE_DRAWN_GRAPHS" not in os.environ, reason="takes a minute; the others stay")

# What cannot be seen, and why.
WINDOWS = {"BlackmanWindow", "HammingWindow", "HannWindow"}
NO_DATA = WINDOWS | {"Constant", "ConstantOfShape", "EyeLike", "Range", "Shape", "Size"}
NO_DATA |= {"MelWeightMatrix", "NonZero", "OptionalHasElement", "SequenceEmpty", "SequenceLength", "Unique"}
ALWAYS_MIXES = {"DynamicQuantizeLinear"}  # it is over all axes, and a tensor of data has rows or steps
REACHING = sorted(op for op in OPERATORS if RULES[op].says.startswith("reach"))
OVER = sorted(op for op in OPERATORS if "over" in RULES[op].rule.__code__.co_names)
UNBROKEN = {
    "Upsample": "is drawn with the mode that repeats each step alone",
    "BatchNormalization": "mixes in training mode only, which is not drawn",
    "Concat": "joins steps in ways only that other findings refuse",
    "GridSample": "is refused over steps by what comes after, too",
    "ConvTranspose": "has its weight's filters along the axis that it sums over: rows or steps never fit there",
}


def independent(value: Value) -> Value:
    """As if it depended on no data."""
    return replace(value, live=False) if value.live else value


def local(value: Value) -> Value:
    """As if it reached no further than its own step."""
    return replace(value, back=0, ahead=0)


def elsewhere(value: Value) -> Value:
    """As if each element were of the step after its own."""
    time = time_of(value.axes)
    return replace(value, axes=with_time(value.axes, replace(time, shift=time.shift + time.rate))) if time else value


def broken(operator: str, claim: Callable[[Value], Value]) -> Entry:
    entry = RULES[operator]

    def rule(call: Call) -> list[Value]:
        results = entry.rule(call)
        return [claim(value) for value in ([results] if isinstance(results, Value) else results)]

    return replace(entry, rule=rule)


def seen(operator: str) -> bool:
    for seed in range(SEEDS):
        try:
            held(operator, seed)
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize("operator", sorted(OPERATORS.keys() - NO_DATA - ALWAYS_MIXES))
def test_a_rule_that_says_its_answer_depends_on_no_data_is_seen(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, operator, broken(operator, independent))
    assert seen(operator)


@pytest.mark.parametrize("operator", sorted(set(REACHING) - UNBROKEN.keys()))
def test_a_rule_that_says_local_of_what_reaches_to_other_steps_is_seen(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, operator, broken(operator, local))
    assert seen(operator)


def test_a_rule_that_says_a_mask_is_the_same_at_all_steps_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_always", lambda call: True if any(v.ramp is not None for v in call.all) else None)
    assert seen("Range")


@slow
@pytest.mark.parametrize("operator", sorted(OPERATORS.keys() - NO_DATA - ALWAYS_MIXES - set(CELLS)))
def test_a_rule_that_says_another_step_is_seen(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are not among them: what they answer depends on all steps before, wherever these are said to be."""
    monkeypatch.setitem(RULES, operator, broken(operator, elsewhere))
    assert seen(operator)


@slow
@pytest.mark.parametrize("operator", sorted(set(OVER) - UNBROKEN.keys()))
def test_a_rule_that_lets_pass_what_is_over_all_steps_is_seen(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[RULES[operator].rule.__module__], "over", lambda *_: None)
    assert seen(operator)
