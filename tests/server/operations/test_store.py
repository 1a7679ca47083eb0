"""`python -m server store restore`: what becomes of a store when it is interrupted, and what a terminal sees."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from server.durability.upkeep.backup import Writer
from server.errors import StoreFailed
from server.operations import store
from server.operations.store import main
from server.stores.records import Record
from server.stores.sqlite.store import SqliteStore
from server.stores.terms import Terms
from tidegate import progress

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 8_192  # bytes
NEW = [f"new{n}" for n in range(300)]


def record(id_: str) -> Record:
    return Record(id_, b"d" * 32, "token:ann", "weather", 7, 100.5, 20.0, False, (bytes(9_000),), (4,))


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """The command that restores a backup of some megabytes into a store that holds one sequence, 'old'."""
    writer, backup = Writer(), tmp_path / "backup"
    backup.write_bytes(writer.head() + writer.records(map(record, NEW)) + writer.end())
    before = SqliteStore(tmp_path / "store", Terms())
    before.put([record("old")], 1_000.0)
    before.close()
    return ["restore", f"sqlite:{tmp_path / 'store'}", str(backup)]


def kept(folder: Path) -> dict[str, Record]:
    now = SqliteStore(folder / "store", Terms())
    try:
        return {one.id: one for one in now.records(["old", *NEW], 1_000.0)}
    finally:
        now.close()


def test_an_interrupted_restore_leaves_what_was_there_and_may_be_done_again(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, put, calls = kept(tmp_path), SqliteStore.put, count()

    def fails(*given: Any) -> Any:  # noqa: ANN401 - as the store's
        if next(calls) == 1:
            raise StoreFailed("the disk is full")
        return put(*given)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_PIECE", 2**20)  # the second of three transactions fails
        patch.setattr(SqliteStore, "put", fails)
        assert main(given) == 1
    between = kept(tmp_path)
    assert len(before) < len(between) < 1 + len(NEW)
    assert between["old"].checkpoints == before["old"].checkpoints
    assert main(given) == 0
    assert kept(tmp_path).keys() == {"old", *NEW}


@pytest.mark.parametrize("terminal", [True, False])
def test_it_is_said_how_far_a_restore_and_a_move_are(
    given: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(progress, "_EVERY", 0)
    monkeypatch.setattr(progress, "_EVERY_PLAIN", 0)
    assert main(given) == 0
    assert main(["move", given[1], f"sqlite:{tmp_path / 'other'}"]) == 0
    said = capsys.readouterr().err
    assert ("\r" in said) == terminal
    lines = {line.strip() for line in re.split("[\r\n]", said)}
    assert {"300 records looked at", "300 records put", "301 records copied", "301 records looked at"} <= lines


@pytest.mark.parametrize("page", [20, 60])  # of sequences, of their checkpoints
def test_of_a_damaged_file_what_is_whole_is_moved_to_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], page: int
) -> None:
    records = {id_: replace(record(id_), checkpoints=(id_.encode() * 200,)) for id_ in (f"s{n}" for n in range(600))}
    old, new = SqliteStore(tmp_path / "old", Terms()), SqliteStore(tmp_path / "new", Terms())
    old.put([*records.values()], 1_000.0)
    old.close()
    with (tmp_path / "old").open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"\xff" * PAGE)
    assert main(["move", f"sqlite:{tmp_path / 'old'}", f"sqlite:{tmp_path / 'new'}"]) == 1
    assert "what was whole is copied; what could not be read is not" in capsys.readouterr().err
    moved = {one.id: one.checkpoints for one in new.records([*records], 1_000.0)}
    new.close()
    assert 500 <= len(moved) < 600
    assert moved == {id_: records[id_].checkpoints for id_ in moved}
