"""A store in one SQLite file, for the servers and workers of one machine: `Store`'s calls as transactions."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from server.sqlite_file import SqliteFile
from server.sqlite_table import SqliteTable
from server.store import Claim, Claimed, End, Evicted, Gone, Reason, Refused, Swept, Terms, Usage, Write


class SqliteStore:
    """See `server.store.Store`. `patience`: so long another process may hold the file, in seconds.

    Raises:
        StoreFailed: the file cannot be opened, or is something else.
    """

    def __init__(self, path: Path, terms: Terms, patience: float = 5.0) -> None:
        self.terms = terms
        self._file = SqliteFile(path, patience)

    def write(self, writes: Sequence[Write], now: float) -> list[Refused]:
        """See `Store.write`."""
        with self._changing(now) as table:
            table.look_up(write.id for write in writes)
            return [refused for write in writes if (refused := table.write(write)) is not None]

    def claim(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        """See `Store.claim`."""
        with self._changing(now) as table:
            return table.claim(claims)

    def read(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        """See `Store.read`."""
        with self._file.reading() as connection:
            table = SqliteTable(connection, now, self.terms)
            return [table.read(claim) for claim in claims]

    def end(self, ends: Sequence[End], now: float) -> list[Refused]:
        """See `Store.end`."""
        with self._changing(now) as table:
            return [refused for end in ends if (refused := table.end(end)) is not None]

    def expire(self, now: float, limit: int = 1_000) -> Swept:
        """See `Store.expire`."""
        with self._changing(now) as table:
            table.forget(limit)
            rows = table.expired(limit + 1)
            for row in rows[:limit]:
                table.bury(row, Reason.EXPIRED)
            return Swept(len(rows[:limit]), len(rows) > limit)

    def evict(self, count: int, now: float, *, owner: str | None = None, spare: Collection[str] = ()) -> list[Evicted]:
        """See `Store.evict`."""
        with self._changing(now) as table:
            return [table.evict(row) for row in table.oldest(count, owner, spare)]

    def usage(self) -> Usage:
        """See `Store.usage`."""
        with self._file.reading() as connection:
            return Usage(*connection.execute("SELECT sequences, bytes FROM total").fetchone())

    def usage_of(self, owner: str) -> Usage:
        """See `Store.usage_of`."""
        with self._file.reading() as connection:
            found = connection.execute("SELECT sequences, bytes FROM usage WHERE owner = ?", (owner,)).fetchone()
            return Usage(*(found or (0, 0)))

    def close(self) -> None:
        """See `Store.close`."""
        self._file.close()

    @contextmanager
    def _changing(self, now: float) -> Iterator[SqliteTable]:
        with self._file.writing() as connection:
            table = SqliteTable(connection, now, self.terms)
            yield table
            table.flush()
