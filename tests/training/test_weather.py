from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

from training.errors import ConfigError, DataError
from training.fitting.session import train
from training.network import build
from training.recipes.observations import FEATURES, FILE, last_known, load
from training.scaling import Encoder

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from training.recipes.weather import Weather

TEMP = FEATURES.index("TEMP")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The file, read without our code."""
    with gzip.open(FILE, "rt") as file:
        return list(csv.DictReader(file))


def test_a_missing_value_is_the_one_last_measured_by_an_independent_loop(rows: list[dict[str, str]]) -> None:
    observed = load()
    last = None
    expected = []
    for row in rows:
        last = last if row["pm2.5"] == "NA" else float(row["pm2.5"])
        expected.append(last)
    assert expected[23] is None
    assert expected[24] is not None
    assert observed.dropped == 24
    assert observed.x_NF[:, FEATURES.index("pm2.5")].tolist() == pytest.approx(expected[24:])
    assert observed.filled == {"pm2.5": sum(row["pm2.5"] == "NA" for row in rows[24:])}
    assert not np.isnan(observed.x_NF).any()


def test_rows_are_what_a_station_measures_in_its_own_units(rows: list[dict[str, str]]) -> None:
    observed = load()
    for index in (0, 1234, 43799):
        row, x = rows[24 + index], dict(zip(FEATURES, observed.x_NF[index].tolist(), strict=True))
        for name in ("month", "hour", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir"):
            assert x[name] == pytest.approx(float(row[name]))
        wind = {name: x[f"wind_{name}"] for name in ("NE", "NW", "SE", "cv")}
        assert wind == {name: float(row["cbwd"] == name) for name in wind}
        expected = np.datetime64(
            f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}T{int(row['hour']):02}", "h"
        )
        assert observed.time_N[index] == expected


def test_filling_never_looks_ahead() -> None:
    raw = np.array([[1, 5], [np.nan, 6], [np.nan, np.nan], [4, 8]], dtype=np.float32)
    assert last_known(raw).tolist() == [[1, 5], [1, 6], [1, 6], [4, 8]]
    later = raw.copy()
    later[3:] = 99
    assert last_known(later)[:3].tolist() == last_known(raw)[:3].tolist()


def test_the_split_is_by_time_and_no_target_lies_in_the_next_span(brief_weather: Weather) -> None:
    task, hours = brief_weather.task(), load().x_NF
    spans = (task.training, task.validation, task.test)
    assert torch.equal(torch.cat([span.x_NF for span in spans]), torch.from_numpy(hours))
    assert [len(span.x_NF) for span in spans] == [35040, 4380, 4380]
    for span in spans:
        temperature = span.x_NF[:, TEMP]
        assert len(span.y_NO) == len(span.x_NF) - 24
        for now in (0, 17, len(span.y_NO) - 1):
            expected = [temperature[now + ahead].item() for ahead in (1, 6, 24)]
            assert span.y_NO[now].tolist() == expected


def test_nothing_of_validation_or_test_reaches_the_scaling_or_the_training_loss(
    brief_weather: Weather, tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    other = [
        dict(row) if index < 24 + 35040 else {**row, "TEMP": "40", "PRES": "900"} for index, row in enumerate(rows)
    ]
    changed = replace(brief_weather, data=written(tmp_path, other))
    losses, scalings = [], []
    for config in (brief_weather, changed):
        task = config.task()
        network = build(config, task)
        losses.append([task.loss(network, step).item() for step in range(20)])
        scalings.append(task.scaling)
    assert losses[0] == losses[1]
    for name in ("mean_F", "deviation_F", "spread_O"):
        assert torch.equal(getattr(scalings[0], name), getattr(scalings[1], name))


def written(folder: Path, rows: list[dict[str, str]]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    path = folder / "changed.csv.gz"
    path.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=1))
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[100].update(cbwd="up"), "unknown wind direction 'up'"),
        (lambda rows: rows[100].update(TEMP="warm"), "warm"),
        (lambda rows: rows.pop(100), "hours do not go on"),
        (lambda rows: [row.update(DEWP="NA") for row in rows], "never measured"),
        (lambda rows: [row.pop("PRES") for row in rows], "PRES"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_a_clear_error(
    rows: list[dict[str, str]], tmp_path: Path, change: object, reason: str
) -> None:
    short = [dict(row) for row in rows[:200]]
    assert callable(change)
    change(short)
    with pytest.raises(DataError, match=reason):
        load(written(tmp_path, short))


def test_hour_and_month_go_round_inside_the_graph(brief_weather: Weather) -> None:
    encoder = Encoder(brief_weather.task().scaling)
    x = torch.zeros(1, 2, len(FEATURES))
    x[..., FEATURES.index("hour")] = torch.tensor([6.0, 30.0])
    x[..., FEATURES.index("month")] = torch.tensor([3.0, 15.0])
    wave = encoder(x)[0, :, len(FEATURES) :]
    # month 3 is a quarter of the way round, and so is hour 6: sine 1 and cosine 0, and the same one turn later
    np.testing.assert_allclose(wave.numpy(), [[1, 0, 1, 0]] * 2, atol=1e-5)


def test_a_brief_fit_beats_both_plain_forecasts_and_every_number_of_the_report_is_right(
    brief_weather: Weather, console: Console, rows: list[dict[str, str]]
) -> None:
    result = train(replace(brief_weather, steps=100), console=console)
    temperature = np.array([float(row["TEMP"]) for row in rows])
    start = 24 + 35040 + 4380
    x = load().x_NF[start - 24 :]
    session = onnxruntime.InferenceSession(result.model.path.read_bytes(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x[None]})
    values = json.loads(result.run.result.read_text())["report"]
    for output, ahead in enumerate((1, 6, 24)):
        errors: dict[str, list[float]] = {"model": [], "persistence": [], "yesterday": []}
        for now in range(start, len(rows) - 24):
            came = temperature[now + ahead]
            errors["model"].append(abs(y[0, now - start, output] - came))
            errors["persistence"].append(abs(temperature[now] - came))
            errors["yesterday"].append(abs(temperature[now + ahead - 24] - came))
        expected = {name: np.mean(listed) for name, listed in errors.items()}
        assert values[f"{ahead}h"] == pytest.approx(expected, rel=1e-4)
        if ahead < 24:
            assert values[f"{ahead}h"]["model"] < min(expected["persistence"], expected["yesterday"])
        for error in expected.values():
            assert f"{error:.2f}" in result.run.report.read_text()


def test_the_run_says_what_was_done_about_missing_values(brief_weather: Weather) -> None:
    said = "\n".join(brief_weather.task().notes)
    assert "2043 of pm2.5" in said
    assert "first 24 hours" in said
    assert "35040 / 4380 / 4380" in said


def test_the_provenance_names_the_data_by_its_content(brief_weather: Weather) -> None:
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert brief_weather.task().data == {"source": "beijing_hourly.csv.gz", "sha256": digest}


def test_shares_that_leave_no_test_are_refused(brief_weather: Weather) -> None:
    with pytest.raises(ConfigError, match="--validation-share"):
        replace(brief_weather, training_share=0.8, validation_share=0.2)
    with pytest.raises(ConfigError, match="--validation-share"):
        replace(brief_weather, validation_share=0.1999).task()
    with pytest.raises(ConfigError, match="--window"):
        replace(brief_weather, window=40000).task()
