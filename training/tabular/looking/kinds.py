"""What a column holds: numbers, times or texts. Decided by all of its values, and said if one of them stands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

Kind = Literal["number", "time", "text"]
TABLE = "given_rows"
# Texts that mean "nothing was measured" in a column of numbers or times; in one of texts only the first four do.
MISSING_TEXT = ("", "na", "n/a", "null")
MISSING = (*MISSING_TEXT, "nan", "none", "?", "-", ".", "missing")
FORMATS = (
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%m/%d/%y",
    "%d.%m.%y",
    "%Y/%m/%d %H:%M",
    "%d-%b-%Y",
    "%Y-%m",
    "%b %Y",
)
# A column of which so many values are numbers (or times) was meant to be one.
MEANT = 0.9
# Eight digits are a date only in a column that is called one; a year before this one was written with two digits.
DIGITS, DATED, FIRST_YEAR = "%Y%m%d", ("date", "time", "day"), 1000


@dataclass(frozen=True)
class Odd:
    """A value that is not what the column's other values are: its row, its text and what was expected."""

    row: int
    text: str
    expected: Kind


@dataclass(frozen=True)
class Column:
    """Numbers as float64 with NaN, times as datetime64[us] with NaT, texts as objects with None."""

    name: str
    kind: Kind
    values: NDArray[Any]
    note: str = ""
    odd: Odd | None = None
    form: str = ""

    @property
    def missing_N(self) -> NDArray[np.bool_]:
        """Where nothing was measured."""
        if self.kind == "text":
            return np.array([value is None for value in self.values], dtype=np.bool_)
        missing_N: NDArray[np.bool_] = np.isnan(self.values) if self.kind == "number" else np.isnat(self.values)
        return missing_N

    @property
    def texts_N(self) -> NDArray[np.object_]:
        """Its values as a file of texts has them: 3 and not 3.0, 20481234 and not 2.04812e+07; None where missing."""
        if self.kind == "text":
            return self.values
        if self.kind == "time":
            texts = np.datetime_as_string(self.values, unit="auto").tolist()
        else:
            texts = [np.format_float_positional(value, trim="-") for value in self.values.tolist()]
        texts_N = np.array(texts, dtype=object)
        texts_N[self.missing_N] = None
        return texts_N


def column_of(database: duckdb.DuckDBPyConnection, name: str, kind: str) -> Column:
    """A column of DuckDB's table, whose type there is `kind`."""
    raw = quoted(name)
    if kind == "VARCHAR":
        return column_of_texts(database, name)
    if kind.startswith(("TIMESTAMP", "DATE")):
        return Column(name, "time", times(database, f"cast({raw} as timestamp)"), form="%ISO")
    if kind == "BOOLEAN" or kind.startswith(("DECIMAL", "FLOAT", "DOUBLE")) or "INT" in kind:
        return Column(name, "number", numbers(database, f"cast({raw} as double)"))
    return Column(name, "text", texts(database, f"cast({raw} as varchar)"), note=f"is {kind.lower()}")


def column_of_texts(database: duckdb.DuckDBPyConnection, name: str) -> Column:
    """The kind that all values of a column of texts have; texts if none does."""
    text = meaning(name, MISSING)
    readings = readings_of(name, text)
    given, *readable = counted(database, text, *list(readings)[:1])
    if readable[0] != given:  # the others cost twenty times as much
        given, *readable = counted(database, text, *readings)
    best = int(np.argmax(readable))
    reading, (kind, note) = list(readings.items())[best]
    if given and readable[best] == given:
        values = numbers(database, reading) if kind == "number" else times(database, reading)
        return Column(name, kind, values, note=note if kind == "number" else "", form=note if kind == "time" else "")
    odd = first_odd(database, text, reading, kind) if given and readable[best] >= MEANT * given else None
    return Column(name, "text", texts(database, meaning(name, MISSING_TEXT)), odd=odd)


def counted(database: duckdb.DuckDBPyConnection, *expressions: str) -> list[int]:
    """In how many rows each expression has a value."""
    counts = ", ".join(f"count({expression})" for expression in expressions)
    return list(database.execute(f"select {counts} from {TABLE}").fetchall()[0])


def readings_of(name: str, text: str) -> dict[str, tuple[Kind, str]]:
    """Ways to read a text, the likeliest first: an expression, and what it gives."""
    digits = {timely(text, DIGITS): ("time", DIGITS)} if any(word in name.lower() for word in DATED) else {}
    found: dict[str, tuple[Kind, str]] = {
        **digits,  # type: ignore[dict-item] # a literal in a conditional
        f"try_cast({text} as double)": ("number", ""),
        f"try_cast(replace({text}, ',', '.') as double)": ("number", "decimal comma"),
        f"try_cast({text} as timestamp)": ("time", "%ISO"),
        **{timely(text, form): ("time", form) for form in FORMATS},
    }
    return found


def timely(text: str, form: str) -> str:
    """An expression that reads a text as a time of this form, with a year of four digits."""
    read = f"try_strptime({text}, '{form}')"
    return f"case when year({read}) >= {FIRST_YEAR} then {read} end"


def first_odd(database: duckdb.DuckDBPyConnection, text: str, reading: str, expected: Kind) -> Odd:
    """The first value that a reading does not fit."""
    numbered = f"select row_number() over () - 1 as row, {text} as text, {reading} as value from {TABLE}"
    row, value = database.execute(
        f"select row, text from ({numbered}) where text is not null and value is null order by row limit 1"
    ).fetchall()[0]
    return Odd(int(row), str(value), expected)


def meaning(name: str, missing: tuple[str, ...]) -> str:
    """A column's text without blanks around it; null where it means that nothing was measured."""
    words = ", ".join(f"'{word}'" for word in missing)
    return f"case when lower(trim({quoted(name)})) in ({words}) then null else trim({quoted(name)}) end"


def quoted(name: str) -> str:
    """A column's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def numbers(database: duckdb.DuckDBPyConnection, expression: str) -> NDArray[np.float64]:
    """An expression's values as numbers, NaN where there is none or it is infinite."""
    values = np.ma.filled(fetched(database, expression).astype(np.float64), np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def times(database: duckdb.DuckDBPyConnection, expression: str) -> NDArray[np.datetime64]:
    """An expression's values as times."""
    return np.ma.filled(fetched(database, expression).astype("datetime64[us]"), np.datetime64("NaT"))


def texts(database: duckdb.DuckDBPyConnection, expression: str) -> NDArray[Any]:
    """An expression's values as texts, None where there is none."""
    values = fetched(database, expression)
    found: NDArray[Any] = np.array(np.ma.getdata(values), dtype=object)
    found[np.ma.getmaskarray(values)] = None
    return found


def fetched(database: duckdb.DuckDBPyConnection, expression: str) -> Any:  # noqa: ANN401 - masked or not
    """One expression for every row, in the rows' order."""
    return database.execute(f"select {expression} as value from {TABLE}").fetchnumpy()["value"]
