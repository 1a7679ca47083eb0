"""What a file, a disk and other processes can do to the store in SQLite."""

from __future__ import annotations

import math
import multiprocessing
import re
import shutil
import sqlite3
import stat
import struct
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.durability.checkpoint import Checkpoint, decode, encode
from server.errors import StoreFailed
from server.stores.sqlite.file import SLICE
from server.stores.sqlite.store import SqliteStore
from server.stores.store import Claim, Claimed, Creation, End, Gone, Hold, Reason, Usage, Write
from server.stores.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Iterator

TERMS = Terms(keep=2, retention=100.0, tombstone=50.0, gap=math.inf)
NOW = 1_700_000_000.0
TOKEN = bytes(32)
CREATION = Creation(TOKEN, "ann", "recall")
IDS = ["a", "b", "c", "d", "e"]
KEPT = Path(__file__).parent / "kept" / "schema_2.sqlite"
PAGE, FRAME, LOG_HEADER = 8_192, 8_192 + 24, 32  # bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tidegate.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, TERMS, patience=0.01)
    yield store
    store.close()


def saved(step: int) -> bytes:
    return encode(Checkpoint("recall", 1, "1f" * 32, step, np.full(512, step, np.float32)))


def write(store: SqliteStore, step: int, ids: list[str] = IDS) -> None:
    assert store.write([Write(id_, 1, step, saved(step), CREATION) for id_ in ids], NOW) == []


def read(store: SqliteStore) -> set[int | None]:
    """The newest step of every sequence, each of its checkpoints whole; None for one that is unknown."""
    found: set[int | None] = set()
    for answer in store.read([Claim(id_, TOKEN) for id_ in IDS], NOW):
        if isinstance(answer, Claimed):
            kept = [decode(data) for data in answer.checkpoints]
            assert all(np.array_equal(c.state, np.full(512, c.step, np.float32)) for c in kept)
            found.add(kept[0].step)
        else:
            assert answer == Gone(Reason.UNKNOWN)
            found.add(None)
    return found


# A power cut


@dataclass(frozen=True)
class Files:
    """What a disk holds at a moment."""

    main: bytes
    log: bytes

    @classmethod
    def of(cls, path: Path) -> Files:
        return cls(path.read_bytes(), path.with_name(path.name + "-wal").read_bytes())

    def opened(self, folder: Path) -> SqliteStore:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "tidegate.db").write_bytes(self.main)
        (folder / "tidegate.db-wal").write_bytes(self.log)
        return SqliteStore(folder / "tidegate.db", TERMS)


