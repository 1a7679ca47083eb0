"""What a file's metadata or model.toml says of the numbers of a row, read. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan, prod
from typing import Any

from tidegate.columns.column import NOTHING, Column, Legend, count, plain_names
from tidegate.columns.known_ahead import STEPS, length_of
from tidegate.columns.times import CALENDAR


class LegendError(ValueError):
    """Something that is said of a row and makes no sense; the sentence says what was expected."""


_OF_COLUMNS = {"missing", "categories", "range", "calendar", "source", "ahead"}
INPUT_KEYS = ("features", "units", *sorted(_OF_COLUMNS), "timestamp", "time_format", "time_step", "series")
OUTPUT_KEYS = ("features", "units", "categories", "classes")


def read_legend(
    entry: object,
    port: str,
    row: Sequence[int],
    output: bool = False,
    complain: Callable[[str, LegendError], None] | None = None,
) -> Legend:
    """The legend of a port with this row from what the metadata or model.toml says of it.

    `complain` is called with a key that makes no sense, which is then passed over; without it that is raised.

    Raises:
        LegendError: a key is unknown, or what it says makes no sense.
    """

    def fail(key: str, error: LegendError) -> None:
        if complain is None:
            raise error
        complain(key, error)

    if not isinstance(entry, Mapping):
        fail("", LegendError(f"{entry!r:.60} is said of '{port}'; expected a table of keys"))
        return NOTHING
    if not entry:
        return NOTHING  # the columns of a wide row are many
    reader = _Reader(port, row, output)
    for key in sorted(entry, key=lambda key: key != "features"):  # the other keys name columns by these
        try:
            reader.read(key, entry[key])
        except LegendError as error:
            fail(str(key), error)
    return reader.legend()


@dataclass
class _Reader:
    port: str
    row: Sequence[int]
    output: bool
    columns: list[Column] = field(default_factory=list)
    others: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.columns = [Column(name) for name in plain_names(self.port, count(self.row))]

    def legend(self) -> Legend:
        names = plain_names(self.port, len(self.columns))
        said = [column for column, name in zip(self.columns, names, strict=True) if column != Column(name)]
        return Legend(tuple(self.columns) if said else (), **self.others)

    def read(self, key: object, value: object) -> None:
        known = OUTPUT_KEYS if self.output else INPUT_KEYS
        if key not in known:
            raise LegendError(f"'{key}' is said of '{self.port}'; known are {', '.join(known)}")
        getattr(self, f"_{key}")(value)

    def _features(self, value: object) -> None:
        names = self._texts("features", value, sizes={count(self.row), prod(self.row)})
        if len(set(names)) < len(names) or "" in names:
            raise self._odd("features", value, "names that differ from each other")
        self.columns = [Column(name) for name in names]

    def _units(self, value: object) -> None:
        units = self._texts("units", value, sizes={len(self.columns)})
        self.columns = [replace(column, unit=unit) for column, unit in zip(self.columns, units, strict=True)]

    def _missing(self, value: object) -> None:
        names = [column.name for column in self.columns] if value is True else self._texts("missing", value)
        self._set("missing", dict.fromkeys(names, True))

    def _categories(self, value: object) -> None:
        given = self._table("categories", value)
        said = {name: tuple(self._texts(f"categories of '{name}'", each)) for name, each in given.items()}
        for name, categories in said.items():
            if not categories or len(set(categories)) < len(categories):
                raise self._odd(f"categories of '{name}'", list(categories), "names that differ from each other")
        self._set("categories", said)

    def _range(self, value: object) -> None:
        said = {name: self._bounds(name, each) for name, each in self._table("range", value).items()}
        self._set("lowest", {name: low for name, (low, _) in said.items()})
        self._set("highest", {name: high for name, (_, high) in said.items()})

    def _bounds(self, name: str, value: object) -> tuple[float, float]:
        expected = "two numbers, the lowest and the highest that may be sent"
        if not isinstance(value, list | tuple) or len(value) != 2 or isinstance(value, str):
            raise self._odd(f"range of '{name}'", value, expected)
        low, high = map(_bound, value, (-inf, inf))
        if not low <= high:  # or one of them is no number
            raise self._odd(f"range of '{name}'", value, expected)
        return low, high

    def _calendar(self, value: object) -> None:
        said = self._table("calendar", value)
        for name, kind in said.items():
            if not isinstance(kind, str) or kind not in CALENDAR:
                raise self._odd(f"calendar of '{name}'", kind, f"one of {', '.join(CALENDAR)}")
        self._set("calendar", said)

    def _source(self, value: object) -> None:
        said = self._table("source", value)
        for name, column in said.items():
            if not isinstance(column, str) or not column:
                raise self._odd(f"source of '{name}'", column, "the name of a table's column")
        self._set("source", said)

    def _ahead(self, value: object) -> None:
        said = self._table("ahead", value)
        for name, steps in said.items():
            if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
                raise self._odd(f"ahead of '{name}'", steps, "a whole number of time steps, at least 1")
        self._set("ahead", said)

    def _timestamp(self, value: object) -> None:
        self.others["timestamp"] = self._of_a_table("timestamp", value)

    def _series(self, value: object) -> None:
        self.others["series"] = self._of_a_table("series", value)

    def _time_format(self, value: object) -> None:
        if not isinstance(value, str):
            raise self._odd("time_format", value, "a text such as '%d.%m.%Y %H:%M'")
        self.others["time_format"] = value

    def _time_step(self, value: object) -> None:
        if not isinstance(value, str) or length_of(value) is None:
            raise self._odd("time_step", value, f"a number of {', '.join(STEPS)}, like '3600 seconds'")
        self.others["time_step"] = value

    def _classes(self, value: object) -> None:
        self.others["classes"] = tuple(self._texts("classes", value, sizes={len(self.columns)}))

    # what values are made of

    def _of_a_table(self, key: str, value: object) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else self._texts(key, value)
        if not all(names) or len(set(names)) < len(names):
            raise self._odd(key, value, "the name of a table's column, or a list of different names")
        return tuple(names)

    def _texts(self, key: str, value: object, sizes: set[int] | None = None) -> list[str]:
        wanted = "" if sizes is None else " of " + " or ".join(map(str, sorted(sizes)))
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise self._odd(key, value, f"a list{wanted} texts" if wanted else "a list of texts")
        if sizes is not None and len(value) not in sizes:
            raise LegendError(f"{len(value)} {key} are said of '{self.port}'; expected a list{wanted}, as its row has")
        return list(value)

    def _table(self, key: str, value: object) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._odd(key, value, "a table of columns' names")
        return value

    def _set(self, attribute: str, said: Mapping[str, Any]) -> None:
        names = [column.name for column in self.columns]
        strange = [name for name in said if name not in names]
        if strange:
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise LegendError(f"'{strange[0]}' is no column of '{self.port}'; it has {shown}")
        self.columns = [
            replace(column, **{attribute: said[column.name]}) if column.name in said else column
            for column in self.columns
        ]

    def _odd(self, key: str, value: object, expected: str) -> LegendError:
        return LegendError(f"{key} {value!r:.60} are said of '{self.port}'; expected {expected}")


def _bound(value: object, default: float) -> float:
    if value is None:
        return default
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else nan
    except OverflowError:
        return nan
