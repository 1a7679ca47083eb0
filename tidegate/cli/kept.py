"""Sequences that outlive their command: the file in which one is kept, and how a later command takes it up.

Those of a table's series are kept in a folder, with a file for each of them.
"""

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from tidegate.answers import Answer
from tidegate.cli.bookmark import BadBookmark, Bookmark
from tidegate.client import Client
from tidegate.columns.known_ahead import Series
from tidegate.errors import SequenceLost, TidegateError
from tidegate.sequence import Sequence as OpenSequence
from tidegate.state import BadState, State
from tidegate.trace import Trace

# Why a sequence cannot be ended any more.
NO_MORE = frozenset({"SEQUENCE_ENDED", "SEQUENCE_EXPIRED", "SEQUENCE_EVICTED", "UNKNOWN_SEQUENCE"})


_LONGEST = 150  # characters of a series in the name of its file


class FileTaken(TidegateError):
    """A file that would be lost if it were written; the message says what it is."""


def check_free(path: str) -> None:
    """Whether a sequence can be kept in this file without anything being lost. Raises FileTaken."""
    if not os.path.lexists(path):
        if not Path(path).absolute().parent.is_dir():
            raise FileTaken(f"{path}: there is no such folder to keep a sequence in")
        return
    try:
        load(path)
    except (BadBookmark, OSError):
        raise FileTaken(f"{path} exists and would be lost; name a new file to keep the sequence in") from None
    raise FileTaken(
        f"{path} keeps a sequence already; go on with it (tidegate resume {path}), end it (tidegate end {path}), "
        "or name a new file"
    )


def check_state(path: str) -> None:
    """Whether a state can be written to this file, and nothing is lost but an earlier state. Raises FileTaken."""
    try:
        State.load(path)
    except FileNotFoundError:
        return
    except (BadState, OSError):
        raise FileTaken(f"{path} exists and is no state; name a new file for it") from None


def load(path: str) -> dict[Series, Bookmark]:
    """What a file, or each file of a folder, keeps, by its series. Raises BadBookmark, OSError."""
    if not Path(path).is_dir():
        bookmark = Bookmark.load(path)
        return {bookmark.series: bookmark}
    found: dict[Series, Bookmark] = {}
    for file in map(str, sorted(Path(path).glob("*.seq"))):
        bookmark = Bookmark.load(file)
        if file != file_of(path, bookmark.series):
            raise BadBookmark(f"{file} was called {file_of(path, bookmark.series)}; give it that name, or move it away")
        found[bookmark.series] = bookmark
    if not found:
        raise BadBookmark(f"{path} is a folder, and keeps no sequence")
    return found


def one(path: str, bookmarks: Mapping[Series, Bookmark]) -> Bookmark:
    """What a file keeps. Raises BadBookmark: it is a folder."""
    if Path(path).is_dir():
        example = file_of(path, next(iter(bookmarks)))
        raise BadBookmark(f"{path} keeps {len(bookmarks)} series; name the file of one of them, such as {example}")
    return next(iter(bookmarks.values()))


def file_of(folder: str, series: Series) -> str:
    """The file for a series in a folder."""
    name = ",".join(quote(value, safe=" ") for value in series) or "(all)"  # no series is quoted as that
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{sha256(name.encode()).hexdigest()[:16]}"
    return str(Path(folder) / f"{name}.seq")


def keep(client: Client, sequence: OpenSequence, path: str, bookmark: Bookmark) -> None:
    """Writes the file of a sequence, from whose bookmark on the server keeps what it takes."""
    if not sequence.resume_token:
        raise BadBookmark(f"the server at {client.address} keeps no checkpoints: nothing could be resumed later")
    bookmark.save(path)
    sequence.hold(bookmark.answered)


def bookmark(client: Client, sequence: OpenSequence, answered: int, trace: Trace, series: Series = ()) -> Bookmark:
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
        trace=trace,
        series=series,
    )


def take_up(client: Client, bookmark: Bookmark, trace: Trace) -> tuple[OpenSequence, Bookmark]:
    """Resumes the sequence of a bookmark; returns it, and the bookmark as it is then. Raises SequenceLost.

    It is begun anew at step 0 if no server ever kept it, and goes back first if a rewind was stopped half-way.
    """
    back = bookmark.rewinding
    if back is not None:  # whether or not the server carried it out: it goes on at the same checkpoint
        try:
            sequence = client.resume(bookmark.id, bookmark.token, answered=back, trace=trace)
        except SequenceLost as lost:
            if lost.reason != "CHECKPOINT_GONE":  # then it never was carried out
                raise
        else:
            return sequence, bookmark.at(sequence.next_step)
    at = bookmark.answered
    try:
        again = bookmark.at(at).since
        return client.resume(bookmark.id, bookmark.token, answered=at, inputs=again, trace=trace), bookmark
    except SequenceLost as lost:
        # A server that was lost before its first write: every input is still here, and begins anew.
        if lost.reason != "UNKNOWN_SEQUENCE" or bookmark.first or not bookmark.inputs:
            raise
        return client.sequence(bookmark.model, version=bookmark.version, trace=trace), bookmark


def catch_up(sequence: OpenSequence, bookmark: Bookmark) -> Sequence[Answer]:
    """Sends the kept inputs of the next steps, and returns their answers."""
    inputs = bookmark.since(sequence.next_step)
    if not inputs or not len(next(iter(inputs.values()))):
        return []
    return list(sequence.chunk(inputs))
