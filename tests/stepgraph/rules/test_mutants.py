"""Broken rules are seen: each operator's rule is made to claim what is wrong, and a drawn graph must contradict it.

TIDEGATE_DRAWN_GRAPHS=40 tries every way to break each of them, at more graphs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from stepgraph.rules.axes import time_of, with_time
from stepgraph.rules.families import RULES
from stepgraph.rules.table import Entry
from stepgraph.rules.value import Value
from tests.stepgraph.rules.test_reading import held

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepgraph.rules.table import Call

ALL = "TIDEGATE_DRAWN_GRAPHS" in os.environ
SEEDS = 40


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

    return Entry(rule, entry.says)


def seen(operator: str) -> bool:
    for seed in range(SEEDS):
        try:
            held(operator, seed)
        except AssertionError:
            return True
    return False
