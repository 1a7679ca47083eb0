"""How much the long comparison computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepgraph.loading import load
from stepgraph.proving import long_run
from stepgraph.proving.hints import STEPS, Hints

FILE = Path(__file__).parents[2] / "models" / "made" / "torch-dynamo" / "lstm.onnx"


@pytest.mark.parametrize(("wide", "reach", "wanted"), [(1, 0, 64), (1, 500, 564), (10**6, 0, STEPS)])
def test_very_wide_rows_are_compared_over_no_more_steps_than_a_constant_reaches(
    wide: int, reach: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_run, "_WIDE", wide)
    facts = load(FILE, 1, 0.0).facts
    (rows,) = long_run._data(facts, Hints(reach, ())).values()
    assert len(rows) == wanted
