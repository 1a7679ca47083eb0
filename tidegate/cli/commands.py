"""What the commands of the terminal do: a function for each, under its name. They print; they do not parse, nor exit.

The options are those of `arguments`, and `bookmark`: what the file of a kept sequence holds.
"""

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from tidegate.answers import Answer
from tidegate.cli import kept, pages, tables
from tidegate.cli.bookmark import Bookmarks
from tidegate.cli.interrupt import Interrupt
from tidegate.cli.sinks import CsvSink, DrawingSink, JsonSink, Sink
from tidegate.client import Client
from tidegate.drawing.glyphs import Style
from tidegate.drawing.lines import Drawing
from tidegate.errors import Refused, SequenceLost
from tidegate.inputs import InputLayout
from tidegate.model import Model
from tidegate.opened import WINDOW
from tidegate.sequence import Sequence as OpenSequence
from tidegate.state import State
from tidegate.trace import NOTHING, Trace


def style_of(file: TextIO) -> Style:
    try:
        "│█░▔→".encode(file.encoding or "ascii")
        block = True
    except UnicodeEncodeError:
        block = False
    return Style(colour=file.isatty() and not os.environ.get("NO_COLOR"), unicode=block)


def models(client: Client, options: Namespace) -> None:
    found = client.models()
    print(pages.as_json(found) if options.json else "\n".join(pages.table(found, style_of(sys.stdout))))


def describe(client: Client, options: Namespace) -> None:
    found = client.describe(options.model, options.version)
    width = shutil.get_terminal_size().columns
    print(pages.as_json(found) if options.json else "\n".join(pages.page(found, style_of(sys.stdout), width)))


def stream(client: Client, options: Namespace) -> None:
    state = None if options.state is None else State.load(options.state)
    if options.keep is not None:
        kept.check_free(options.keep)
    source = _Source(client.describe(options.model, options.version, ready=True), options)
    trace = _trace(options, Trace())
    sequence = client.sequence(options.model, version=source.model.version, trace=trace, state=state)
    if options.keep is None:
        window = 1 if tables.is_live(options.file) else WINDOW  # a row that may come slowly is answered before the next
        with sequence:
            for answer in source.answers(sequence, window):
                source.sink.write(answer)
        return
    _run_kept(client, sequence, source, options.keep, trace)


def resume(client: Client, options: Namespace) -> None:
    """Goes on with a kept sequence: answers what was sent and not answered, then sends the table's rows.

    Its version is known once it is taken up: it may have been moved, and one that is superseded is loaded again for it.
    """
    if options.file != "-" and not tables.is_live(options.file):
        Path(options.file).open("rb").close()  # one that is not there is found out before anything is taken up
    trace = _trace(options, options.bookmark.trace)
    sequence, bookmark = kept.take_up(client, options.bookmark, trace)
    source = _Source(client.describe(sequence.model, sequence.version, ready=True), options)
    for answer in kept.catch_up(sequence, bookmark):
        if answer.step >= bookmark.answered:
            source.sink.write(answer)
    _run_kept(client, sequence, source, options.kept, trace)


def state(client: Client, options: Namespace) -> None:
    kept.check_state(options.output)
    sequence, bookmark = kept.take_up(client, options.bookmark, NOTHING)
    kept.catch_up(sequence, bookmark)
    taken = sequence.state()
    taken.save(options.output)
    print(f"{taken.model} version {taken.version} after {taken.step} steps: {options.output}")


def fork(client: Client, options: Namespace) -> None:
    kept.check_free(options.other)
    sequence, bookmark = kept.take_up(client, options.bookmark, NOTHING)
    kept.catch_up(sequence, bookmark)
    other = sequence.fork()
    kept.keep(client, other, options.other, other.next_step, bookmark.trace)
    print(f"{other.model} version {other.version} from step {other.next_step} on: {options.other}")


def rewind(client: Client, options: Namespace) -> None:
    """Takes a kept sequence back to the newest checkpoint at or before a step.

    The file says so first, so that a stop at any moment leaves one that can be taken up.
    """
    sequence, bookmark = kept.take_up(client, options.bookmark, NOTHING)
    replace(bookmark, rewinding=min(options.step, bookmark.answered)).save(
        options.kept
    )  # it may be stopped before the next write
    try:
        at = sequence.rewind(options.step)
    except Refused:
        bookmark.save(options.kept)
        raise
    bookmark.at(at).save(options.kept)
    print(f"{sequence.model} version {sequence.version} takes step {at} next")


