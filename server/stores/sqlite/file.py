"""One SQLite file that is ours: opened, checked, opened again after a failure. Knows no decision of a store.

A write-ahead log that is synced with every transaction: what was said to be kept survives a power cut, not only a
killed process; and whatever a cut leaves of the log, the file opens with the transactions before it.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.errors import StoreDamaged, StoreFailed
from server.stores.sqlite.schema import INCREMENTAL, pragma, prepare
from server.stores.sqlite.table import SqliteTable

log = logging.getLogger(__name__)

SLICE = 64  # pages that are given back at a time, in some milliseconds
SPARE = 8  # a file of so many pages keeps one of them free: it will be needed again


class SqliteFile:
    """See `Tables`. `path`: made if it is not there. `patience`: so long another process may hold it, in seconds.

    Raises StoreFailed: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self.path, self._patience = path, patience
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._replaced = 0
        with self._sentences():
            if pragma(self._opened(), "auto_vacuum") != INCREMENTAL:
                log.info(
                    "the store %s was made by an earlier release, and its file never gets smaller. To change that, "
                    "stop every server and run: sqlite3 %s 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM;'",
                    path,
                    path,
                )

    @contextmanager
    def reading(self) -> Iterator[SqliteTable]:
        with self._between("BEGIN") as table:
            yield table

    @contextmanager
    def writing(self) -> Iterator[SqliteTable]:
        """A transaction during which no other connection writes: committed whole, or rolled back."""
        with self._between("BEGIN IMMEDIATE") as table:
            yield table
            table.set_aside()

    def shrink(self) -> bool:
        """Gives up to `SLICE` free pages back to the file system. Whether there are more to give back."""
        with self._sentences():
            connection = self._opened()
            names = "auto_vacuum", "page_count", "freelist_count"
            mode, pages, free = (int(str(pragma(connection, name))) for name in names)
            surplus = free - max(SLICE, pages // SPARE)
            if mode != INCREMENTAL or surplus <= 0:
                return False
            # A script, because `execute` takes one page and no more.
            connection.executescript(f"PRAGMA incremental_vacuum({min(SLICE, surplus)})")
            if surplus <= SLICE:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # only then is the file cut
            return surplus > SLICE

    def losses(self) -> int:
        """How many times there was another file at the path than before."""
        with self.reading():
            return self._replaced

    def close(self) -> None:
        """Lets go of the file; the next transaction opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # a connection that failed may fail here again
                connection.close()

    @contextmanager
    def _between(self, begin: str) -> Iterator[SqliteTable]:
        with self._sentences():
            connection = self._opened()
            connection.execute(begin)
            yield SqliteTable(connection)
        with self._sentences(committing=True):
            connection.execute("COMMIT")

    @contextmanager
    def _sentences(self, *, committing: bool = False) -> Iterator[None]:
        """What fails before its commit changes nothing; of a commit it is known only if there was no room for it."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.close()
            full = getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"
            sentence = f"the store {self.path} {_says(error, self._patience)}"
            kind = StoreDamaged if _is_damage(error) else StoreFailed
            raise kind(sentence, definite=full or not committing) from error
        except BaseException:
            self.close()  # and with it whatever a transaction had begun
            raise

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_ours():
            return self._connection
        self.close()
        _touch(self.path)
        before, self._inode = self._inode, self.path.stat().st_ino
        self._replaced += before not in (0, self._inode)
        # The thread that opens a store need not be the one that uses it.
        self._connection = sqlite3.connect(
            self.path, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        prepare(self._connection, self._patience)
        return self._connection

    def _is_ours(self) -> bool:
        """A file that was moved away or replaced would be written to for ever, and never be found again."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False


def _touch(path: Path) -> None:
    """A new file is for its owner alone: states tell what a sequence was about. SQLite gives its log the same mode.

    One that exists is not opened here: closing it would drop the locks that this process may have on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def _is_damage(error: sqlite3.Error | OSError) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_CORRUPT")


def _says(error: sqlite3.Error | OSError, patience: float) -> str:
    match getattr(error, "sqlite_errorname", None):
        case "SQLITE_BUSY" | "SQLITE_BUSY_SNAPSHOT" | "SQLITE_BUSY_RECOVERY" | "SQLITE_LOCKED":
            return f"is held by another process for more than {patience:g} s"
        case "SQLITE_FULL":
            return "cannot grow: the disk is full"
        case "SQLITE_NOTADB":
            return "is no SQLite file; nothing in it was touched"
        case "SQLITE_CANTOPEN":
            return "cannot be opened: it is no file, or not ours to read and write"
        case _ if _is_damage(error):
            how = "`python -m server store move sqlite:FILE sqlite:NEW`"
            return f"is damaged ({error}); stop the servers, and copy what is whole with {how}"
        case None if isinstance(error, sqlite3.DataError):
            return str(error)
        case None if isinstance(error, OSError):
            return f"cannot be opened: {error.strerror}"
        case name:
            return f"fails: {error} ({name})"
