"""What a column holds: numbers, times or texts. Decided by all of its values, and said if one of them stands out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tidegate.columns.numbers import DECIMAL, NAMELESS, NOTHING, THOUSANDS
from tidegate.columns.times import says_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    from numpy.typing import NDArray

Kind = Literal["number", "time", "text"]
TABLE = "given_rows"
# As clients read a time without a form; DuckDB itself reads more.
ISO = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
OFFSET = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)"
FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S UTC",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%m/%d/%y %H:%M",
    "%m/%d/%y",
    "%d.%m.%y %H:%M",
    "%d.%m.%y",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%d-%b-%Y",
    "%b-%d-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%Y-%m",
    "%Y %b",
    "%b %Y",
)
# Forms that are no format, as `tidegate.columns.times` has them: an expression in the place of {text}, if it fits.
FORMS = {
    "quarter": (
        r"\d{4}[ -]?Q[1-4]",
        "make_timestamp(left({text}, 4)::bigint, 3 * right({text}, 1)::bigint - 2, 1, 0, 0, 0)",
    ),
    "week": (r"\d{4}[ -]?W\d\d", "try_strptime({text}[:4] || {text}[-2:] || '1', '%G%V%u')"),
}
# A column of which so many values are numbers (or times) was meant to be one. Readings that fit none of the first so
# many values are not tried on the others: a time takes twenty times as long as a number.
MEANT, FIRST = 0.9, 1000
LIKELIEST = 5  # readings: numbers, and times as %ISO. The many others are tried where none of these fits every value
# Eight digits are a date only in a column that is called one; a year before this one was written with two digits.
DIGITS, DATED, FIRST_YEAR = "%Y%m%d", ("date", "time", "day"), 1000


@dataclass(frozen=True)
class Odd:
    """A value that is not what the column's others are: its row, its text, what was expected and in which form."""

    row: int
    text: str
    expected: Kind
    form: str = ""


@dataclass(frozen=True)
class Column:
    """Numbers as float64 with NaN, times as datetime64[us] with NaT, texts as objects with None."""

    name: str
    kind: Kind
    values: NDArray[Any]
    note: str = ""
    odd: Odd | None = None
    form: str = ""
    utc_N: NDArray[Any] | None = None
    """Times in UTC, where each says its offset from it."""

    @property
    def missing_N(self) -> NDArray[np.bool_]:
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


@dataclass(frozen=True)
class Reading:
    """A way to read a text: an expression of SQL, the kind that it gives, and its form or what is noted of it."""

    expression: str
    kind: Kind
    form: str = ""
    note: str = ""


def column_of(database: duckdb.DuckDBPyConnection, name: str, kind: str, delimiter: str) -> Column:
    """A column of DuckDB's table, whose type there is `kind`; see `tidegate.columns.numbers` for the delimiter."""
    raw = quoted(name)
    if kind == "VARCHAR":
        return column_of_texts(database, name, delimiter)
    if re.fullmatch(r"TIMESTAMP.*|DATE", kind) and not kind.endswith("]"):
        values = times(database, f"cast({raw} as timestamp)")
        return Column(name, "time", values, form="%ISO", utc_N=values if kind.endswith("TIME ZONE") else None)
    if re.fullmatch(r"BOOLEAN|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|U?[A-Z]*INT(EGER)?", kind):
        return Column(name, "number", numbers(database, f"cast({raw} as double)"))
    note = "" if kind.startswith("ENUM") else f"is {kind.lower()}"
    return Column(name, "text", texts(database, f"cast({raw} as varchar)"), note=note)


def column_of_texts(database: duckdb.DuckDBPyConnection, name: str, delimiter: str) -> Column:
    """The kind that all values of a column of texts have; texts if none does."""
    source = f"(select {meaning(name, sorted(NOTHING))} as text from {TABLE})"
    given, best, readable, others = best_reading(database, source, readings_of(name, "text", delimiter))
    if best and readable == given:
        values = (numbers if best.kind == "number" else times)(database, best.expression, source)
        utc_N = in_utc(database, source, best, given)
        return Column(name, best.kind, values, note=best.note, form=best.form, utc_N=utc_N)
    meant = best and readable + others >= MEANT * given
    odd = first_odd(database, source, best) if best and meant else None
    return Column(name, "text", texts(database, meaning(name, sorted(NAMELESS))), odd=odd)


def in_utc(
    database: duckdb.DuckDBPyConnection, source: str, reading: Reading, given: int
) -> NDArray[np.datetime64] | None:
    """Times in UTC, if each of the texts says its offset from it."""
    if reading.form == "%ISO" and counts(database, source, f"case when {fits('text', OFFSET)} then 1 end") == [given]:
        return times(database, "cast(cast(text as timestamptz) as timestamp)", source)
    return times(database, reading.expression, source) if reading.kind == "time" and says_utc(reading.form) else None