def move(client: Client, options: Namespace) -> None:
    """Goes on with a kept sequence on another version of its model.

    It moves after the steps whose answers were shown. Those that were sent and not answered are the new version's: they
    are answered when it is resumed.
    """
    sequence, bookmark = kept.take_up(client, options.bookmark, NOTHING)
    kept.catch_up(sequence, bookmark.at(bookmark.answered))
    at = sequence.move(options.to)
    bookmark.moved(at, sequence.version).save(options.kept)
    print(f"{sequence.model} version {sequence.version} takes step {at} next")


def end(client: Client, options: Namespace) -> None:
    try:
        kept.take_up(client, options.bookmark, NOTHING)[0].close()
    except SequenceLost as lost:
        if lost.reason not in kept.NO_MORE:
            raise
        _note(f"it had ended before: {lost.message}")
    Path(options.kept).unlink()


def _trace(options: Namespace, otherwise: Trace) -> Trace:
    """What is to be shown of the inside; `otherwise` where the options say nothing of it."""
    if options.trace is None and options.layers is None and options.every is None:
        return otherwise
    return NOTHING if options.trace is False else Trace(layers=options.layers, every=options.every or 1)


class _Source:
    """The rows that a model is to take, and where its answers are shown."""

    def __init__(self, model: Model, options: Namespace) -> None:
        self.model = model
        self.columns = InputLayout(model.inputs).rows
        self.sink = _sink(options, model)
        self._options = options
        # A file that cannot be read is found out before anything is opened; what comes live is waited for after it.
        self._table = None if tables.is_live(options.file) else self._read()

    def answers(self, sequence: OpenSequence, window: int) -> Iterator[Answer]:
        """The answers to the rows, as they come."""
        rows, columns, chunk = self._rows(sequence.next_step), self.columns, self._options.chunk
        if chunk > 1:
            while block := list(islice(rows, chunk)):
                yield from sequence.chunk(columns.arrays(np.stack(block)))
            return
        yield from sequence.stream(map(columns.arrays, rows), window)

    def _read(self) -> tables.Table:
        return tables.read(self._options.file, sys.stdin, self.columns, self._options.input)

    def _rows(self, sent: int) -> Iterator[tables.Row]:
        path = self._options.file
        if self._table is None:
            if path == "-" and sys.stdin.isatty() and self._options.input != "json":
                names = ", ".join(self.columns.names)
                _note(f"type rows, with commas between their numbers; Ctrl-D ends. Columns: {names}")
            self._table = self._read()
        for note in self._table.notes:
            _note(note)
        first = next(self._table.rows, None)
        if first is None:
            raise tables.BadTable(f"{path}: the table is empty, and nothing was sent")
        left_out = sent if "whole" in self._options and self._options.whole else 0
        return islice(chain([first], self._table.rows), left_out, None)


def _run_kept(client: Client, sequence: OpenSequence, source: _Source, path: str, trace: Trace) -> None:
    shown = sequence.next_step
    kept.keep(client, sequence, path, shown, trace)
    bookmarks = Bookmarks(path, lambda answered: kept.bookmark(client, sequence, answered, trace), sequence.hold)
    try:
        with Interrupt() as interrupt:
            for answer in source.answers(sequence, 1):  # what is kept is shown as it is answered
                with interrupt.held_back():  # or a line that was shown would be shown again
                    source.sink.write(answer)
                    shown = answer.step + 1
                    bookmarks.shown(answer.step)
    except SequenceLost:
        raise  # the file is left to the client that took the sequence over
    except BaseException:
        _leave(bookmarks, shown, path)
        raise
    _leave(bookmarks, shown, path)


def _leave(bookmarks: Bookmarks, shown: int, path: str) -> None:
    unheard = bookmarks.write(shown).sent - shown
    more = f", {unheard} more were sent and are answered first" if unheard > 0 else ""
    _note(f"{shown} {'step is' if shown == 1 else 'steps are'} answered{more}; go on with: tidegate resume {path}")


def _note(text: str) -> None:
    print(f"tidegate: {text}", file=sys.stderr)


def _sink(options: Namespace, model: Model) -> Sink:
    match options.output or ("drawing" if sys.stdout.isatty() else "csv"):
        case "csv":
            return CsvSink(sys.stdout, model)
        case "jsonl":
            return JsonSink(sys.stdout, model)
        case _:
            width = shutil.get_terminal_size().columns
            style = style_of(sys.stdout)
            return DrawingSink(sys.stdout, lambda first: Drawing(model, first.layout, width, style, options.units))
