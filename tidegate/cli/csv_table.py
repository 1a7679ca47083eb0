"""The rows of a CSV file: by the names of a header; without one, in the model's order."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from tidegate.cli.table import BadTable, RowMaker, Table
from tidegate.columns.known_ahead import Placed
from tidegate.columns.numbers import is_number

_DELIMITERS = ",;\t|"
_OPEN = 100  # lines that a quoted cell may go on for


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Lines as rows."""

    maker: RowMaker

    def table(self, lines: Iterable[str]) -> Table:
        """The table of these lines. Raises BadTable."""
        numbered: Iterator[tuple[int, str]] = ((number, line) for number, line in self._closed(lines) if line.strip())
        first = next(numbered, None)
        if first is None:
            return Table(iter(()))
        delimiter = _delimiter(first[1])
        cells = self._split(first[1], delimiter)
        if not _is_row(cells):
            return self._named(cells, numbered, delimiter)
        names = self.maker.columns.names
        if len(cells) != len(names):
            raise self.maker.bad(f"{len(cells)} columns; {len(names)} were expected: {', '.join(names)}")
        rows = self._whole(chain([first], numbered), delimiter, len(cells))
        return Table(self.maker.rows(rows, self.maker.columns.in_order()))

    def _named(self, cells: Sequence[str], numbered: Iterator[tuple[int, str]], delimiter: str) -> Table:
        names = _names(cells)
        try:
            return self.maker.named(names, self._whole(numbered, delimiter, len(cells)), delimiter, "line 1")
        except BadTable as error:
            if names[0].startswith(("{", "[")):
                raise BadTable(f"{error}; if it is JSON, say --input json") from None
            if not any(map(is_number, names)):
                raise
            odd = next(name for name in names if name and not is_number(name))
            raise BadTable(f"{error}; it was taken for the names of columns, because '{odd}' is no number") from None

    def _whole(self, numbered: Iterable[tuple[int, str]], delimiter: str, width: int) -> Iterator[Placed]:
        """Lines as cells, as many as the first has."""
        for number, line in numbered:
            cells = self._split(line, delimiter)
            if len(cells) < width:
                found = f"line {number}: {len(cells)} columns"
                raise self.maker.bad(f"{found}; {width} were expected, as in the first line")
            yield f"line {number}", cells[:width]

    def _closed(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Lines with their numbers; one with a quoted cell that goes on is joined to those after it."""
        numbered = enumerate(lines, 1)
        for number, first in numbered:
            line, more = first, 0
            while _is_open(line):
                following = next(numbered, None)
                more += 1
                if following is None or more > _OPEN:
                    raise self.maker.bad(f"line {number}: a quotation mark is not closed")
                line += following[1]
            yield number, line

    def _split(self, line: str, delimiter: str) -> list[str]:
        try:
            return [cell.strip() for cell in next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))]
        except csv.Error as error:
            raise self.maker.bad(f"a line that is no CSV: {error}") from None


def _names(cells: Sequence[str]) -> list[str]:
    """The names of a header. A second column of one name, whatever its capitals, is called load_1, as in training."""
    found: list[str] = []
    used: set[str] = set()
    counts = Counter[str]()
    for cell in cells:
        name = given = cell.removeprefix("\ufeff")
        while name and name.lower() in used:
            counts[given.lower()] += 1
            name = f"{given}_{counts[given.lower()]}"
        used.add(name.lower())
        found.append(name)
    return found


def _is_row(cells: Sequence[str]) -> bool:
    """Whether the first line of a table is a row and no header: it holds numbers, and perhaps empty cells."""
    given = [cell for cell in cells if cell]
    return bool(given) and all(map(is_number, given))


def _delimiter(line: str) -> str:
    """What is between the cells of a line."""
    return max(_DELIMITERS, key=line.count)


def _is_open(line: str) -> bool:
    """Whether a quoted cell goes on in the next line."""
    if line.count('"') % 2 == 0:
        return False
    try:
        next(csv.reader([line], delimiter=_delimiter(line), strict=True))
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False