def boundaries(size: int, header: int, block: int) -> list[int]:
    """Every boundary of blocks, and places within each."""
    starts = range(header, size, block)
    return sorted({0, header // 2, size, *(start + part for start in starts for part in (0, 1, 24, block // 2))})


def checked(store: SqliteStore) -> int:
    """The step that all sequences stand at, -1 for none, once the store has shown that it can also go on."""
    (step,) = read(store)
    assert store.usage().sequences == (0 if step is None else len(IDS))
    write(store, 1_000)
    assert read(store) == {1_000}
    store.close()
    connection = sqlite3.connect(store.tables.path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return -1 if step is None else step


def test_a_log_that_is_cut_anywhere_leaves_every_sequence_at_one_earlier_checkpoint(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    for step in range(5):
        write(store, step)
    files = Files.of(path)
    found = [
        checked(Files(files.main, files.log[:cut]).opened(tmp_path / "cut"))
        for cut in boundaries(len(files.log), LOG_HEADER, FRAME)
    ]
    assert found == sorted(found)
    assert set(found) == {-1, 0, 1, 2, 3, 4}


def test_a_cut_while_the_log_is_carried_over_into_the_file_loses_nothing(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    for step in range(5):
        write(store, step)
    before = Files.of(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0] == 0
    after = Files.of(path)
    assert after.log == before.log
    assert len(after.main) > len(before.main)
    for cut in boundaries(len(after.main), 0, PAGE):
        half = Files(after.main[:cut] + before.main[cut:], before.log)
        assert checked(half.opened(tmp_path / "cut")) == 4
    connection.close()


def test_a_cut_while_the_log_begins_anew_over_its_old_contents_loses_only_what_was_being_written(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    for step in range(5):
        write(store, step)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0] == 0
    connection.close()
    old = Files.of(path)
    for step in (5, 6):
        write(store, step)
    new = Files.of(path)
    assert new.main == old.main
    assert new.log[:LOG_HEADER] != old.log[:LOG_HEADER]
    found = [
        checked(Files(old.main, new.log[:cut] + old.log[cut:]).opened(tmp_path / "cut"))
        for cut in boundaries(len(new.log), LOG_HEADER, FRAME)
    ]
    assert found == sorted(found)
    assert set(found) == {4, 5, 6}


def test_a_file_in_which_nothing_was_written_yet_becomes_a_store(path: Path) -> None:
    path.touch()
    assert checked(SqliteStore(path, TERMS)) == -1


def test_every_transaction_is_synced(store: SqliteStore) -> None:
    with store.tables.reading() as table:
        assert table.connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert table.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# The file


def test_only_its_owner_can_read_a_new_file_and_its_log(store: SqliteStore, path: Path) -> None:
    write(store, 1)
    for file in (path, path.with_name(path.name + "-wal")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_database_of_something_else_is_refused_and_left_as_it_was(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photographs (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreFailed, match="is a SQLite file of something else; nothing in it was touched"):
        SqliteStore(path, TERMS)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(path: Path) -> None:
    path.write_text("a list of things to do\n" * 100, encoding="utf-8")
    with pytest.raises(StoreFailed, match=re.escape(f"the store {path} is no SQLite file; nothing in it was touched")):
        SqliteStore(path, TERMS)
    assert path.read_text(encoding="utf-8") == "a list of things to do\n" * 100


def test_a_file_of_a_later_schema_is_refused(store: SqliteStore, path: Path) -> None:
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 5")
    connection.close()
    with pytest.raises(StoreFailed, match="is of schema 5; this server reads schema 4"):
        SqliteStore(path, TERMS)


SCHEMA_1 = """
CREATE TABLE sequence (
  key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL,
  fence INTEGER NOT NULL, touched REAL NOT NULL, slots BLOB NOT NULL
);
CREATE INDEX sequence_touched ON sequence (touched);
CREATE INDEX sequence_owner ON sequence (owner, touched);
CREATE TABLE checkpoint (key INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE tombstone (
  id TEXT PRIMARY KEY, digest BLOB NOT NULL, fence INTEGER NOT NULL, reason TEXT NOT NULL, model TEXT NOT NULL,
  step INTEGER, until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX tombstone_until ON tombstone (until);
CREATE TABLE usage (owner TEXT PRIMARY KEY, sequences INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE total (sequences INTEGER NOT NULL, bytes INTEGER NOT NULL);
PRAGMA application_id = 0x54474350;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""


def of_schema_1(path: Path) -> None:
    """A store as it was before it told who is awake: `ann` has two sequences, `bob` one."""
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_1)
    for key, (id_, owner) in enumerate([("a", "ann"), ("b", "ann"), ("c", "bob")], start=1):
        slots = struct.pack("<2q", 7, len(saved(7)))
        sequence = (key, id_, TOKEN, owner, "recall", 1, NOW + key, slots)
        connection.execute("INSERT INTO sequence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", sequence)
        connection.execute("INSERT INTO checkpoint VALUES (?, ?)", (256 * key, saved(7)))
    size = len(saved(7))
    connection.execute("INSERT INTO tombstone VALUES ('d', ?, 1, 'ended', 'recall', 5, ?)", (TOKEN, NOW + 50))
    connection.executemany("INSERT INTO usage VALUES (?, ?, ?)", [("ann", 2, 2 * size), ("bob", 1, size)])
    connection.execute("INSERT INTO total VALUES (3, ?)", (3 * size,))
    connection.commit()
    connection.close()


def layout(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """The columns of all tables and indexes."""
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    found = {
        name: connection.execute("SELECT name, type FROM pragma_table_info(?)", (name,)).fetchall() for name in names
    }
    connection.close()
    return found


def test_a_file_of_the_schema_before_is_brought_up_to_date_and_what_was_open_is_awake_with_its_next_write(
    path: Path, tmp_path: Path
) -> None:
    of_schema_1(path)
    store = SqliteStore(path, TERMS)
    size = len(saved(7))
    assert (store.usage(), store.usage("ann")) == (Usage(3, 3 * size, 3), Usage(2, 2 * size, 2))
    assert store.read([Claim("d", TOKEN)], NOW) == [Gone(Reason.ENDED, "recall", 5)]
    assert store.write([Write("a", 1, 8, saved(8))], NOW + 5) == []
    assert store.usage("ann").parked == 1
    assert [victim.id for victim in store.evict(5, NOW + 5)] == ["b", "c"]
    store.close()
    SqliteStore(tmp_path / "new", TERMS).close()
    assert layout(path) == layout(tmp_path / "new")
    again = SqliteStore(path, TERMS)
    assert again.usage() == Usage(1, size + len(saved(8)))
    again.close()


@pytest.mark.parametrize("schema", [2, 3])
def test_a_file_that_a_release_before_wrote_is_read_and_its_sequences_go_on(path: Path, schema: int) -> None:
    shutil.copy(KEPT.with_stem(f"schema_{schema}"), path)
    store = SqliteStore(path, Terms(keep=2))
    found = store.read([Claim(id_, TOKEN) for id_ in ("awake", "parked", "of bob", "ended", "evicted")], NOW + 200)
    steps = [[decode(data).step for data in one.checkpoints] for one in found if isinstance(one, Claimed)]
    assert steps == [[192, 128], [64], [7]]
    assert found[3:] == [Gone(Reason.ENDED, "recall", 5), Gone(Reason.EVICTED, "recall", 5)]
    assert (store.usage().sequences, store.usage().parked, store.usage().tombstones) == (3, 2, 2)
    fence = int((NOW + 201) * 1_000)
    assert store.claim([Claim("awake", TOKEN)], NOW + 201) == [fence]
    (taken,) = store.read([Claim("awake", TOKEN)], NOW + 201)
    assert isinstance(taken, Claimed)
    assert (taken.fence, taken.owner) == (fence, "ann")
    assert store.write([Write("awake", fence, 200, saved(200))], NOW + 202) == []
    assert store.expire(NOW + 86_400 * 400).expired == ()
    assert [one.id for one in store.evict(9, NOW + 203)] == ["parked", "of bob"]
    assert (store.forget(9, NOW + 203), store.usage().tombstones) == (4, 0)
    store.close()


def spoil(path: Path, change: str, id_: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE sequence SET {change} WHERE id = ?", (id_,))  # noqa: S608 - ours
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "damage",
    ["slots = x'0102'", "slots = 7", "touched = 'soon'", "digest = 5", "model = x'ff'", "fence = 'x'", "awake = 'x'"],
)
def test_a_damaged_row_is_set_aside_said_once_and_the_others_expire(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    write(store, 1)
    store.hold([Hold(id_, 1, awake=False) for id_ in IDS], NOW)
    spoil(path, damage, "c")
    claims = [Claim(id_, TOKEN) for id_ in IDS]
    assert [isinstance(answer, Claimed) for answer in store.read(claims, NOW)] == [True, True, False, True, True]
    swept = [*store.expire(NOW + 50).expired, *store.expire(NOW + 100).expired]
    store.write([Write("c", 1, 1, saved(1), CREATION)], NOW + 100)
    assert store.expire(NOW + 101).expired == ()
    assert swept == ["a", "b", "d", "e"]
    assert store.usage() == store.usage("ann") == Usage(1, len(saved(1)))
    assert store.usage().tombstones == store.usage("ann").tombstones == 4
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT key, id FROM damaged").fetchall() == [(3, "c")]
    connection.close()


@pytest.mark.parametrize("name", ["missing/tidegate.db", "."])
def test_a_path_where_no_file_can_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreFailed, match=r"cannot be opened: (No such file or directory|it is no file)"):
        SqliteStore(tmp_path / name, TERMS)


def test_a_file_that_was_taken_away_is_not_written_to_unseen(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    write(store, 1)
    path.rename(tmp_path / "moved")
    path.with_name(path.name + "-wal").rename(tmp_path / "moved-wal")
    path.with_name(path.name + "-shm").unlink()
    write(store, 2)
    for file, step in ((tmp_path / "moved", 1), (path, 2)):
        with closing(SqliteStore(file, TERMS)) as other:
            assert read(other) == {step}


def test_a_full_disk_is_said_and_what_was_kept_stays(store: SqliteStore) -> None:
    write(store, 1)
    with store.tables.reading() as table:
        (pages,) = table.connection.execute("PRAGMA page_count").fetchone()
        table.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFailed, match="cannot grow: the disk is full"):
        store.write([Write("large", 1, 0, bytes(2**20), CREATION)], NOW)
    assert read(store) == {1}
    write(store, 2)  # with a connection of its own, on a disk with room
    assert read(store) == {2}


def test_a_damaged_file_is_said_to_be_damaged(store: SqliteStore, path: Path) -> None:
    write(store, 1)
    store.close()
    content = bytearray(path.read_bytes())
    content[PAGE : 3 * PAGE] = bytes(2 * PAGE)
    path.write_bytes(content)
    with pytest.raises(StoreFailed, match="is damaged"):
        read(SqliteStore(path, TERMS))


def test_the_file_of_sequences_that_come_and_go_does_not_grow(store: SqliteStore, path: Path) -> None:
    sizes = []
    for turn in range(6):
        for step in range(4):
            write(store, step)
        store.hold([Hold(id_, 1, awake=False) for id_ in IDS], NOW)
        store.evict(len(IDS), NOW)
        store.expire(NOW + 50)
        store.close()  # the log is carried over
        sizes.append(path.stat().st_size)
        assert store.usage() == Usage(0, 0), turn
    assert sizes[1:] == sizes[1:2] * 5


def test_a_file_gets_smaller_in_small_slices_once_most_of_it_is_gone(store: SqliteStore, path: Path) -> None:
    ids = [str(n) for n in range(600)]
    store.write([Write(id_, 1, 1, bytes(6_000), CREATION) for id_ in ids], NOW)
    store.close()  # the log is carried over
    peak = path.stat().st_size
    store.end([End(id_, 1, Reason.ENDED) for id_ in ids[100:]], NOW)
    sizes = [pages(path)]
    while store.shrink():
        sizes.append(pages(path))
    sizes.append(pages(path))
    assert max(before - after for before, after in pairwise(sizes)) <= SLICE + 1
    assert path.stat().st_size == sizes[-1] * PAGE < peak / 3
    assert not store.shrink()
    assert [len(one.checkpoints) for one in store.read([Claim(id_, TOKEN) for id_ in ids[:100]], NOW)] == [1] * 100  # type: ignore[union-attr]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def pages(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])


def test_a_file_of_an_earlier_release_stays_as_large_as_it_is_and_that_is_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shutil.copy(KEPT, path)
    store = SqliteStore(path, TERMS)
    assert not store.shrink()
    store.close()
    assert f"its file never gets smaller. To change that, stop every server and run: sqlite3 {path}" in caplog.text
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")
    caplog.clear()
    store = SqliteStore(path, TERMS)
    assert store.usage().sequences == 3
    store.close()
    assert not caplog.text


# Other processes


def test_a_file_that_another_holds_is_waited_for_and_said_and_taken_once_it_is_free(
    store: SqliteStore, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailed, match=re.escape("is held by another process for more than 0.01 s")):
        write(store, 1)
    assert read(store) == {None}
    other.execute("ROLLBACK")
    write(store, 1)
    assert read(store) == {1}
    other.close()


def worked(path: Path, worker: int, barrier: multiprocessing.Barrier) -> None:  # type: ignore[valid-type] # a function
    barrier.wait()
    store = SqliteStore(path, TERMS)
    for step in range(20):
        store.write([Write("shared", 1, worker * 100 + step, b"", CREATION)], NOW)
        store.write([Write(f"{worker}", 1, step, saved(step), Creation(TOKEN, f"{worker}", "recall"))], NOW)
        store.claim([Claim("claimed", TOKEN), Claim(f"{worker}", bytes(31))], NOW + step)
    store.close()


def test_processes_that_make_the_file_at_the_same_time_share_it(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=worked, args=(path, worker, barrier)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with closing(SqliteStore(path, TERMS)) as store:
        assert store.usage().sequences == 4
        for worker in range(3):
            assert store.usage(f"{worker}") == Usage(1, 2 * len(saved(0)))


# What was lost, and which failures are definite


def test_a_file_that_was_replaced_is_seen_at_once_as_data_that_was_lost(store: SqliteStore, path: Path) -> None:
    write(store, 1)
    store.close()
    for times in (1, 2):
        path.rename(path.with_name(f"moved{times}"))
        assert (store.losses(), read(store)) == (times, {None})


def test_a_full_disk_and_a_file_that_is_held_are_definite_failures(store: SqliteStore, path: Path) -> None:
    write(store, 1)
    with store.tables.reading() as table:
        (pages,) = table.connection.execute("PRAGMA page_count").fetchone()
        table.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFailed) as full:
        store.write([Write("large", 1, 0, bytes(2**20), CREATION)], NOW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailed) as held:
        write(store, 2)
    other.close()
    assert (full.value.definite, held.value.definite) == (True, True)


def test_of_a_commit_that_fails_it_is_not_known_whether_it_was_kept(store: SqliteStore) -> None:
    with pytest.raises(StoreFailed) as failed, store.tables.writing() as table:
        table.connection.execute("COMMIT")  # the one that follows finds no transaction
    assert not failed.value.definite
