"""A table goes in as it is, with names, categories, times and gaps; classes and raw units come out."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

import tidegate
from tests.running_server import RunningServer
from tests.table_model import table_model, write
from tests.tidegate.cli.test_cli import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLE = """\
Time;Date;load;station;wind;Temperature (C)
23:30;31.01.2024;50;A;NW;20.5
00:30;1.02.2024;60;A;;
01:30;1.02.2024;70;A;N;NA
02:30;1.02.2024;100;A;SE;-3
"""
ROWS = np.array([[20.5, 1, 23, 50], [np.nan, 0, 0, 60], [np.nan, 0, 1, 70], [-3, 2, 2, 100]], np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write(folder / "table" / "1", table_model())
    return folder


@pytest.fixture(scope="module")
def table_server(models: Path) -> Iterator[RunningServer]:
    with RunningServer(models) as server:
        yield server.ready()


@pytest.fixture
def expected(models: Path) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(models / "table" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    forecast, weather = session.run(None, {"x": ROWS[np.newaxis]})
    return forecast[0], weather[0]


@pytest.mark.parametrize("chunk", ["1", "3"])
def test_the_commands_answers_to_a_raw_table_are_the_files_own(
    table_server: RunningServer, expected: tuple[np.ndarray, np.ndarray], tmp_path: Path, chunk: str
) -> None:
    (tmp_path / "week.csv").write_text(TABLE, encoding="utf-8")
    done = run(table_server.address, "stream", "table", "--no-trace", "--chunk", chunk, str(tmp_path / "week.csv"))
    note = "tidegate: columns that the model does not take are left out: 'station'\n"
    assert (done.returncode, done.stderr) == (0, note)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    numbers = [[float(row[name]) for name in ("demand", "p(sun)", "p(rain)")] for row in rows]
    np.testing.assert_allclose(numbers, np.hstack(expected), rtol=1e-5, atol=1e-5)
    assert [row["weather"] for row in rows] == [("sun", "rain")[at] for at in expected[1].argmax(1)]


def test_json_on_standard_input_is_answered_as_the_csv_is(
    table_server: RunningServer, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    rows = csv.DictReader(io.StringIO(TABLE), delimiter=";")
    lines = "".join(json.dumps({name: cell for name, cell in row.items() if cell}) + "\n" for row in rows)
    done = run(table_server.address, "stream", "table", "--no-trace", "--input", "json", given=lines)
    assert done.returncode == 0, done.stderr
    forecast = [float(row["demand"]) for row in csv.DictReader(io.StringIO(done.stdout))]
    np.testing.assert_allclose(forecast, expected[0].ravel(), rtol=1e-5, atol=1e-5)


def test_json_lines_and_drawings_show_classes_and_units(
    table_server: RunningServer, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    classes = [("sun", "rain")[at] for at in expected[1].argmax(1)]
    lines = run(
        table_server.address, "stream", "table", "--no-trace", "--output", "jsonl", given=TABLE
    ).stdout.splitlines()
    assert [json.loads(line)["classes"] for line in lines] == [{"weather": each} for each in classes]
    drawn = run(
        table_server.address, "stream", "table", "--no-trace", "--output", "drawing", given=TABLE
    ).stdout.splitlines()
    assert drawn[-5].split() == ["step", "demand", "[MW]", "weather", "p(sun)", "p(rain)"]
    assert [line.split()[2] for line in drawn[-4:]] == classes


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("100;A", "101;A", "line 5: column 'load' holds '101'; 0 to 100 % is taken"),
        ("70;A", ";A", "line 4: column 'load' holds '', and a number was expected"),
        ("1.02.2024;60", "1/2/24;60", "line 3: column 'Date Time': '1/2/24 00:30' is no time; expected the form"),
        ("load", "lode", "line 1: there is no column load; the model takes Temperature (C), wind, load, Date, Time"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_file_line_and_column(
    table_server: RunningServer, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    path = tmp_path / "week.csv"
    path.write_text(TABLE.replace(old, new), encoding="utf-8")
    done = run(table_server.address, "stream", "table", "--no-trace", str(path))
    assert done.returncode == 1
    assert f"tidegate: {path}: {sentence}" in done.stderr


NAMED: list[dict[str, Any]] = [
    {"temp": 20.5, "wind": "NW", "hour": 23, "load": 50},
    {"wind": "", "Date": "1.02.2024", "Time": "00:30", "load": 60},
    {"temp": None, "wind": "N", "time": np.datetime64("2024-02-01T01:30"), "load": "70"},
    {"Temperature (C)": -3, "wind": "SE", "hour": 2, "load": 100},
]


def test_rows_by_name_are_steps_chunks_fleets_and_predictions(
    table_server: RunningServer, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    forecast, _ = expected
    with tidegate.connect(table_server.address) as client:
        with client.sequence("table") as sequence:
            steps = [sequence.step(row).outputs["forecast"] for row in NAMED]
        with client.sequence("table") as sequence:
            chunk = sequence.chunk(NAMED).outputs["forecast"]
        predicted = client.predict("table", NAMED).outputs["forecast"]
        with client.fleet("table", 2) as fleet:
            together = fleet.step(NAMED[:2]).outputs["forecast"]
        for got in (np.stack(steps), chunk, predicted):
            np.testing.assert_allclose(got, forecast, rtol=1e-5, atol=1e-5)
        assert together[0] == steps[0]


async def test_the_client_for_asyncio_takes_the_same_rows(
    table_server: RunningServer, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    async with tidegate.AsyncClient(table_server.address) as client, client.sequence("table") as sequence:
        got = [answer.outputs["forecast"] async for answer in sequence.stream(NAMED)]
    np.testing.assert_allclose(np.stack(got), expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("at", "value", "reason", "sentence"),
    [
        (0, np.inf, "NOT_FINITE", "holds inf in row 0, column 'temp'; a number or NaN is taken"),
        (1, np.nan, "NOT_FINITE", "holds nan in row 0, column 'wind'; only finite numbers are taken"),
        (1, 3, "OUT_OF_RANGE", "column 'wind'; the number of one of its 3 categories is taken, 0 to 2"),
        (3, -1, "OUT_OF_RANGE", "holds -1.0 in row 0, column 'load'; 0 to 100 % is taken"),
    ],
)
def test_the_server_itself_refuses_what_a_column_does_not_take_in_every_form(
    table_server: RunningServer, at: int, value: float, reason: str, sentence: str
) -> None:
    row = ROWS[0].copy()
    row[at] = value
    with tidegate.connect(table_server.address) as client, client.sequence("table") as sequence:
        sequence.step(ROWS[1])
        rows = np.stack([row, row])
        calls = [lambda: sequence.step(row), lambda: sequence.chunk(rows), lambda: client.predict("table", rows)]
        with client.fleet("table", 2) as fleet:
            for call in (*calls, lambda: fleet.step(rows)):
                with pytest.raises(tidegate.BadInput) as caught:
                    call()
                assert caught.value.reason == reason
                assert sentence in str(caught.value)
        assert sequence.step(ROWS[2]).step == 1


def test_a_description_shows_all_that_is_said_of_a_column(table_server: RunningServer) -> None:
    with tidegate.connect(table_server.address) as client:
        model = client.describe("table")
    (x,), (forecast, weather) = model.inputs, model.outputs
    assert (x.columns[0].missing, x.columns[0].source, x.columns[0].unit) == (True, "Temperature (C)", "degC")
    assert (x.columns[1].categories, x.columns[2].calendar) == (("", "NW", "SE"), "hour")
    assert (x.columns[3].lowest, x.columns[3].highest, x.timestamp) == (0, 100, ("Date", "Time"))
    assert (forecast.units, weather.classes) == (("MW",), ("sun", "rain"))
    assert weather.class_of(np.array([0.2, 0.8])) == "rain"
    page = run(table_server.address, "describe", "table").stdout
    for line in (
        "    temp  degC  may be missing; 'Temperature (C)' in a table",
        "    wind        one of NW, SE, or any other",
        "    hour  h     hour of a row's time",
        "    load  %     0 to 100",
        "    a row's time: 'Date' and 'Time' of a table, as %d.%m.%Y %H:%M",
        "    the class of the greatest: sun, rain",
    ):
        assert line in page.splitlines()
