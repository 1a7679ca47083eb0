"""Columns that are known ahead, and columns that are the same in all rows of a series."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import polars as pl
import pytest

from tidegate.cli.tables import read
from tidegate.columns import Input, Rows, read_legend
from training.errors import ConfigError, DataError
from training.export import export
from training.fitting.trainer import Trainer
from training.tabular.learning import splits
from training.tabular.learning.inputs import as_before

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.tabular.settings import Table
    from training.tabular.task import TableTask

GAP = range(310, 316)


@pytest.fixture(scope="module")
def promotions(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hourly sales of two shops that follow a promotion and a day's kind, both of which nothing foretells; a gap."""
    random = np.random.default_rng(4)
    lines = ["when,sales,promotion,kind,shop,size,town"]
    for shop, size, town in (("a", 3, "Ulm"), ("b", 7, "Bonn")):
        for row in (row for row in range(600) if row not in GAP):
            moment = np.datetime64("2024-03-01T00:00") + np.timedelta64(row, "h")
            promotion, kind = int(random.random() < 0.5), ["work", "rest"][int(random.random() < 0.4)]
            sales = 10 * size + 20 * promotion + 10 * (kind == "rest") + random.normal()
            cells = [str(moment).replace("T", " "), f"{sales:.2f}", str(promotion), kind, shop, str(size), town]
            lines.append(",".join(cells))
    path = tmp_path_factory.mktemp("known") / "promotions.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def known_table(brief_table: Callable[..., Table], promotions: str) -> Callable[..., Table]:
    def made(**changes: object) -> Table:
        usual = {"files": (promotions,), "target": ("sales",), "series": "shop", "horizons": (1, 3)}
        return brief_table(**(usual | changes))

    return made


def metadata_of(task: TableTask) -> dict[str, Any]:
    """What the exported model's metadata says of its input."""
    content = export(task.network().eval(), task, {}).content
    metadata = {prop.key: prop.value for prop in onnx.load_from_string(content).metadata_props}
    entry: dict[str, Any] = json.loads(metadata["tidegate.inputs"])["x"]
    return entry


def test_a_column_that_is_known_ahead_is_an_input_as_it_is_at_the_time_of_each_forecast(
    known_table: Callable[..., Table],
) -> None:
    task = known_table(known=("promotion", "kind")).task()
    inputs, grid = task.inputs, task.look.grid
    now_N, then_N = (inputs.x_NF[:, inputs.place(name)] for name in ("promotion", "promotion_in_3"))
    for row in range(grid.count):
        later = [place for place in range(row, min(row + 4, grid.count)) if grid.tick_N[place] == grid.tick_N[row] + 3]
        later = [place for place in later if grid.series_N[place] == grid.series_N[row]]
        np.testing.assert_equal(then_N[row], now_N[later[0]] if later else np.nan)
    names = {column.name: column.categories for column in inputs.columns}
    assert names["kind_in_1"] == names["kind"] == ("", "rest", "work")


def test_what_is_known_ahead_makes_forecasts_better_that_nothing_else_could(known_table: Callable[..., Table]) -> None:
    errors = {}
    for known in ((), ("promotion", "kind")):
        config = known_table(known=known, steps=70, hidden=8, learning_rate=0.03, horizons=(2,))
        task = config.task()
        trainer = Trainer(config, task)
        trainer.fit(until=config.steps)
        trainer.restore_best()
        there_N = (task.parts.part_N == splits.TEST) & ~np.isnan(task.aim.y_NG[:, 0])
        y_NO = task.served(trainer.network, splits.TEST)
        errors[bool(known)] = np.abs(y_NO[there_N, 0] - task.aim.y_NG[there_N, 0]).mean()
    assert errors[True] < 0.4 * errors[False]


