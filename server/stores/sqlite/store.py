"""A store in one SQLite file, for the servers and workers of one machine."""

from pathlib import Path

from server.stores.sqlite.file import SqliteFile
from server.stores.table_store import TableStore
from server.stores.terms import Terms


class SqliteStore(TableStore):
    """See `Store`. `patience`: so long another process may hold the file, in seconds.

    Raises StoreFailed: the file cannot be opened, or is something else.
    """

    tables: SqliteFile

    def __init__(self, path: Path, terms: Terms, patience: float = 5.0) -> None:
        super().__init__(terms, SqliteFile(path, patience))
