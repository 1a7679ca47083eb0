"""What the commands of the terminal do: a function for each, under its name. They print; they do not parse, nor exit.

The options are those of `arguments`, and `bookmark`: what the file of a kept sequence holds.
"""

import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from tidegate.cli import kept, pages, tables
from tidegate.cli.interrupt import Interrupt
from tidegate.cli.keeper import Keeper
from tidegate.cli.series import Sequences
from tidegate.cli.sinks import style_of
from tidegate.cli.streaming import Source, note
from tidegate.client import Client
from tidegate.errors import Refused, SequenceLost
from tidegate.opened import WINDOW
from tidegate.sequence import Sequence as OpenSequence
from tidegate.state import State
from tidegate.trace import NOTHING, Trace


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
    source = Source(client.describe(options.model, options.version, ready=True), options)
    trace = _trace(options, Trace())
    begin = partial(client.sequence, options.model, version=source.model.version, trace=trace)
    apart = bool(source.columns.series)
    if options.keep is not None:
        keeper = Keeper(client, options.keep, trace, partial(begin, state=state), {}, apart=apart)
        if not apart:
            keeper.of(())
        _run_kept(keeper, source)
        return
    window = 1 if source.live else WINDOW  # a row that may come slowly is answered before the next
    with Sequences(lambda state, timeout: begin(state=state, timeout=timeout), state) as sequences:
        if not apart:
            sequences.of(())
        for series, answer in source.answers(sequences.of, window):
            source.show(series, answer)


def resume(client: Client, options: Namespace) -> None:
    """Goes on with what is kept: answers what was sent and not answered, then sends the table's rows.

    Its version is known once it is taken up: it may have been moved, and one that is superseded is loaded again for it.
    """
    for file in options.files:
        if file != "-" and not tables.is_live(file):
            Path(file).open("rb").close()  # one that is not there is found out before anything is taken up
    series, bookmark = next(iter(options.bookmarks.items()))
    trace = _trace(options, bookmark.trace)

    def begin() -> OpenSequence:  # of a series that is new in this table
        return client.sequence(sequence.model, version=sequence.version, trace=trace)

    keeper = Keeper(client, options.kept, trace, begin, options.bookmarks, apart=Path(options.kept).is_dir())
    sequence = keeper.of(series)
    _run_kept(keeper, Source(client.describe(sequence.model, sequence.version, ready=True), options))


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
    begun = kept.bookmark(client, other, other.next_step, bookmark.trace, bookmark.series)
    kept.keep(client, other, options.other, begun)
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
    folder = Path(options.kept).is_dir()
    for series, bookmark in options.bookmarks.items():
        try:
            kept.take_up(client, bookmark, NOTHING)[0].close()
        except SequenceLost as lost:
            if lost.reason not in kept.NO_MORE:
                raise
            note(f"it had ended before: {lost.message}")
        Path(kept.file_of(options.kept, series) if folder else options.kept).unlink()
    if folder:
        Path(options.kept).rmdir()


def _trace(options: Namespace, otherwise: Trace) -> Trace:
    """What is to be shown of the inside; `otherwise` where the options say nothing of it."""
    if options.trace is None and options.layers is None and options.every is None:
        return otherwise
    return NOTHING if options.trace is False else Trace(layers=options.layers, every=options.every or 1)


def _run_kept(keeper: Keeper, source: Source) -> None:
    try:
        with Interrupt() as interrupt:
            # What is kept is shown as it is answered.
            for series, answer in chain(keeper.unshown(), source.answers(keeper.of, 1)):
                with interrupt.held_back():  # or a line that was shown would be shown again
                    source.show(series, answer)
                    keeper.shown(series, answer)
    except BaseException as error:
        _leave(keeper, lost=isinstance(error, SequenceLost))
        raise
    _leave(keeper)


def _leave(keeper: Keeper, *, lost: bool = False) -> None:
    how = keeper.leave(lost=lost)
    if how:
        note(how)
