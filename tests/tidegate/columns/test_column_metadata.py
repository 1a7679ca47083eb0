"""What is said of the numbers of a row, read."""

from math import inf

import pytest

from tidegate.columns import Column, Legend, LegendError, read_legend

ENTRY = {
    "features": ["temp", "wind", "hour"],
    "units": ["degC", "", ""],
    "missing": ["temp"],
    "categories": {"wind": ["", "NW"]},
    "range": {"temp": [-60, None]},
    "calendar": {"hour": "hour"},
    "source": {"temp": "TEMP"},
    "timestamp": ["Date", "Time"],
    "time_format": "%d.%m.%Y %H:%M",
}


def test_every_key_of_an_input_is_read_whatever_their_order() -> None:
    expected = Legend(
        (
            Column("temp", "degC", missing=True, lowest=-60.0, highest=inf, source="TEMP"),
            Column("wind", categories=("", "NW")),
            Column("hour", calendar="hour"),
        ),
        timestamp=("Date", "Time"),
        time_format="%d.%m.%Y %H:%M",
    )
    assert read_legend(ENTRY, "x", (3,)) == expected
    assert read_legend(dict(reversed(ENTRY.items())), "x", (3,)) == expected


def test_columns_without_names_are_called_by_their_number() -> None:
    assert read_legend({"missing": True}, "x", (2,)).columns == (
        Column("x.0", missing=True),
        Column("x.1", missing=True),
    )
    assert read_legend({"range": {"x": [0, 1]}}, "x", ()).columns == (Column("x", lowest=0.0, highest=1.0),)
    assert read_legend({}, "x", (2,)) == Legend()


def test_a_row_of_several_axes_has_columns_along_its_last_or_for_every_number() -> None:
    assert len(read_legend({"features": ["a", "b"]}, "x", (3, 2)).columns) == 2
    assert len(read_legend({"features": list("abcdef")}, "x", (3, 2)).columns) == 6


def test_an_output_has_classes_and_no_range() -> None:
    legend = read_legend({"features": ["p", "q"], "classes": ["no", "yes"]}, "y", (2,), output=True)
    assert legend.classes == ("no", "yes")
    with pytest.raises(LegendError, match="'range' is said of 'y'; known are features, units, categories, classes"):
        read_legend({"range": {}}, "y", (2,), output=True)


WRONG = [
    ([1], "expected a table of keys"),
    ({"features": ["a", "b"]}, r"2 features are said of 'x'; expected a list of 3"),
    ({"features": "abc"}, "expected a list of 3 texts"),
    ({"features": ["a", "a", "b"]}, "names that differ"),
    ({"features": [1, 2, 3]}, "expected a list"),
    ({"units": ["m"]}, "1 units are said"),
    ({"missing": ["temp"]}, "'temp' is no column of 'x'; it has x.0, x.1, x.2"),
    ({"missing": False}, "expected a list of texts"),
    ({"categories": {"x.0": []}}, "names that differ"),
    ({"categories": [["a"]]}, "expected a table of columns' names"),
    ({"range": {"x.0": [1, 0]}}, "expected two numbers"),
    ({"range": {"x.0": [0]}}, "expected two numbers"),
    ({"range": {"x.0": "01"}}, "expected two numbers"),
    ({"range": {"x.0": [float("nan"), 1]}}, "expected two numbers"),
    ({"range": {"x.0": [10**400, 1]}}, "expected two numbers"),
    ({"calendar": {"x.0": "fortnight"}}, "expected one of second, minute, hour"),
    ({"calendar": {"x.0": ["hour"]}}, "expected one of"),
    ({"source": {"x.0": 3}}, "the name of a table's column"),
    ({"timestamp": [""]}, "the name of a table's column"),
    ({"time_format": None}, "expected a text"),
    ({"scale": 2}, "'scale' is said of 'x'; known are"),
    ({3: 2}, "'3' is said of 'x'; known are"),
]


@pytest.mark.parametrize(("entry", "sentence"), WRONG)
def test_what_makes_no_sense_is_named_with_what_was_expected(entry: object, sentence: str) -> None:
    with pytest.raises(LegendError, match=sentence):
        read_legend(entry, "x", (3,))


def test_the_rest_is_read_where_a_key_is_passed_over() -> None:
    complaints = list[str]()
    entry = ENTRY | {"units": 3, "range": {"hour": 5}}
    legend = read_legend(entry, "x", (3,), complain=lambda key, _: complaints.append(key))
    assert complaints == ["units", "range"]
    assert legend.columns[0] == Column("temp", missing=True, source="TEMP")
