"""What the commands of the terminal do, once it is known what was asked. They print; they do not parse, nor exit."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from tidegate.answers import Answer
from tidegate.cli import kept, pages, tables
from tidegate.cli.bookmark import Bookmark, Bookmarks
from tidegate.cli.interrupt import Interrupt
from tidegate.cli.sinks import CsvSink, DrawingSink, JsonSink, Sink
from tidegate.client import Client
from tidegate.drawing.glyphs import Style
from tidegate.drawing.lines import Drawing
from tidegate.errors import Refused, SequenceLost
from tidegate.model import Model
from tidegate.opened import WINDOW
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
    try:
        "│█░▔→".encode(file.encoding or "ascii")
        block = True
    except UnicodeEncodeError:
        block = False
    return Style(colour=file.isatty() and not os.environ.get("NO_COLOR"), unicode=block)


def list_models(client: Client, *, as_json: bool) -> None:
    models = client.models()
    print(pages.as_json(models) if as_json else "\n".join(pages.table(models, style_of(sys.stdout))))


def describe(client: Client, model: str, version: int, *, as_json: bool) -> None:
    found = client.describe(model, version)
    width = shutil.get_terminal_size().columns
    print(pages.as_json(found) if as_json else "\n".join(pages.page(found, style_of(sys.stdout), width)))


def stream(client: Client, order: StreamOrder) -> None:
    state = None if order.state is None else State.load(order.state)
    if order.keep is not None:
        kept.check_free(order.keep)
    source = _Source(client.describe(order.model, order.version), order)
    sequence = client.sequence(order.model, version=source.model.version, trace=order.trace, state=state)
    if order.keep is None:
        window = 1 if tables.is_live(order.source) else WINDOW  # a row that may come slowly is answered before the next
        with sequence:
            for answer in _answers(sequence, source, order, window):
                source.sink.write(answer)
        return
    kept.keep(client, sequence, order.keep, sequence.next_step)
    _run_kept(client, sequence, source, order, order.keep)


def resume(client: Client, bookmark: Bookmark, order: StreamOrder, path: str) -> None:
    """Goes on with a kept sequence: answers what was sent and not answered, then sends the table's rows."""
    source = _Source(client.describe(bookmark.model, bookmark.version), order)
    sequence, bookmark = kept.take_up(client, bookmark, order.trace)
    for answer in kept.catch_up(sequence, bookmark):
        if answer.step >= bookmark.answered:
            source.sink.write(answer)
    kept.keep(client, sequence, path, sequence.next_step)
    _run_kept(client, sequence, source, order, path)


def take_state(client: Client, bookmark: Bookmark, path: str) -> None:
    kept.check_state(path)
    sequence, bookmark = kept.take_up(client, bookmark, NOTHING)
    kept.catch_up(sequence, bookmark)
    state = sequence.state()
    state.save(path)
    print(f"{state.model} version {state.version} after {state.step} steps: {path}")


def fork(client: Client, bookmark: Bookmark, path: str) -> None:
    kept.check_free(path)
    sequence, bookmark = kept.take_up(client, bookmark, NOTHING)
    kept.catch_up(sequence, bookmark)
    other = sequence.fork()
    kept.keep(client, other, path, other.next_step)
    print(f"{other.model} version {other.version} from step {other.next_step} on: {path}")


def rewind(client: Client, bookmark: Bookmark, step: int, path: str) -> None:
    """Takes a kept sequence back to the newest checkpoint at or before a step.

    The file says so first, so that a stop at any moment leaves one that can be taken up.
    """
    sequence, bookmark = kept.take_up(client, bookmark, NOTHING)
    replace(bookmark, rewinding=min(step, bookmark.answered)).save(path)  # it may be stopped before the next write
    try:
        at = sequence.rewind(step)
    except Refused:
        bookmark.save(path)
        raise
    bookmark.at(at).save(path)
    print(f"{sequence.model} version {sequence.version} takes step {at} next")


def move(client: Client, bookmark: Bookmark, version: int, path: str) -> None:
    """Goes on with a kept sequence on another version of its model.

    It moves after the steps whose answers were shown. Those that were sent and not answered are the new version's: they
    are answered when it is resumed.
    """
    sequence, bookmark = kept.take_up(client, bookmark, NOTHING)
    kept.catch_up(sequence, bookmark.at(bookmark.answered))
    at = sequence.move(version)
    bookmark.moved(at, sequence.version).save(path)
    print(f"{sequence.model} version {sequence.version} takes step {at} next")


def end(client: Client, bookmark: Bookmark, path: str) -> None:
    try:
        kept.take_up(client, bookmark, NOTHING)[0].close()
    except SequenceLost as lost:
        if lost.reason not in kept.NO_MORE:
            raise
        _note(f"it had ended before: {lost.message}")
    Path(path).unlink()


class _Source:
    """The rows that a model is to take, and where its answers are shown."""

    def __init__(self, model: Model, order: StreamOrder) -> None:
        self.model = model
        self.columns = tables.Columns(model)
        self.sink = _sink(order, model)
        self._order = order
        # A file that cannot be read is found out before anything is opened; what comes live is waited for after it.
        self._table = None if tables.is_live(order.source) else tables.read(order.source, sys.stdin, self.columns)

    def rows(self, sent: int) -> Iterator[tables.Row]:
        if self._table is None:
            if self._order.source == "-" and sys.stdin.isatty():
                names = ", ".join(self.columns.names)
                _note(f"type rows, with commas between their numbers; Ctrl-D ends. Columns: {names}")
            self._table = tables.read(self._order.source, sys.stdin, self.columns)
        for note in self._table.notes:
            _note(note)
        first = next(self._table.rows, None)
        if first is None:
            raise tables.BadTable(f"{self._order.source}: the table is empty, and nothing was sent")
        return islice(chain([first], self._table.rows), sent if self._order.whole else 0, None)


def _run_kept(client: Client, sequence: OpenSequence, source: _Source, order: StreamOrder, path: str) -> None:
    shown = sequence.next_step
    bookmarks = Bookmarks(path, lambda answered: kept.bookmark(client, sequence, answered), sequence.hold)
    try:
        with Interrupt() as interrupt:
            for answer in _answers(sequence, source, order, 1):  # what is kept is shown as it is answered
                with interrupt.held_back():  # or a line that was shown would be shown again
                    source.sink.write(answer)
                    shown = answer.step + 1
                    bookmarks.shown(answer.step)
    except SequenceLost:
        raise  # the file is left to whoever went on with it
    except BaseException:
        _leave(bookmarks, shown, path)
        raise
    _leave(bookmarks, shown, path)


def _leave(bookmarks: Bookmarks, shown: int, path: str) -> None:
    unheard = bookmarks.write(shown).sent - shown
    more = f", {unheard} more were sent and are answered first" if unheard > 0 else ""
    _note(f"{shown} steps are answered{more}; go on with: tidegate resume {path}")


def _note(text: str) -> None:
    print(f"tidegate: {text}", file=sys.stderr)


def _answers(sequence: OpenSequence, source: _Source, order: StreamOrder, window: int) -> Iterator[Answer]:
    table, columns = source.rows(sequence.next_step), source.columns
    if order.chunk > 1:
        while block := list(islice(table, order.chunk)):
            yield from sequence.chunk(columns.inputs(np.stack(block)))
        return
    yield from sequence.stream((columns.inputs(row) for row in table), window)


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
