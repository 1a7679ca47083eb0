"""A store in one SQLite file, for the servers and workers of one machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.stores.sqlite.file import SqliteFile
from server.stores.sqlite.table import SqliteTable
from server.stores.table_store import TableStore
from server.stores.terms import Terms


class SqliteStore(TableStore):
    """See `Store`. `patience`: so long another process may hold the file, in seconds.

    Raises StoreFailed: the file cannot be opened, or is something else.
    """

    def __init__(self, path: Path, terms: Terms, patience: float = 5.0) -> None:
        self._file = SqliteFile(path, patience)
        super().__init__(terms, _Tables(self._file))


class _Tables:
    """See `Tables`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self.close, self.shrink, self.losses = file.close, file.shrink, file.losses

    @contextmanager
    def reading(self) -> Iterator[SqliteTable]:
        with self._file.reading() as connection:
            yield SqliteTable(connection)

    @contextmanager
    def writing(self) -> Iterator[SqliteTable]:
        with self._file.writing() as connection:
            table = SqliteTable(connection)
            yield table
            table.set_aside()
