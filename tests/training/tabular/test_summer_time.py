"""The hour that comes twice at the end of summer time, and the one that is left out at its beginning."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import onnx
import polars as pl
import pytest

from tidegate.cli.tables import read
from tidegate.columns import Input, Rows, read_legend
from training.errors import DataError
from training.export import export
from training.tabular.learning.inputs import as_before
from training.tabular.looking.frame import rows_of
from training.tabular.looking.look import Look, look, read_and_look
from training.tabular.looking.roles import Asked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.tabular.settings import Table

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = np.datetime64("2024-10-27")


def moments(minutes: int, start: str = "2024-10-20", rows: int = 600) -> list[datetime]:
    """Times of Berlin, one after another, whatever its clocks show."""
    first = datetime.fromisoformat(start).replace(tzinfo=BERLIN).astimezone(ZoneInfo("UTC"))
    return [(first + timedelta(minutes=minutes * row)).astimezone(BERLIN) for row in range(rows)]


def table(path: Path, times: list[datetime], offset: bool, series: str = "a", mode: str = "w") -> str:
    random = np.random.default_rng(7)
    head = ["when,load,promotion,site"] if mode == "w" else []
    lines = [
        f"{time if offset else time.replace(tzinfo=None)},{random.normal():.3f},{row % 7},{series}"
        for row, time in enumerate(times)
    ]
    with path.open(mode) as file:
        file.write("\n".join([*head, *lines]) + "\n")
    return str(path)


def looked(file: str, series: tuple[str, ...] = ()) -> Look:
    return read_and_look((file,), Asked(("load",), series=series), (1, 6))


def said(found: Look) -> str:
    return " | ".join(f"{entry.found}: {entry.done}" for entry in found.findings if entry.subject == "time")


@pytest.mark.parametrize("minutes", [15, 30, 60])
@pytest.mark.parametrize("newest_first", [False, True])
def test_both_rows_of_an_hour_that_comes_twice_are_kept_one_after_the_other_and_it_is_named(
    tmp_path: Path, minutes: int, newest_first: bool
) -> None:
    times = moments(minutes, rows=1000)
    found = looked(table(tmp_path / "local.csv", times[::-1] if newest_first else times, offset=False))
    assert (found.grid.count, found.grid.duplicates, found.grid.gaps, found.grid.regular) == (1000, 0, 0, True)
    order = np.arange(1000)[::-1] if newest_first else np.arange(1000)
    np.testing.assert_array_equal(found.grid.row_N, order)
    np.testing.assert_array_equal(found.grid.tick_N, np.arange(1000))
    assert "an hour that comes twice, at the end of summer time: 2024-10-27: both are kept, one after" in said(found)


def test_each_series_has_its_own_hour_that_comes_twice(tmp_path: Path) -> None:
    file = table(tmp_path / "two.csv", moments(30), offset=False)
    table(tmp_path / "two.csv", moments(30, "2024-10-26"), offset=False, series="b", mode="a")
    table(tmp_path / "two.csv", moments(30, "2024-11-01"), offset=False, series="c", mode="a")
    grid = looked(file, ("site",)).grid
    assert (grid.count, grid.duplicates, grid.gaps) == (1800, 0, 0)
    assert [int(grid.tick_N[start]) for start, _ in grid.bounds] == [0, 6 * 48, 12 * 48]
    assert set(grid.hours_twice) == {np.datetime64("2024-10-27T02:00")}


def test_rows_of_one_time_by_day_or_in_a_table_full_of_them_are_duplicates_as_before(tmp_path: Path) -> None:
    times = moments(60, "2024-10-22")
    once_more = looked(table(tmp_path / "day.csv", times[:300] + times[299:], offset=False))
    assert (once_more.grid.duplicates, len(once_more.grid.hours_twice)) == (1, 1)
    each = looked(table(tmp_path / "each.csv", [time for time in times for _ in range(2)], offset=False))
    assert (each.grid.duplicates, each.grid.hours_twice) == (601, ())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "frame", "parquet"])
def test_times_with_their_offset_are_counted_exactly_and_the_wall_clock_is_kept(tmp_path: Path, kind: str) -> None:
    times = moments(60, "2024-03-25") if kind != "csv" else moments(60)
    frame = pl.DataFrame({"when": times, "load": np.random.default_rng(1).normal(size=600)})
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        found = looked(table(path, times, offset=True))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"when": str(t), "load": n * n % 7}) + "\n" for n, t in enumerate(times)))
        found = looked(str(path))
    elif kind == "frame":
        found = look(rows_of(frame), Asked(("load",)), (1, 6))
    else:
        frame.write_parquet(path)
        found = looked(str(path))
    np.testing.assert_array_equal(found.grid.tick_N, np.arange(600))
    assert found.grid.regular
    assert "comes twice" not in said(found)
    assert found.grid.time_N is not None
    expected = [time.astimezone(ZoneInfo("UTC")) if kind == "parquet" else time for time in times]
    np.testing.assert_array_equal(found.grid.time_N, [np.datetime64(time.replace(tzinfo=None)) for time in expected])


def test_days_are_those_of_the_calendar_whatever_their_offset(tmp_path: Path) -> None:
    first = datetime.fromisoformat("2024-01-01")
    times = [(first + timedelta(days=day)).replace(tzinfo=BERLIN) for day in range(400)]
    grid = looked(table(tmp_path / "days.csv", times, offset=True)).grid
    assert (str(grid.step), grid.gaps, grid.off_grid) == ("day", 0, 0)


@pytest.mark.parametrize("offset", [False, True])
def test_the_client_gives_the_rows_that_were_learnt_from_also_where_an_hour_comes_twice(
    brief_table: Callable[..., Table], tmp_path: Path, offset: bool
) -> None:
    times = moments(30)
    file = table(tmp_path / "gap.csv", times[:50] + times[54:], offset)
    task = brief_table(files=(file,), series=(), horizons=(1, 6), known=("promotion",)).task()
    metadata = {
        prop.key: prop.value
        for prop in onnx.load_from_string(export(task.network().eval(), task, {}).content).metadata_props
    }
    entry = json.loads(metadata["tidegate.inputs"])["x"]
    width = len(entry["features"])
    rows = Rows([Input("x", (width,), False, read_legend(entry, "x", (width,)))])
    found = np.array(list(read(file, io.TextIOWrapper(io.BytesIO()), rows).rows), dtype=np.float32)
    assert len(found) == 596
    np.testing.assert_array_equal(found, task.inputs.x_NF)
    night = int(np.flatnonzero(task.look.grid.tick_N == 7 * 48 + 6)[0])  # the second 02:00
    elapsed = task.front(task.x_NF[None]).elapsed_BT1[0, :, 0].numpy()
    assert elapsed[night - 1 : night + 2].tolist() == ([1, 1, 1] if offset else [1, 0, 1])
    assert elapsed[50] == 5


def test_a_run_on_times_with_offsets_goes_on_with_no_others(brief_table: Callable[..., Table], tmp_path: Path) -> None:
    times = moments(30)
    files = [table(tmp_path / f"{name}.csv", times[:50] + times[54:], name == "exact") for name in ("exact", "local")]
    exact, local = (brief_table(files=(file,), series=(), horizons=(1,)).task() for file in files)
    with pytest.raises(DataError, match=r"local\.csv: times do not say their offset from UTC, as those of the run"):
        as_before(local.look, exact.inputs.columns)
