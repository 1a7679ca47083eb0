"""The rows of a CSV file: by the names of a header; without one, in the model's order."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from tidegate.cli.table import Sheet, bad
from tidegate.columns import Rows
from tidegate.columns.known_ahead import Placed
from tidegate.columns.numbers import is_number

_DELIMITERS = ",;\t|"
_OPEN = 100  # lines that a quoted cell may go on for


def csv_sheet(lines: Iterable[str], file: str, columns: Rows) -> Sheet | None:
    """What these lines hold; None: nothing. `file` stands before a place in them. Raises BadTable."""
    numbered: Iterator[tuple[int, str]] = ((number, line) for number, line in _closed(lines, file) if line.strip())
    first = next(numbered, None)
    if first is None:
        return None
    head = f"{file}line {first[0]}"
    if "\0" in first[1]:
        raise bad(f"{head}: UTF-8 was expected, and this is UTF-16; save it as such, as by iconv -f utf-16le -t utf-8")
    delimiter = _delimiter(first[1])
    cells = _split(first[1], delimiter, head)
    if not _is_row(cells):
        names = _names(cells)
        rows = _whole(numbered, delimiter, len(cells), file)
        return Sheet(head, names, rows, delimiter, _doubt(names))
    if len(cells) != len(columns.names):
        wanted = f"{len(columns.names)} were expected: {', '.join(columns.names)}"
        raise bad(f"{file}{len(cells)} columns; {wanted}")
    rows = _whole(chain([first], numbered), delimiter, len(cells), file)
    return Sheet(head, (), rows, delimiter)


def _doubt(names: Sequence[str]) -> str:
    if names[0].startswith(("{", "[")):
        return "; if it is JSON, say --input json"
    if not any(map(is_number, names)):
        return ""
    odd = next(name for name in names if name and not is_number(name))
    return f"; it was taken for the names of columns, because '{odd}' is no number"


def _whole(numbered: Iterable[tuple[int, str]], delimiter: str, width: int, file: str) -> Iterator[Placed]:
    """Lines as cells, as many as the first has."""
    for number, line in numbered:
        place = f"{file}line {number}"
        cells = _split(line, delimiter, place)
        if len(cells) < width:
            raise bad(f"{place}: {len(cells)} columns; {width} were expected, as in the first line")
        yield place, cells[:width]


def _closed(lines: Iterable[str], file: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; one with a quoted cell that goes on is joined to those after it."""
    numbered = enumerate(lines, 1)
    for number, first in numbered:
        line, more = first, 0
        while _is_open(line):
            following = next(numbered, None)
            more += 1
            if following is None or more > _OPEN:
                raise bad(f"{file}line {number}: a quotation mark is not closed")
            line += following[1]
        yield number, line


def _split(line: str, delimiter: str, place: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))]
    except csv.Error as error:
        raise bad(f"{place}: it is no CSV ({error})") from None


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
