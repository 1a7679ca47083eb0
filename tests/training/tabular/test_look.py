from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from training.command import main
from training.errors import DataError
from training.tabular.judging.baselines import candidates
from training.tabular.learning import splits
from training.tabular.learning.classify import Classify
from training.tabular.learning.inputs import Input, as_before, inputs_of
from training.tabular.looking.look import Look, look, read_and_look
from training.tabular.looking.reading import from_arrays
from training.tabular.looking.roles import Asked, assign

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 400
HOURS = np.datetime64("2024-01-01T00:00", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
NOISE = np.random.default_rng(0).normal(size=(5, ROWS + 100))
LOAD = np.cumsum(NOISE[0])
PAIR = ("store", "item")


def looked(horizons: tuple[int, ...] = (1, 6), target: str = "load", **columns: Any) -> Look:  # noqa: ANN401 - whatever numpy takes
    asked = columns.pop("asked", Asked((target,)))
    arrays = {"when": HOURS, "load": LOAD[:ROWS], **columns}
    return look(from_arrays({name: np.asarray(values) for name, values in arrays.items()}, "t"), asked, horizons)


def done(found: Look, subject: str) -> str:
    return " | ".join(f"{entry.found}: {entry.done}" for entry in found.findings if entry.subject == subject)


def test_a_column_from_the_future_is_left_out_whatever_its_unit() -> None:
    found = looked(future=LOAD[6 : ROWS + 6] * 1.8 + 32)
    assert "left out: it is load 6 steps later" in done(found, "future")
    assert "future" not in found.roles.numbers


def test_a_column_that_says_too_much_of_the_future_is_told_of_and_kept() -> None:
    found = looked(forecast=LOAD[6 : ROWS + 6] + 0.3 * NOISE[1][:ROWS])
    assert "6 steps later" in done(found, "forecast")
    assert "--ignore forecast" in done(found, "forecast")
    assert "forecast" in found.roles.numbers


def test_a_copy_of_the_target_is_left_out_and_an_honest_column_is_not() -> None:
    found = looked(copy=LOAD[:ROWS] * 2, past=np.concatenate([LOAD[:1], LOAD[: ROWS - 1]]), other=NOISE[2][:ROWS])
    assert "copy of load" in done(found, "copy")
    assert found.roles.numbers == ("load", "past", "other")


def test_a_column_with_one_value_for_each_label_is_left_out() -> None:
    label = np.where(NOISE[3][:ROWS] > 0, "high", "low").astype(object)
    found = looked(target="label", label=label, code=np.where(label == "high", 7.0, 3.0))
    assert found.roles.goal == "classify"
    assert "one value for each label" in done(found, "code")
    assert found.roles.numbers == ("load",)


def test_gaps_duplicates_and_disorder_are_counted_and_what_is_done_is_said() -> None:
    keep = np.delete(np.arange(ROWS), slice(100, 110))
    order = np.concatenate([keep[::-1], keep[:3]])
    found = looked(when=HOURS[order], load=LOAD[order])
    says = done(found, "time")
    assert "3 rows with the time of another one: the last of them is kept" in says
    assert "1 gap, the longest of 10 steps" in says
    assert "not in the order of time: sorted" in says
    assert found.grid.count == ROWS - 10
    assert str(found.grid.step) == "hour"


def test_the_row_some_steps_ahead_is_found_by_its_time_and_never_across_a_gap_or_a_series() -> None:
    keep = np.delete(np.arange(ROWS), slice(100, 110))
    found = looked(
        when=HOURS[keep], load=LOAD[keep], asked=Asked(("load",), series=("name",)), name=["a"] * 200 + ["b"] * 190
    )
    ahead = found.grid.ahead(6)
    hours = HOURS[keep]
    for row in range(len(keep)):
        later = np.flatnonzero(hours == hours[row] + np.timedelta64(6, "h"))
        same = [int(place) for place in later if (place < 200) == (row < 200)]
        assert ahead[row] == (same[0] if same else -1)
    assert (found.grid.ahead(-6)[ahead[ahead >= 0]] == np.flatnonzero(ahead >= 0)).all()


def test_months_are_one_step_although_they_differ_in_days() -> None:
    months = np.arange("1990-01", "2010-01", dtype="datetime64[M]").astype("datetime64[us]")
    found = looked(when=months, load=LOAD[: len(months)])
    assert str(found.grid.step) == "month"
    assert found.grid.regular


def test_constant_columns_counters_and_free_texts_are_left_out_with_the_reason() -> None:
    found = looked(
        same=np.ones(ROWS),
        number=np.arange(ROWS),
        remark=np.array([f"text {row}" for row in range(ROWS)], dtype=object),
    )
    assert found.roles.numbers == ("load",)
    assert found.roles.left_out["same"] == "it is 1.0 in every row"
    assert found.roles.left_out["number"] == "it counts the rows"
    assert "400 different texts are no categories" in found.roles.left_out["remark"]


def test_the_parts_of_a_time_in_several_columns_are_one_time(tmp_path: Path) -> None:
    lines = [
        f"{2024},{1 + day // 28},{1 + day % 28},{hour},{LOAD[24 * day + hour]}"
        for day in range(16)
        for hour in range(24)
    ]
    path = tmp_path / "t.csv"
    path.write_text("year,month,day,hour,load\n" + "\n".join(lines))
    found = read_and_look((str(path),), Asked(("load",)), (1,))
    assert found.roles.clock is not None
    assert found.roles.clock.columns == ("year", "month", "day", "hour")
    assert found.roles.clock.form == "%Y %m %d %H"
    assert str(found.grid.step) == "hour"
    assert "hour" in found.roles.numbers


def test_numbers_that_count_from_1970_are_times_in_a_column_that_is_called_so_or_named() -> None:
    seconds = HOURS.astype("datetime64[s]").astype(np.int64)
    for given, form in ((seconds, "unix"), (1000 * seconds, "unix_ms")):
        found = looked(when=given, asked=Asked(("load",), time="when"))
        assert found.roles.clock is not None
        assert (found.roles.clock.columns, found.roles.clock.form) == (("when",), form)
        assert (found.roles.clock.time_N == HOURS).all()
    found = looked(when=NOISE[1][:ROWS], stamp=seconds)
    assert found.roles.clock is not None
    assert found.roles.clock.columns == ("stamp",)
    assert "stamp" not in found.roles.numbers


def test_years_are_times_where_each_is_of_one_row_of_a_series_and_have_seasons_of_any_length() -> None:
    years = np.tile(1900 + np.arange(ROWS // 4), 4).astype(np.float64)
    names = np.repeat([*"abcd"], ROWS // 4).astype(object)
    found = looked(when=names, year=years, asked=Asked(("load",), series=("when",)))
    assert found.roles.clock is not None
    assert (found.roles.clock.form, str(found.grid.step)) == ("%Y", "year")
    assert candidates(found.grid)[:2] == [2, 3]
    assert looked(when=names, year=years).roles.clock is None
    with pytest.raises(DataError, match="column 'when': 'a' is no time"):
        looked(when=names, year=years, asked=Asked(("load",), time="when"))


def test_a_part_of_a_time_that_is_none_is_named_and_columns_that_are_left_out_are_no_part_of_it() -> None:
    parts = {"year": np.full(ROWS, 2024.0), "month": 1 + np.arange(ROWS) // 240, "day": 1 + np.arange(ROWS) // 24 % 10}
    hours = np.arange(ROWS) % 24 + 1  # as 24 for midnight, which a client cannot read
    for changes, sentence in (
        ({"hour": hours}, "t, row 24, column 'hour': 24 is no part of a time, .* from 0 to 23; correct it, or"),
        ({"month": parts["month"] + 12}, "t, row 1, column 'month': 13 is no part of a time"),
        ({"day": np.where(parts["month"] == 2, 30, parts["day"])}, "t, row 241, column 'day': the month has no day 30"),
    ):
        with pytest.raises(DataError, match=sentence):
            looked(when=NOISE[1][:ROWS], **(parts | changes))
    rows = from_arrays({"load": LOAD[:ROWS], **parts, "hour": hours}, "t")
    roles = assign(rows, Asked(("load",), ignore=("hour",)))
    assert roles.clock is not None
    assert roles.clock.columns == ("year", "month", "day")
    assert roles.numbers == ("load", "month")


def test_many_rows_of_one_time_are_said_to_be_perhaps_of_several_series() -> None:
    found = looked(when=np.repeat(HOURS[: ROWS // 4], 4))
    assert "300 rows with the time of another one: the last of them is kept; rows of several series?" in done(
        found, "time"
    )


def csv(folder: Path, rows: list[str], header: str = "when,load,kind") -> str:
    path = folder / "t.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def plain(rows: int = 60) -> list[str]:
    return [f"{HOURS[row].astype('datetime64[m]')},{LOAD[row]:.3f},{'ab'[row % 2]}" for row in range(rows)]


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        (plain(), ["--target", "nothing"], "t.csv has no column 'nothing'; it has when, load, kind"),
        (plain(), ["--target", "load", "--unit", "heat=degC"], "t.csv has no column 'heat'; it has when, load, kind"),
        (plain(), ["--target", "kind", "--task", "forecast"], "t.csv, line 2, column 'kind': the target is text, 'a'"),
        (plain(20), ["--target", "load"], "t.csv has 20 rows; give at least 50"),
        ([row[:-1] + "a" for row in plain()], ["--target", "kind"], "all rows are of one class, 'a'"),
        (plain(), ["--target", "load", "--horizons", "40"], "--horizons: 40 steps are longer than half of the data"),
        (
            [*plain()[:30], "the third of May,1,a", *plain()[31:]],
            ["--target", "load"],
            "t.csv, line 32, column 'when': 'the third of May' is no time; write times as 2024-03-31 17:00",
        ),
        (
            [*plain()[:30], "2024-01-02 06:00,broken,a", *plain()[31:]],
            ["--target", "load"],
            "t.csv, line 32, column 'load': 'broken' is no number, as the column's other values are",
        ),
        (
            [*plain()[:30], "2024-01-02 06:00,-1e39,a", *plain()[31:]],
            ["--target", "load"],
            "t.csv, line 32, column 'load': -1e+39 is more than 1e+18, the most that is computed with",
        ),
        (plain(), ["--target", "load", "--time", "kind"], "t.csv, line 2, column 'kind': 'a' is no time"),
        ([*plain(), ",1,a"], ["--target", "load"], "t.csv, line 62, column 'when': the time is missing"),
        ([], ["--target", "load"], "t.csv has no row below its header"),
        (
            [row.split(",")[0] + ",7.5,a" for row in plain()],
            ["--target", "load"],
            "the target is 7.5 in every row",
        ),
        (
            [row.split(",")[0] + ",5,a" for row in plain()],
            ["--target", "load"],
            "column 'load': the target is 5 in every row; give another --target",
        ),
        (
            [*plain()[:30], "02.01.2024 06:00,1,a", *plain()[31:]],
            ["--target", "load"],
            "t.csv, line 32, column 'when': '02.01.2024 06:00' is no time; write times as 2024-03-31 17:00",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence_with_its_place_and_the_remedy(
    tmp_path: Path, rows: list[str], options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["table", csv(tmp_path, rows), *options])
    error = capsys.readouterr().err
    assert status == 1
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert ";" in error  # what to do


def test_the_page_names_every_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", csv(tmp_path, plain()), "--target", "load", "--horizons", "1,3", "--look"]) == 0
    page = capsys.readouterr().out
    for word in (
        "t.csv: 60 rows, 3 columns",
        "forecast load, 1, 3 steps ahead (a step is an hour)",
        "2 texts: a, b",
        "embedded",
    ):
        assert word in page


def test_a_frame_that_has_no_target_is_refused_before_anything_else() -> None:
    with pytest.raises(DataError, match="no --target is given; t has the columns when, load"):
        looked(asked=Asked(()))


def test_numbers_that_name_categories_or_series_keep_all_their_digits() -> None:
    stations = 20_481_234 + np.arange(ROWS) % 2
    found = looked(station=stations, asked=Asked(("load",), category=("station",)))
    (column,) = (one for one in inputs_of(found, np.ones(ROWS, bool), series=False).columns if one.categories)
    assert column.categories == ("", "20481234", "20481235")
    assert looked(station=stations, asked=Asked(("load",), series=("station",))).grid.names == ("20481234", "20481235")


def test_rows_with_the_same_values_in_all_columns_of_series_are_one_and_each_column_is_an_input() -> None:
    store = np.array(["b", "a", "b", "a"] * (ROWS // 4), dtype=object)
    item = np.array([1.0, 1.0, 2.0, 2.0] * (ROWS // 4))
    found = looked(when=np.repeat(HOURS[: ROWS // 4], 4), store=store, item=item, asked=Asked(("load",), series=PAIR))
    assert found.grid.names == ("b, 1", "a, 1", "b, 2", "a, 2")
    assert (found.grid.duplicates, found.grid.gaps) == (0, 0)
    rows = found.grid.row_N
    for number, (start, end) in enumerate(found.grid.bounds):
        here = rows[start:end]
        assert {(store[row], f"{item[row]:g}") for row in here} == {tuple(found.grid.names[number].split(", "))}
    assert done(found, "series") == "store, item: 4 series of 100 rows each: each begins with a state of zeros"
    columns = {column.name: column.categories for column in inputs_of(found, np.ones(ROWS, bool), series=True).columns}
    assert (columns["store"], columns["item"]) == (("", "a", "b"), ("", "1", "2"))
    store[5] = None
    with pytest.raises(DataError, match="t, row 6, column 'store': the row names no series"):
        looked(store=store, item=item, asked=Asked(("load",), series=PAIR))


def test_days_may_name_series() -> None:
    days = HOURS.astype("datetime64[D]").astype("datetime64[us]")
    found = looked(day=days, asked=Asked(("load",), series=("day",), time="when"))
    assert found.grid.names[:2] == ("2024-01-01", "2024-01-02")
    (column,) = (one for one in inputs_of(found, np.ones(ROWS, bool), series=True).columns if one.name == "day")
    assert column.categories[:2] == ("", "2024-01-01")


def test_a_training_part_without_a_label_and_a_table_without_a_category_are_refused_in_a_sentence() -> None:
    label = np.where(np.arange(ROWS) < 300, None, "on").astype(object)
    label[-20:] = "off"
    found = looked(label=label, asked=Asked(("label",)))
    parts = splits.by_time(found.grid, 0.7, 0.1, 1)
    with pytest.raises(DataError, match="column 'label': the training part has no label; give more rows"):
        Classify(found, parts)
    with pytest.raises(DataError, match="t has no column of categories 'kind', which the run of --from has"):
        as_before(found, (Input("kind", "category", categories=("", "a")),))
