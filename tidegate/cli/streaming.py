"""A table's rows as steps of its series' sequences, and where their answers are shown."""

import shutil
import sys
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import numpy as np

from tidegate.answers import Answer
from tidegate.cli import tables
from tidegate.cli.sinks import CsvSink, DrawingSink, JsonSink, Sink, style_of
from tidegate.columns.known_ahead import Series
from tidegate.drawing.lines import Drawing
from tidegate.inputs import InputLayout
from tidegate.model import Model
from tidegate.sequence import Sequence as OpenSequence
from tidegate.sequence import in_turn

Of = Callable[[Series], OpenSequence]  # the sequence of a series


def note(text: str) -> None:
    print(f"tidegate: {text}", file=sys.stderr)


class Source:
    """The rows that a model is to take, and where their answers are shown."""

    def __init__(self, model: Model, options: Namespace) -> None:
        self.model = model
        self.live = any(map(tables.is_live, options.files))
        self.columns = InputLayout(model.inputs).rows
        self._options = options
        self._sink: Sink | None = None
        self._check_units(options.units)
        # A file that cannot be read is found out before anything is opened; what comes live is waited for after it.
        self._table = None if self.live else self._read()

    def _check_units(self, units: Sequence[int] | None) -> None:
        most = max((layer.hidden_size for layer in self.model.layers), default=0)
        if units is not None and most and max(units) >= most:
            raise ValueError(f"--units names unit {max(units)}, and the largest layer has the units 0 to {most - 1}")

    def show(self, series: Series, answer: Answer) -> None:
        if self._sink is None:
            self._sink = _sink(self._options, self.model, self.columns.series if series else ())
        self._sink.write(answer, series)

    def answers(self, of: Of, window: int) -> Iterator[tuple[Series, Answer]]:
        """The answers to the rows, in their order and as they come, each behind the series of its row."""
        rows = self._rows(of)
        if self._options.chunk > 1:
            while block := list(islice(rows, self._options.chunk)):
                yield from self._block(of, block)
            return
        sent: deque[Series] = deque()

        def steps() -> Iterator[tuple[OpenSequence, dict[str, np.ndarray]]]:
            for series, row in rows:
                sent.append(series)
                yield of(series), self.columns.arrays(row)

        for answer in in_turn(steps(), window):
            yield sent.popleft(), answer

    def _block(self, of: Of, block: Sequence[tuple[Series, tables.Row]]) -> Iterator[tuple[Series, Answer]]:
        """Those to rows that are sent together: a chunk of each series."""
        rows: dict[Series, list[tables.Row]] = {}
        for series, row in block:
            rows.setdefault(series, []).append(row)
        answers: dict[Series, Iterator[Answer]] = {}
        for series, _ in block:
            if series not in answers:
                answers[series] = iter(of(series).chunk(self.columns.arrays(np.stack(rows[series]))))
            yield series, next(answers[series])

    def _rows(self, of: Of) -> Iterator[tuple[Series, tables.Row]]:
        files = ", ".join(self._options.files)
        if self._table is None:
            if files == "-" and sys.stdin.isatty() and self._options.input != "json":
                names = ", ".join(self.columns.names)
                note(f"type rows, with commas between their numbers; Ctrl-D ends. Columns: {names}")
            self._table = self._read()
        for each in self._table.notes:
            note(each)
        rows = self._table.by_series
        first = next(rows, None)
        if first is None:
            raise tables.BadTable(f"{files}: the table is empty, and nothing was sent")
        rows = chain([first], rows)
        if "state" in self._options and self._options.state is not None:
            rows = _of_one_series(rows)
        return _without_those_sent(rows, of) if "whole" in self._options and self._options.whole else rows

    def _read(self) -> tables.Table:
        return tables.read(self._options.files, sys.stdin, self.columns, self._options.input)


def _of_one_series(rows: Iterator[tuple[Series, tables.Row]]) -> Iterator[tuple[Series, tables.Row]]:
    """Raises BadTable."""
    first: Series | None = None
    for series, row in rows:
        first = series if first is None else first
        if series != first:
            one, other = ", ".join(first), ", ".join(series)
            raise tables.BadTable(f"--state is the state of one series, and the table has {one} and {other}")
        yield series, row


def _without_those_sent(rows: Iterator[tuple[Series, tables.Row]], of: Of) -> Iterator[tuple[Series, tables.Row]]:
    """A table that begins at step 0 of each series, from the steps on that come next."""
    sent: dict[Series, int] = {}
    seen = Counter[Series]()
    for series, row in rows:
        if series not in sent:
            sent[series] = of(series).next_step
        seen[series] += 1
        if seen[series] > sent[series]:
            yield series, row


def _sink(options: Namespace, model: Model, apart: Sequence[str]) -> Sink:
    match options.output or ("drawing" if sys.stdout.isatty() else "csv"):
        case "csv":
            return CsvSink(sys.stdout, model, apart)
        case "jsonl":
            return JsonSink(sys.stdout, model, apart)
        case _:
            width = shutil.get_terminal_size().columns
            style = style_of(sys.stdout)
            return DrawingSink(
                sys.stdout, lambda first: Drawing(model, first.layout, width, style, options.units, apart)
            )
