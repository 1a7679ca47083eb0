"""One SQLite file that is ours: opened, checked, opened again after a failure. Knows no call of a store.

A write-ahead log that is synced with every transaction: what was said to be kept survives a power cut, not only a
killed process; and whatever a cut leaves of the log, the file opens with the transactions before it.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from server.errors import StoreFailed

log = logging.getLogger(__name__)

APPLICATION = 0x54474350  # "TGCP", SQLite's application_id
SCHEMA = 4  # SQLite's user_version
INCREMENTAL = 2  # SQLite's auto_vacuum: free pages are given back when that is asked for
SLICE = 64  # pages that are given back at a time, in some milliseconds
SPARE = 8  # a file of so many pages keeps one of them free: it will be needed again

TABLES = """
CREATE TABLE sequence (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  digest BLOB NOT NULL,
  owner TEXT NOT NULL,
  model TEXT NOT NULL,
  fence INTEGER NOT NULL,
  touched REAL NOT NULL, -- when its owner last said whether it is awake, in the store's time
  slots BLOB NOT NULL,   -- what `places.py` packs: which step is in which slot
  awake INTEGER NOT NULL -- 1, or 0 for one that is parked
);
CREATE INDEX sequence_awake ON sequence (touched) WHERE awake = 1;
CREATE INDEX sequence_parked ON sequence (touched) WHERE awake = 0;
CREATE INDEX sequence_parked_of ON sequence (owner, touched) WHERE awake = 0;
CREATE TABLE checkpoint (
  key INTEGER PRIMARY KEY, -- 256 x the sequence's + the slot: those of a sequence are neighbours, and stay in place
  data BLOB NOT NULL
);
CREATE TABLE tombstone (
  id TEXT PRIMARY KEY,
  digest BLOB NOT NULL,
  fence INTEGER NOT NULL,
  reason TEXT NOT NULL,
  model TEXT NOT NULL,
  step INTEGER,
  until REAL NOT NULL,
  owner TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX tombstone_until ON tombstone (until);
CREATE INDEX tombstone_of ON tombstone (owner, until);
CREATE TABLE usage (
  owner TEXT PRIMARY KEY,
  sequences INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  parked INTEGER NOT NULL,
  tombstones INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX usage_parked ON usage (parked);
CREATE TABLE total (
  sequences INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  parked INTEGER NOT NULL,
  tombstones INTEGER NOT NULL DEFAULT 0,
  time REAL -- of the store, see `observed.py`
);
CREATE TABLE damaged AS SELECT * FROM sequence WHERE 0 -- what means nothing; its checkpoints stay
;
INSERT INTO total VALUES (0, 0, 0, 0, NULL);
"""

_COUNTED = (
    "WHEN {change} <> 0 BEGIN INSERT INTO address VALUES (substr({row}.owner, 1, instr({row}.owner || ' ', ' ') - 1), "
    "{change}) ON CONFLICT (address) DO UPDATE SET parked = parked + excluded.parked; "
    "DELETE FROM address WHERE parked = 0; END;"
)
# How many are parked of all owners of an address, which is what stands before the first space of an owner.
ADDRESSES = f"""
CREATE TABLE address (address TEXT PRIMARY KEY, parked INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX address_parked ON address (parked);
CREATE TRIGGER added AFTER INSERT ON usage {_COUNTED.format(row="new", change="new.parked")}
CREATE TRIGGER changed AFTER UPDATE OF parked ON usage {_COUNTED.format(row="new", change="new.parked - old.parked")}
CREATE TRIGGER removed AFTER DELETE ON usage {_COUNTED.format(row="old", change="-old.parked")}
"""

# From schema 1, which did not tell who is awake. All count as parked until their owners write again.
SINCE_1 = """
ALTER TABLE sequence ADD COLUMN awake INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
UPDATE usage SET parked = sequences;
UPDATE total SET parked = sequences;
DROP INDEX sequence_touched;
DROP INDEX sequence_owner;
CREATE INDEX sequence_awake ON sequence (touched) WHERE awake = 1;
CREATE INDEX sequence_parked ON sequence (touched) WHERE awake = 0;
CREATE INDEX sequence_parked_of ON sequence (owner, touched) WHERE awake = 0;
"""

# From schema 2, which had no time of its own, and counted no tombstones.
SINCE_2 = """
ALTER TABLE tombstone ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE usage ADD COLUMN tombstones INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN tombstones INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN time REAL;
CREATE INDEX tombstone_of ON tombstone (owner, until);
CREATE INDEX usage_parked ON usage (parked);
CREATE TABLE damaged AS SELECT * FROM sequence WHERE 0;
INSERT OR IGNORE INTO usage VALUES ('', 0, 0, 0, 0);
UPDATE usage SET tombstones = (SELECT count(*) FROM tombstone) WHERE owner = '';
UPDATE total SET tombstones = (SELECT count(*) FROM tombstone), time = (SELECT max(touched) FROM sequence);
"""

# From schema 3, which did not count by address.
SINCE_3 = f"""{ADDRESSES}
INSERT INTO address
  SELECT substr(owner, 1, instr(owner || ' ', ' ') - 1), sum(parked) FROM usage WHERE parked > 0 GROUP BY 1;
"""  # noqa: S608 - ours


class SqliteFile:
    """`path`, made if it is not there. `patience`: so long another process may hold it, in seconds.

    Raises StoreFailed: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self.path, self._patience = path, patience
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self.replaced = 0  # how many times there was another file at the path than before
        with self._sentences():
            if _pragma(self._opened(), "auto_vacuum") != INCREMENTAL:
                log.info(
                    "the store %s was made by an earlier release, and its file never gets smaller. To change that, "
                    "stop every server and run: sqlite3 %s 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM;'",
                    path,
                    path,
                )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._between("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside: kept whole, or not at all."""
        with self._between("BEGIN IMMEDIATE") as connection:
            yield connection

    def shrink(self) -> bool:
        """Gives up to `SLICE` free pages back to the file system. Whether there are more to give back."""
        with self._sentences():
            connection = self._opened()
            names = "auto_vacuum", "page_count", "freelist_count"
            mode, pages, free = (int(str(_pragma(connection, name))) for name in names)
            surplus = free - max(SLICE, pages // SPARE)
            if mode != INCREMENTAL or surplus <= 0:
                return False
            # A script, because `execute` takes one page and no more.
            connection.executescript(f"PRAGMA incremental_vacuum({min(SLICE, surplus)})")
            if surplus <= SLICE:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # only then is the file cut
            return surplus > SLICE

    def close(self) -> None:
        """Lets go of the file; the next transaction opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # a connection that failed may fail here again
                connection.close()

    @contextmanager
    def _between(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._sentences():
            connection = self._opened()
            connection.execute(begin)
            yield connection
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
            raise StoreFailed(sentence, definite=full or not committing) from error
        except BaseException:
            self.close()  # and with it whatever a transaction had begun
            raise

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_ours():
            return self._connection
        self.close()
        _touch(self.path)
        before, self._inode = self._inode, self.path.stat().st_ino
        self.replaced += before not in (0, self._inode)
        # The thread that opens a store need not be the one that uses it.
        self._connection = sqlite3.connect(
            self.path, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        _prepare(self._connection, self._patience)
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


def _prepare(connection: sqlite3.Connection, patience: float) -> None:
    connection.execute("BEGIN")  # one view of both, while another process may be making it
    ours, empty = _pragma(connection, "application_id") == APPLICATION, _is_empty(connection)
    connection.execute("COMMIT")
    if not ours:
        if not empty:
            raise sqlite3.DataError("is a SQLite file of something else; nothing in it was touched")
        connection.execute("PRAGMA page_size = 8192")  # room for three states of a 2 x 128 LSTM
        connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        _log_ahead(connection, patience)
        _create(connection)
    for version, statements in enumerate((SINCE_1, SINCE_2, SINCE_3), start=1):
        if _pragma(connection, "user_version") == version:
            _bring_up_to_date(connection, version, statements)
    if (schema := _pragma(connection, "user_version")) != SCHEMA:
        raise sqlite3.DataError(f"is of schema {schema}; this server reads schema {SCHEMA}")
    connection.text_factory = lambda text: text.decode(errors="replace")  # one damaged name stops nobody else
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA cache_size = -16384")  # KiB


def _log_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Asks for the write-ahead log. SQLite does not wait here while another process does the same, so we do."""
    deadline = monotonic() + patience
    while True:
        try:
            mode = _pragma(connection, "journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            sleep(0.01)
        else:
            break
    if mode != "wal":
        raise sqlite3.DataError("is on a file system without shared memory, such as a network's; expected a local one")


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if _is_empty(connection):  # else another process was faster
        _run(connection, TABLES + ADDRESSES)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    connection.execute("COMMIT")


def _bring_up_to_date(connection: sqlite3.Connection, version: int, statements: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if _pragma(connection, "user_version") == version:  # else another process was faster
        _run(connection, statements)
        connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.strip().removesuffix(";").split(";\n"):
        connection.execute(statement)


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


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
        case "SQLITE_CORRUPT":
            return f"is damaged ({error}); stop the servers and let `sqlite3 FILE .recover` rescue what is whole"
        case None if isinstance(error, sqlite3.DataError):
            return str(error)
        case None if isinstance(error, OSError):
            return f"cannot be opened: {error.strerror}"
        case name:
            return f"fails: {error} ({name})"
