"""What the commands of the terminal do, once it is known what was asked. They print; they do not parse, nor exit."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TextIO

import numpy as np

from tidegate import pages, rows
from tidegate.answers import Answer
from tidegate.client import Client
from tidegate.drawing import Drawing
from tidegate.glyphs import Style
from tidegate.model import Model
from tidegate.output import CsvSink, DrawingSink, JsonSink, Sink
from tidegate.sequence import WINDOW
from tidegate.sequence import Sequence as OpenSequence
from tidegate.trace import Trace


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """What to stream, and how to show it. `source` is a path or "-"; `output` is csv, jsonl or drawing."""

    model: str
    version: int
    source: str
    chunk: int
    output: str
    trace: Trace
    units: Sequence[int] | None


def style_of(file: TextIO) -> Style:
    """What a file shows: colour in a terminal unless NO_COLOR is set, block characters if its encoding has them."""
    try:
        "│█░▔→".encode(file.encoding or "ascii")
        block = True
    except UnicodeEncodeError:
        block = False
    return Style(colour=file.isatty() and not os.environ.get("NO_COLOR"), unicode=block)


def list_models(client: Client, *, as_json: bool) -> None:
    """Prints the table of models."""
    models = client.models()
    print(pages.as_json(models) if as_json else "\n".join(pages.table(models, style_of(sys.stdout))))


def describe(client: Client, model: str, version: int, *, as_json: bool) -> None:
    """Prints the page of one model."""
    found = client.describe(model, version)
    width = shutil.get_terminal_size().columns
    print(pages.as_json(found) if as_json else "\n".join(pages.page(found, style_of(sys.stdout), width)))


def stream(client: Client, order: StreamOrder) -> None:
    """Sends a table through a sequence of a model, and prints each answer as it comes."""
    with client.sequence(order.model, version=order.version, trace=order.trace) as sequence:
        model = client.describe(sequence.model, sequence.version)
        columns = rows.Columns(model)
        if order.source == "-" and sys.stdin.isatty():
            _note(f"type rows, with commas between their numbers; Ctrl-D ends. Columns: {', '.join(columns.names)}")
        table = rows.read(order.source, sys.stdin, columns)
        for note in table.notes:
            _note(note)
        sink = _sink(order, model)
        for answer in _answers(sequence, table, columns, order):
            sink.write(answer)


def _note(text: str) -> None:
    print(f"tidegate: {text}", file=sys.stderr)


def _answers(sequence: OpenSequence, table: rows.Table, columns: rows.Columns, order: StreamOrder) -> Iterator[Answer]:
    if order.chunk > 1:
        while block := list(islice(table.rows, order.chunk)):
            yield from sequence.chunk(columns.inputs(np.stack(block)))
        return
    # A row that comes live is answered before the next one is asked for.
    window = 1 if _is_live(order.source) else WINDOW
    yield from sequence.stream((columns.inputs(row) for row in table.rows), window)


def _is_live(source: str) -> bool:
    """Whether rows may come slowly: from a pipe or a terminal, not from a file."""
    return source == "-" and not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)


def _sink(order: StreamOrder, model: Model) -> Sink:
    match order.output:
        case "csv":
            return CsvSink(sys.stdout, model)
        case "jsonl":
            return JsonSink(sys.stdout)
        case _:
            width = shutil.get_terminal_size().columns
            style = style_of(sys.stdout)
            return DrawingSink(sys.stdout, lambda first: Drawing(model, first.layout, width, style, order.units))
