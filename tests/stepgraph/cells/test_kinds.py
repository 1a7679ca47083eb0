"""A cell is one file: nothing outside `cells` lists cells, and no protocol does."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from stepgraph.cells.cell import Operator
from stepgraph.cells.kinds import KINDS, OPERATORS

ROOT = Path(__file__).parents[3]


def test_no_other_file_names_a_cell_or_its_operator() -> None:
    names = "|".join(map(re.escape, {*KINDS, *OPERATORS}))
    sources = (path for room in ("stepgraph", "server") for path in (ROOT / room).rglob("*.py"))
    outside = [path for path in sources if (ROOT / "stepgraph" / "cells") not in path.parents]
    assert [path.name for path in outside if re.search(rf"[\"']({names})[\"']", path.read_text("utf-8"))] == []


@pytest.mark.parametrize("operator", [o for o in OPERATORS.values() if not o.domain], ids=lambda o: o.name)
def test_inputs_and_outputs_have_the_names_and_the_order_of_the_standard(operator: Operator) -> None:
    schema = onnx.defs.get_schema(operator.name)
    assert operator.inputs == tuple(each.name for each in schema.inputs)[: len(operator.inputs)]
    assert operator.outputs == tuple(each.name for each in schema.outputs)
    assert len(operator.initial) == len(operator.kind.states)
    assert set(operator.kind.gates) <= set(operator.blocks) or not operator.blocks
