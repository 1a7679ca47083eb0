from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from training.repository import land

if TYPE_CHECKING:
    from pathlib import Path


def test_versions_count_up_from_one(tmp_path: Path) -> None:
    found = [land(content, tmp_path, "tide") for content in (b"a", b"b", b"c")]
    assert [version.number for version in found] == [1, 2, 3]
    assert [version.path for version in found] == [tmp_path / "tide" / str(n) / "model.onnx" for n in (1, 2, 3)]
    assert [version.path.read_bytes() for version in found] == [b"a", b"b", b"c"]


def test_the_next_version_is_above_the_highest_even_if_some_are_gone(tmp_path: Path) -> None:
    for name in ("2", "10", "not-a-version", ".landing-left-by-a-kill"):
        (tmp_path / "tide" / name).mkdir(parents=True)
    assert land(b"", tmp_path, "tide").number == 11


def test_exporters_at_once_get_a_version_each(tmp_path: Path) -> None:
    contents = [str(number).encode() for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda content: land(content, tmp_path, "tide"), contents))
    assert sorted(version.number for version in found) == list(range(1, 25))
    assert [version.path.read_bytes() for version in found] == contents
    assert not list((tmp_path / "tide").glob(".*"))


def test_a_write_that_fails_leaves_no_version_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        land(b"content", tmp_path, "tide")
    assert list((tmp_path / "tide").iterdir()) == []


def test_a_server_that_runs_as_another_user_can_read_what_landed(tmp_path: Path) -> None:
    path = land(b"content", tmp_path, "tide").path
    assert path.parent.stat().st_mode & stat.S_IROTH
    assert path.parent.stat().st_mode & stat.S_IXOTH
    assert path.stat().st_mode & stat.S_IROTH
