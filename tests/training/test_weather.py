from __future__ import annotations

import csv
import gzip
import hashlib
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from training.command import main, parser
from training.recipes.datafile import WEATHER
from training.recipes.weather import weather
from training.tabular.command import configured
from training.tabular.learning import splits

if TYPE_CHECKING:
    from pathlib import Path

    from training.tabular.settings import Table


def test_the_recipe_is_the_command_for_any_table_with_settings_of_its_own() -> None:
    assert changed("weather --cell gru --hidden 8") == {"cell", "hidden"}
    assert changed(f"table {WEATHER} --target TEMP --horizons 1,6,24 --name weather") == {"unit"}


def changed(typed: str) -> set[str]:
    """What a command has that the recipe has otherwise."""
    config, recipe = configured(parser().parse_args(typed.split())), weather()
    names = {field.name for field in fields(config)} - {"files"}
    return {name for name in names if getattr(config, name) != getattr(recipe, name)}


def test_the_provenance_names_the_data_by_its_content(brief_weather: Table) -> None:
    digest = hashlib.sha256(hashlib.sha256(WEATHER.read_bytes()).digest()).hexdigest()
    assert brief_weather.task().data == {"source": "beijing_hourly.csv.gz", "sha256": digest}


def test_a_brief_fit_beats_naive_forecasts_and_its_figures_are_those_of_the_file_computed_without_our_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    assert main(["weather", "--steps", "60", *places]) == 0
    said = capsys.readouterr().out
    assert "It beats the best naive forecast" in said
    with gzip.open(WEATHER, "rt") as file:
        temperature_N = np.array([float(row["TEMP"]) for row in csv.DictReader(file)])
    task = weather().task()
    (span,) = task.parts.spans(task.look.grid, splits.TEST, task.lead)
    session = onnxruntime.InferenceSession(str(tmp_path / "models/weather/1/model.onnx"))
    (y,) = session.run(None, {"x": task.inputs.x_NF[None, span[0] : span[2]]})
    for output, ahead in enumerate((1, 6, 24)):
        now_M = np.arange(span[1], span[2] - ahead)
        came_M = temperature_N[now_M + ahead]
        model = np.abs(y[0, now_M - span[0], output] - came_M).mean()
        persistence = np.abs(temperature_N[now_M] - came_M).mean()
        yesterday = np.abs(temperature_N[now_M + ahead - 24] - came_M).mean()
        line = next(line for line in said.splitlines() if f"TEMP in degC, {ahead} ahead" in line)
        figures = [float(cell.replace(",", "")) for cell in line.split("│")[2:5]]
        assert figures == pytest.approx([model, persistence, yesterday], rel=1e-3)