def best_reading(
    database: duckdb.DuckDBPyConnection, source: str, readings: Sequence[Reading]
) -> tuple[int, Reading | None, int, int]:
    """How many texts there are, the reading that fits most of them, how many, and how many other times there are."""
    given, tried, readable = readable_in(database, source, readings[:LIKELIEST])
    if given not in readable:
        given, tried, readable = readable_in(database, source, readings)
    if not tried:
        return given, None, 0, 0
    most = int(np.argmax(readable))
    times = sum(
        count for reading, count in zip(tried, readable, strict=True) if reading.kind == tried[most].kind == "time"
    )
    return given, tried[most], readable[most], max(times - readable[most], 0)


def readable_in(
    database: duckdb.DuckDBPyConnection, source: str, readings: Sequence[Reading]
) -> tuple[int, list[Reading], list[int]]:
    """How many texts there are, the readings that fit some of the first ones, and how many of all each of them fits."""
    first = f"(select * from {source} where text is not null limit {FIRST})"
    fit = counts(database, first, *(reading.expression for reading in readings))
    tried = [reading for reading, count in zip(readings, fit, strict=True) if count]
    given, *readable = counts(database, source, "text", *(reading.expression for reading in tried))
    return given, tried, readable


def counts(database: duckdb.DuckDBPyConnection, source: str, *expressions: str) -> list[int]:
    """In how many rows each expression has a value."""
    counts = ", ".join(f"count({expression})" for expression in expressions)
    return list(database.execute(f"select {counts} from {source}").fetchall()[0])


def readings_of(name: str, text: str, delimiter: str) -> list[Reading]:
    """Ways to read a text, the likeliest first."""
    digits = [DIGITS] if any(word in name.lower() for word in DATED) else []
    iso = f"case when {fits(text, ISO)} then try_cast({text} as timestamp) end"
    bare = f"rtrim(rtrim({text}, '%'))"
    pattern, mark, note = (
        (THOUSANDS, "", "commas between thousands") if delimiter == "," else (DECIMAL, ".", "decimal comma")
    )
    with_commas = "case when {0} then replace({1}, ',', '{2}') else {1} end"
    return [
        *(Reading(as_time(text, form), "time", form) for form in digits),
        Reading(finite(text), "number"),
        Reading(finite(with_commas.format(fits(text, pattern), text, mark)), "number", note=note),
        Reading(finite(with_commas.format(fits(bare, pattern), bare, mark)), "number", note="per cent"),
        Reading(iso, "time", "%ISO"),
        *(Reading(as_time(text, form), "time", form) for form in FORMATS),
        *(
            Reading(f"case when {fits(text, pattern)} then {read.format(text=text)} end", "time", form)
            for form, (pattern, read) in FORMS.items()
        ),
    ]


def fits(text: str, pattern: str) -> str:
    """An expression for whether a pattern fits all of a text."""
    return f"regexp_full_match({text}, '{pattern}')"


def finite(text: str) -> str:
    """An expression that reads a text as a number; infinity is none."""
    return f"case when isfinite(try_cast({text} as double)) then try_cast({text} as double) end"


def as_time(text: str, form: str) -> str:
    """An expression that reads a text as a time of this form, with a year of four digits."""
    read = f"try_strptime({text}, '{form}')"
    return f"case when year({read}) >= {FIRST_YEAR} then {read} end"


def first_odd(database: duckdb.DuckDBPyConnection, source: str, reading: Reading) -> Odd:
    """The first value that a reading does not fit."""
    numbered = f"select row_number() over () - 1 as row, text, {reading.expression} as value from {source}"
    row, value = database.execute(
        f"select row, text from ({numbered}) where text is not null and value is null order by row limit 1"
    ).fetchall()[0]
    return Odd(int(row), str(value), reading.kind, reading.form)


def meaning(name: str, missing: Sequence[str]) -> str:
    """A column's text without blanks around it; null where it means that nothing was measured."""
    words = ", ".join(f"'{word}'" for word in missing)
    return f"case when lower(trim({quoted(name)})) in ({words}) then null else trim({quoted(name)}) end"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def numbers(database: duckdb.DuckDBPyConnection, expression: str, source: str = TABLE) -> NDArray[np.float64]:
    """An expression's values as numbers, NaN where there is none or it is infinite."""
    values = np.ma.filled(fetched(database, expression, source).astype(np.float64), np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def times(database: duckdb.DuckDBPyConnection, expression: str, source: str = TABLE) -> NDArray[np.datetime64]:
    return np.ma.filled(fetched(database, expression, source).astype("datetime64[us]"), np.datetime64("NaT"))


def texts(database: duckdb.DuckDBPyConnection, expression: str) -> NDArray[Any]:
    """An expression's values as texts, None where there is none."""
    values = fetched(database, expression, TABLE)
    found: NDArray[Any] = np.array(np.ma.getdata(values), dtype=object)
    found[np.ma.getmaskarray(values)] = None
    return found


def fetched(database: duckdb.DuckDBPyConnection, expression: str, source: str) -> Any:  # noqa: ANN401 - masked or not
    """One expression for every row, in the rows' order."""
    return database.execute(f"select {expression} as value from {source}").fetchnumpy()["value"]
