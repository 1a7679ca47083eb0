"""What the commands of the terminal do, once it is known what was asked. They print; they do not parse, nor exit."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from tidegate import pages, rows
from tidegate.answers import Answer
from tidegate.bookmark import BadBookmark, Bookmark, Bookmarks
from tidegate.client import Client
from tidegate.drawing import Drawing
from tidegate.errors import SequenceLost
from tidegate.glyphs import Style
from tidegate.interrupt import Interrupt
from tidegate.model import Model
from tidegate.output import CsvSink, DrawingSink, JsonSink, Sink
from tidegate.sequence import WINDOW
from tidegate.sequence import Sequence as OpenSequence
from tidegate.state import State
from tidegate.trace import NOTHING, Trace


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
    state: str | None = None  # the file of a state to begin from
    keep: str | None = None  # the file of a bookmark, with which the sequence outlives the command
    whole: bool = False  # the table begins at step 0, also where the sequence goes on later


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
    """Sends a table through a new sequence of a model, and prints each answer as it comes."""
    state = None if order.state is None else State.load(order.state)
    sequence = client.sequence(order.model, version=order.version, trace=order.trace, state=state)
    if order.keep is None:
        with sequence:
            _run_table(client, sequence, order, sequence.next_step, None)
        return
    _keep(client, sequence, order.keep, sequence.next_step)
    _run_table(client, sequence, order, sequence.next_step, order.keep)


def resume(client: Client, bookmark: Bookmark, order: StreamOrder) -> None:
    """Goes on with a kept sequence: answers what was sent and not answered, then sends the table's rows."""
    sequence = _take_up(client, bookmark, order.trace)
    model = client.describe(sequence.model, sequence.version)
    sink = _sink(order, model)
    for answer in _catch_up(sequence, bookmark):
        if answer.step >= bookmark.answered:
            sink.write(answer)
    assert order.keep is not None
    _keep(client, sequence, order.keep, sequence.next_step)
    _run_table(client, sequence, order, sequence.next_step, order.keep, sink)


def take_state(client: Client, bookmark: Bookmark, path: str) -> None:
    """Writes the state of a kept sequence to a file."""
    sequence = _take_up(client, bookmark, NOTHING)
    _catch_up(sequence, bookmark)
    state = sequence.state()
    state.save(path)
    print(f"{state.model} version {state.version} after {state.step} steps: {path}")


def fork(client: Client, bookmark: Bookmark, path: str) -> None:
    """Begins another sequence where a kept one stands, and keeps it in a file of its own."""
    sequence = _take_up(client, bookmark, NOTHING)
    _catch_up(sequence, bookmark)
    other = sequence.fork()
    _keep(client, other, path, other.next_step)
    print(f"{other.model} version {other.version} from step {other.next_step} on: {path}")


def rewind(client: Client, bookmark: Bookmark, step: int, path: str) -> None:
    """Takes a kept sequence back to the newest checkpoint at or before a step."""
    sequence = _take_up(client, bookmark, NOTHING)
    at = sequence.rewind(step)
    bookmark.at(at).save(path)
    print(f"{sequence.model} version {sequence.version} takes step {at} next")


def move(client: Client, bookmark: Bookmark, version: int, path: str) -> None:
    """Goes on with a kept sequence on another version of its model.

    It moves after the steps whose answers were shown. Those that were sent and not answered are the new version's: they
    are answered when it is resumed.
    """
    sequence = _take_up(client, bookmark, NOTHING)
    _catch_up(sequence, bookmark.at(bookmark.answered))
    at = sequence.move(version)
    bookmark.moved(at, sequence.version).save(path)
    print(f"{sequence.model} version {sequence.version} takes step {at} next")


def end(client: Client, bookmark: Bookmark, path: str) -> None:
    """Ends a kept sequence, and removes its file."""
    _take_up(client, bookmark, NOTHING).close()
    Path(path).unlink()


def _take_up(client: Client, bookmark: Bookmark, trace: Trace) -> OpenSequence:
    try:
        return client.resume(bookmark.id, bookmark.token, answered=bookmark.answered, trace=trace)
    except SequenceLost as lost:
        # A server that was lost before its first write: every input is still here, and begins anew.
        if lost.reason != "UNKNOWN_SEQUENCE" or bookmark.first or not bookmark.inputs:
            raise
        return client.sequence(bookmark.model, version=bookmark.version, trace=trace)


def _catch_up(sequence: OpenSequence, bookmark: Bookmark) -> Sequence[Answer]:
    """Sends the inputs that the server wants again, and those that were not answered; the answers to all of them."""
    inputs = bookmark.since(sequence.next_step)
    if not inputs or not len(next(iter(inputs.values()))):
        return []
    return list(sequence.chunk(inputs))


def _run_table(
    client: Client, sequence: OpenSequence, order: StreamOrder, shown: int, keep: str | None, sink: Sink | None = None
) -> None:
    model = client.describe(sequence.model, sequence.version)
    columns = rows.Columns(model)
    if order.source == "-" and sys.stdin.isatty():
        _note(f"type rows, with commas between their numbers; Ctrl-D ends. Columns: {', '.join(columns.names)}")
    table = rows.read(order.source, sys.stdin, columns)
    for note in table.notes:
        _note(note)
    table_rows = islice(table.rows, sequence.next_step if order.whole else 0, None)
    sink = sink or _sink(order, model)
    answers = _answers(sequence, table_rows, columns, order)
    if keep is None:
        for answer in answers:
            sink.write(answer)
        return
    bookmarks = Bookmarks(keep, lambda answered: _bookmark(client, sequence, answered))
    try:
        with Interrupt() as interrupt:
            for answer in answers:
                with interrupt.held_back():  # or a line that was shown would be shown again
                    sink.write(answer)
                    shown = answer.step + 1
                    bookmarks.shown(answer.step)
    finally:
        bookmarks.write(shown)
        _note(f"{shown} steps are answered; go on with: tidegate resume {keep}")


def _bookmark(client: Client, sequence: OpenSequence, answered: int) -> Bookmark:
    first, inputs = sequence.kept()
    return Bookmark(
        server=client.address,
        model=sequence.model,
        version=sequence.version,
        id=sequence.id,
        token=sequence.resume_token,
        answered=answered,
        first=first,
        inputs=inputs,
    )


def _keep(client: Client, sequence: OpenSequence, path: str, answered: int) -> None:
    if not sequence.resume_token:
        raise BadBookmark(f"the server at {client.address} keeps no checkpoints: nothing could be resumed later")
    _bookmark(client, sequence, answered).save(path)


def _note(text: str) -> None:
    print(f"tidegate: {text}", file=sys.stderr)


def _answers(
    sequence: OpenSequence, table: Iterator[rows.Row], columns: rows.Columns, order: StreamOrder
) -> Iterator[Answer]:
    if order.chunk > 1:
        while block := list(islice(table, order.chunk)):
            yield from sequence.chunk(columns.inputs(np.stack(block)))
        return
    # A row that comes live is answered before the next one is asked for; what is kept is shown as it is answered.
    window = 1 if order.keep is not None or _is_live(order.source) else WINDOW
    yield from sequence.stream((columns.inputs(row) for row in table), window)


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
