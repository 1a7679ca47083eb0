"""A store in one SQLite file, for the servers and workers of one machine: `Store`'s calls as transactions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from server.stores.sqlite.file import SqliteFile
from server.stores.sqlite.table import SqliteTable
from server.stores.store import Claim, Claimed, End, Evicted, Gone, Hold, Reason, Refused, Swept, Terms, Usage, Write


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

    def claim(self, claims: Sequence[Claim], now: float, asked: float | None = None) -> list[Claimed | Gone]:
        """See `Store.claim`."""
        with self._changing(now) as table:
            return table.claim(claims, now if asked is None else asked)

    def read(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        """See `Store.read`."""
        with self._file.reading() as connection:
            table = SqliteTable(connection, now, self.terms)
            return [table.read(claim) for claim in claims]

    def hold(self, holds: Sequence[Hold], now: float) -> list[Refused]:
        """See `Store.hold`."""
        with self._changing(now) as table:
            table.look_up(hold.id for hold in holds)
            return [refused for hold in holds if (refused := table.hold(hold)) is not None]

    def end(self, ends: Sequence[End], now: float) -> list[Refused]:
        """See `Store.end`."""
        with self._changing(now) as table:
            return [refused for end in ends if (refused := table.end(end)) is not None]

    def expire(self, now: float, limit: int = 1_000) -> Swept:
        """See `Store.expire`."""
        with self._changing(now) as table:
            more = table.forget(limit)
            expired, lapsed = table.expired(limit + 1), table.lapsed(limit + 1)
            for row in expired[:limit]:
                table.bury(row, Reason.EXPIRED)
            for row in lapsed[:limit]:
                table.park(row)
            more = more or max(len(expired), len(lapsed)) > limit
            owners = frozenset(row.kept.owner for row in lapsed[:limit])
            return Swept(tuple(row.id for row in expired[:limit]), more, owners)

    def evict(self, count: int, now: float, *, owner: str | None = None) -> list[Evicted]:
        """See `Store.evict`."""
        with self._changing(now) as table:
            return [table.evict(row) for row in table.oldest(count, owner)]

    def usage(self) -> Usage:
        """See `Store.usage`."""
        with self._file.reading() as connection:
            return Usage(*connection.execute("SELECT sequences, bytes, parked FROM total").fetchone())

    def usage_of(self, owner: str) -> Usage:
        """See `Store.usage_of`."""
        with self._file.reading() as connection:
            query = "SELECT sequences, bytes, parked FROM usage WHERE owner = ?"
            return Usage(*(connection.execute(query, (owner,)).fetchone() or (0, 0)))

    def losses(self) -> int:
        """See `Store.losses`: another file is at the path."""
        with self._file.reading():
            return self._file.replaced

    def close(self) -> None:
        """See `Store.close`."""
        self._file.close()

    @contextmanager
    def _changing(self, now: float) -> Iterator[SqliteTable]:
        with self._file.writing() as connection:
            table = SqliteTable(connection, now, self.terms)
            yield table
            table.flush()
