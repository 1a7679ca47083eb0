"""The sequences of a table's series while they run and are kept: which are open, and the file of each."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from tidegate.answers import Answer
from tidegate.cli import kept
from tidegate.cli.bookmark import Bookmark, Bookmarks
from tidegate.cli.table import BadTable
from tidegate.client import Client
from tidegate.columns.known_ahead import Series
from tidegate.sequence import Sequence as OpenSequence
from tidegate.trace import Trace

_WRITES = 50  # files that are written in a second, at most


class Keeping:
    """One sequence, and its file, which is kept up to date as its answers are shown."""

    def __init__(
        self,
        client: Client,
        sequence: OpenSequence,
        path: str,
        answered: int,
        now: Callable[[int], Bookmark],
        every: Callable[[], float],
    ) -> None:
        self.sequence = sequence
        self.answered = answered
        kept.keep(client, sequence, path, now(answered))
        self._bookmarks = Bookmarks(path, now, sequence.hold, every=every)

    def shown(self, answer: Answer) -> None:
        self.answered = answer.step + 1
        self._bookmarks.shown(answer.step)

    def leave(self) -> int:
        """Writes where it stands; returns how many steps were sent and are not answered."""
        return max(0, self._bookmarks.write(self.answered).sent - self.answered)


class Keeper:
    """Opens the sequence of a series at its first row, or takes it up if one of the `bookmarks` is of it.

    `path` is the file of the only one; `apart`: the folder with a file for each. `begin` opens a sequence.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        trace: Trace,
        begin: Callable[[], OpenSequence],
        bookmarks: Mapping[Series, Bookmark],
        *,
        apart: bool,
    ) -> None:
        self._client = client
        self._path = path
        self._trace = trace
        self._begin = begin
        self._bookmarks = bookmarks
        self._apart = apart
        self._open: dict[Series, Keeping] = {}
        self._last: Series = ()  # whose sequence was asked for
        self._unshown: list[tuple[Series, Answer]] = []

    def of(self, series: Series) -> OpenSequence:
        """The sequence of a series, after the last row that was sent. Raises TidegateError."""
        self._last = series
        if series not in self._open:
            sequence, answered = self._opened(series)
            path = kept.file_of(self._path, series) if self._apart else self._path
            if self._apart:
                Path(self._path).mkdir(exist_ok=True)
            now = partial(kept.bookmark, self._client, sequence, trace=self._trace, series=series)
            self._open[series] = Keeping(self._client, sequence, path, answered, now, self._every)
        return self._open[series].sequence

    def _every(self) -> float:
        return max(1.0, len(self._open) / _WRITES)

    def _opened(self, series: Series) -> tuple[OpenSequence, int]:
        """A sequence, and how many of its answers were shown."""
        if series in self._bookmarks:
            sequence, bookmark = kept.take_up(self._client, self._bookmarks[series], self._trace)
            answers = kept.catch_up(sequence, bookmark)
            self._unshown += [(series, answer) for answer in answers if answer.step >= bookmark.answered]
            return sequence, bookmark.answered
        if self._bookmarks and not (self._apart and series):
            of, held = (", ".join(each) or "no series" for each in (series, next(iter(self._bookmarks))))
            raise BadTable(f"a row is of {of}, and {self._path} keeps the sequence of {held}")
        sequence = self._begin()
        return sequence, sequence.next_step

    def unshown(self) -> Iterator[tuple[Series, Answer]]:
        """The answers to what was sent before, and not answered then."""
        for series, bookmark in self._bookmarks.items():
            if bookmark.sent > bookmark.answered:
                self.of(series)
        yield from self._unshown

    def shown(self, series: Series, answer: Answer) -> None:
        self._open[series].shown(answer)

    def leave(self, *, lost: bool = False) -> str:
        """Writes all files; returns how to go on, "" if nothing is kept.

        `lost`: but that of the sequence that was asked for last, which is left to the client that took it over.
        """
        if lost:
            self._open.pop(self._last, None)
        if not self._open:
            return ""
        unanswered = sum(keeping.leave() for keeping in self._open.values())
        steps = sum(keeping.answered for keeping in self._open.values())
        of = f" of {len(self._open)} series" if self._apart else ""
        more = f", {unanswered} more were sent and are answered first" if unanswered else ""
        verb = "step is" if steps == 1 and not of else f"steps{of} are"
        return f"{steps} {verb} answered{more}; go on with: tidegate resume {self._path}"
