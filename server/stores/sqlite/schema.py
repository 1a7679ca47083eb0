"""The tables of the file, made or brought up to date from earlier schemas, and the settings of a connection."""

import sqlite3
from time import monotonic, sleep

APPLICATION = 0x54474350  # "TGCP", SQLite's application_id
SCHEMA = 4  # SQLite's user_version
INCREMENTAL = 2  # SQLite's auto_vacuum: free pages are given back when that is asked for

TABLES = """
CREATE TABLE sequence (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  digest BLOB NOT NULL,
  owner TEXT NOT NULL,
  model TEXT NOT NULL,
  fence INTEGER NOT NULL,
  touched REAL NOT NULL, -- when its owner last said whether it is awake, in the store's time
  slots BLOB NOT NULL,   -- a packed `CheckpointIndex`
  awake INTEGER NOT NULL -- 1, or 0 for one that is parked
);
CREATE INDEX sequence_awake ON sequence (touched) WHERE awake = 1;
CREATE INDEX sequence_parked ON sequence (touched) WHERE awake = 0;
CREATE INDEX sequence_parked_of ON sequence (owner, touched) WHERE awake = 0;
CREATE TABLE checkpoint (
  key INTEGER PRIMARY KEY, -- 256 x the sequence's + the number in its index, so that those of a sequence are neighbours
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

# From schema 1, which did not tell which sequences are awake. All count as parked until their servers write again.
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


def prepare(connection: sqlite3.Connection, patience: float) -> None:
    """Raises sqlite3.Error: it is none of ours, of a later release, or cannot be written."""
    connection.execute("BEGIN")  # one view of both, while another process may be making it
    ours, empty = pragma(connection, "application_id") == APPLICATION, _is_empty(connection)
    connection.execute("COMMIT")
    if not ours:
        if not empty:
            raise sqlite3.DataError("is a SQLite file of something else; nothing in it was touched")
        connection.execute("PRAGMA page_size = 8192")  # room for three states of a 2 x 128 LSTM
        connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        _log_ahead(connection, patience)
        _create(connection)
    for version, statements in enumerate((SINCE_1, SINCE_2, SINCE_3), start=1):
        if pragma(connection, "user_version") == version:
            _bring_up_to_date(connection, version, statements)
    if (schema := pragma(connection, "user_version")) != SCHEMA:
        raise sqlite3.DataError(f"is of schema {schema}; this server reads schema {SCHEMA}")
    connection.text_factory = lambda text: text.decode(errors="replace")  # one damaged name does not stop the others
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA cache_size = -16384")  # KiB


def _log_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Asks for the write-ahead log. SQLite does not wait here while another process does the same, so we do."""
    deadline = monotonic() + patience
    while True:
        try:
            mode = pragma(connection, "journal_mode = WAL")
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
    if pragma(connection, "user_version") == version:  # else another process was faster
        _run(connection, statements)
        connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.strip().removesuffix(";").split(";\n"):
        connection.execute(statement)


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]
