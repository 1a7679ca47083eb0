"""What the metadata and model.toml say of a table's columns, and what becomes of it when the file is loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

import stepgraph
from stepgraph import loading
from stepgraph.report import remarks
from tests.table_model import INPUTS, OUTPUTS, table_model, write
from tidegate.columns import Column

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from stepgraph.model import LoadedModel

ROW = (20.0, 1, 13, 50)


def _loaded(folder: Path, model: onnx.ModelProto, toml: str = "") -> LoadedModel:
    return loading.load(write(folder, model, toml), 1, 0)


def test_what_the_metadata_says_is_known_and_a_missing_number_is_proved_to_be_filled(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, table_model())
    legend = loaded.graph.inputs[0].legend
    assert legend.columns[0] == Column("temp", "degC", missing=True, source="Temperature (C)")
    assert legend.columns[3] == Column("load", "%", lowest=0, highest=100)
    assert (legend.timestamp, legend.time_format) == (("Date", "Time"), "%d.%m.%Y %H:%M")
    assert loaded.graph.outputs[1].legend.classes == ("sun", "rain")
    assert not loaded.facts.untold
    assert loaded.proof.max_error <= loaded.proof.tolerance


def test_a_step_takes_what_its_columns_say_and_nothing_else(tmp_path: Path) -> None:
    model = stepgraph.load(write(tmp_path, table_model()))
    answer, _ = model.step((np.nan, *ROW[1:]))
    assert np.isfinite(answer.outputs["forecast"]).all()
    for row, sentence in (((20, 3, 1, 1), "one of its 3 categories"), ((20, 1, 1, 101), "column 'load'; 0 to 100 %")):
        with pytest.raises(stepgraph.BadInput, match=sentence):
            model.step(row)


def test_model_toml_wins_key_by_key(tmp_path: Path) -> None:
    toml = (
        '[inputs.x]\nunits = ["K", "", "h", "%"]\nrange = {load = [-inf, 5]}\n[outputs.weather]\nclasses = ["a", "b"]'
    )
    loaded = _loaded(tmp_path, table_model(), toml)
    legend = loaded.graph.inputs[0].legend
    assert legend.columns[0] == Column("temp", "K", missing=True, source="Temperature (C)")
    assert legend.columns[3].bounds == (float("-inf"), 5)
    assert loaded.graph.outputs[1].legend.classes == ("a", "b")
    assert loaded.graph.outputs[0].legend.columns == (Column("demand", "MW"),)


@pytest.mark.parametrize(
    ("inputs", "outputs", "note"),
    [
        (INPUTS | {"units": 3}, OUTPUTS, "units 3 are said of 'x'"),
        (INPUTS | {"scale": 3}, OUTPUTS, "'scale' is said of 'x'; known are features"),
        (INPUTS, {"forecast": [1]}, "expected a table of keys"),
        (INPUTS, OUTPUTS | {"wether": {}}, "the file has no output 'wether'; it has forecast, weather"),
        (INPUTS, "no JSON", "tidegate.outputs is passed over: it is no JSON object"),
        (INPUTS, "[" * 100_000, "tidegate.outputs is passed over"),
    ],
)
def test_metadata_that_makes_no_sense_is_a_remark_and_the_rest_is_read(
    tmp_path: Path, inputs: object, outputs: object, note: str
) -> None:
    loaded = _loaded(tmp_path, table_model(inputs=inputs, outputs=outputs))
    assert any(note in remark for remark in remarks.remarks(loaded))
    assert loaded.graph.inputs[0].legend.columns[0].missing


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("inputs.x.units = 3", r"model.toml under \[inputs.x\]: units 3 are said"),
        ("inputs.y.units = []", r"model.toml under \[inputs.y\]: clients have no input 'y'; there are x"),
        ("outputs.weather.range = {}", r"under \[outputs.weather\]: 'range' is said of 'weather'; known are"),
        ("inputs.x = 3", r"expected a table \[inputs.x\]"),
        ("outputs.leave_out = 3", "expected a list of outputs' names"),
        ("[features]", r"expected the tables \[state\], \[start\]"),
    ],
)
def test_a_model_toml_that_makes_no_sense_is_refused_with_what_was_expected(
    tmp_path: Path, toml: str, sentence: str
) -> None:
    with pytest.raises(stepgraph.ModelRefused, match=sentence):
        _loaded(tmp_path, table_model(), toml)


def test_a_number_that_the_file_does_not_fill_in_may_not_be_missing(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path / "metadata", table_model(fills=False))
    assert not any(column.missing for column in loaded.graph.inputs[0].legend.columns)
    assert any("tidegate.inputs says of missing numbers" in each and "NaN" in each for each in loaded.facts.untold)
    with pytest.raises(stepgraph.ModelRefused, match=r"`missing` \(x\.0\) the file itself has to fill in.*answers NaN"):
        _loaded(tmp_path / "toml", table_model(fills=False, inputs={}), 'inputs.x.missing = ["x.0"]')


def test_a_model_without_any_of_it_is_as_it_was(tmp_path: Path) -> None:
    model = table_model(inputs={}, outputs={})
    model.metadata_props[0].value = json.dumps({"x": {"features": ["a", "b", "c", "d"]}})
    assert _loaded(tmp_path, model).graph.inputs[0].legend.columns[1] == Column("b")