@pytest.mark.parametrize("series", [("shop",), ("shop", "town")])
def test_the_very_table_is_read_ahead_by_the_client_and_gives_the_rows_that_were_learnt_from(
    known_table: Callable[..., Table], promotions: str, series: tuple[str, ...]
) -> None:
    task = known_table(known=("promotion", "kind"), series=series).task()
    assert task.look.grid.names == (("a", "b") if series == ("shop",) else ("a, Ulm", "b, Bonn"))
    entry = metadata_of(task)
    assert entry["ahead"] == {"promotion_in_1": 1, "promotion_in_3": 3, "kind_in_1": 1, "kind_in_3": 3}
    assert entry["time_step"] == "3600000000 microseconds"
    width = len(entry["features"])
    rows = Rows([Input("x", (width,), False, read_legend(entry, "x", (width,)))])
    lines = Path(promotions).read_text().splitlines()
    first = [lines[0], *(line for line in lines if ",a," in line)]
    found = read("-", io.TextIOWrapper(io.BytesIO("\n".join(first).encode())), rows)
    start, end = task.look.grid.bounds[0]
    np.testing.assert_array_equal(np.array(list(found.rows), dtype=np.float32), task.inputs.x_NF[start:end])


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_the_very_json_or_parquet_gives_the_client_the_rows_that_were_learnt_from(
    known_table: Callable[..., Table], promotions: str, tmp_path: Path, ending: str
) -> None:
    frame = pl.read_csv(promotions, try_parse_dates=ending == "parquet").filter(pl.col("shop") == "a")
    frame = frame.with_columns(pl.when(pl.int_range(pl.len()) % 50 > 0).then(pl.col("sales")))  # null in each fiftieth
    path = tmp_path / f"first.{ending}"
    {"jsonl": frame.write_ndjson, "json": frame.write_json, "parquet": frame.write_parquet}[ending](path)
    task = known_table(files=(str(path),), series=None, known=("promotion", "kind")).task()
    entry = metadata_of(task)
    width = len(entry["features"])
    rows = Rows([Input("x", (width,), False, read_legend(entry, "x", (width,)))])
    found = np.array(list(read(str(path), io.TextIOWrapper(io.BytesIO()), rows).rows), dtype=np.float32)
    np.testing.assert_array_equal(found, task.inputs.x_NF)
    assert np.isnan(found).any()


def test_a_run_that_goes_on_has_the_same_columns_known_ahead(known_table: Callable[..., Table]) -> None:
    task = known_table(known=("promotion",)).task()
    again = as_before(task.look, task.inputs.columns)
    np.testing.assert_array_equal(again.x_NF, task.inputs.x_NF)


def test_the_look_says_what_is_known_ahead_and_what_is_static(known_table: Callable[..., Table]) -> None:
    findings = {finding.subject: finding.done for finding in known_table(known=("promotion",)).look().findings}
    assert findings["promotion"] == "input; what it is at each forecast's time is an input too"
    assert findings["size"] == "input; static: the same in all rows of a series"
    assert "static" in findings["town"]
    assert "static" not in findings["kind"]


def test_a_column_that_is_nearly_the_target_is_suspicious_where_it_is_to_be_known_ahead(
    known_table: Callable[..., Table], promotions: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    lines = Path(promotions).read_text().splitlines()
    near = [f"{line},{float(line.split(',')[1]) + random.normal():.2f}" for line in lines[1:]]
    path = tmp_path / "near.csv"
    path.write_text("\n".join([f"{lines[0]},near", *near]) + "\n")
    for known, suspicious in (((), False), (("near",), True)):
        findings = known_table(files=(str(path),), known=known).look().findings
        assert any("is to be known ahead, and says" in finding.found for finding in findings) == suspicious


def test_static_columns_are_inputs_of_each_row(known_table: Callable[..., Table]) -> None:
    task = known_table(known=("kind",), static=("size", "town")).task()
    names = [column.name for column in task.inputs.columns]
    assert {"size", "town"} <= set(names)
    for start, end in task.look.grid.bounds:
        assert len(np.unique(task.inputs.x_NF[start:end, names.index("size")])) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"known": ("sales",)}, "'sales': it is the target, which is not known; leave it out of --known"),
        ({"known": ("when",)}, "'when' is no input, because it is the time or the series"),
        ({"known": ("weather",)}, "has no column 'weather'"),
        ({"known": ("kind",), "ignore": ("kind",)}, "'kind' is no input, because --ignore; leave it out of --known"),
        ({"known": ("promotion",), "target": ("kind",)}, "--known promotion: a label is of the row itself"),
        (
            {"static": ("promotion",)},
            r"line \d+, column 'promotion': .* not what other rows of its series",
        ),
    ],
)
def test_what_cannot_be_known_ahead_or_static_is_one_sentence(
    known_table: Callable[..., Table], changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        known_table(**changes).look()


def test_settings_that_have_no_use_for_such_columns_are_refused(known_table: Callable[..., Table]) -> None:
    with pytest.raises(ConfigError, match="leave --known out"):
        known_table(known=("kind",), task_="classify")
    with pytest.raises(ConfigError, match="say which with --series"):
        known_table(static=("size",), series=None)


def test_an_hour_that_is_known_ahead_and_missing_behind_the_end_of_the_table_is_exported(
    brief_table: Callable[..., Table], tmp_path: Path
) -> None:
    rows = [f"2024,1,{1 + row // 24},{row % 24},{row % 24 + row % 7}" for row in range(300)]
    file = tmp_path / "hours.csv"
    file.write_text("\n".join(["year,month,day,hour,load", *rows]) + "\n")
    task = brief_table(files=(str(file),), series=None, horizons=(6,), known=("hour",)).task()
    later_N = task.inputs.x_NF[:, task.inputs.place("hour_in_6")]
    assert (later_N[0], np.isnan(later_N).sum()) == (6, 6)
    assert export(task.network().eval(), task, {}).error < 1e-5
