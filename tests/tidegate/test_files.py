"""Files that take the place of others: their owner's alone, and whole or not there at all."""

import os
import stat
from pathlib import Path

import pytest

from tidegate.files import replacing


def test_a_file_takes_its_place_once_it_is_whole_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("before")
    path.chmod(0o666)
    with replacing(path) as file:
        file.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_an_error_all_is_as_it_was_and_nothing_lies_beside(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half" * (1 // 0))
    assert [(one, one.read_text()) for one in tmp_path.iterdir()] == [(path, "before")]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (pipe := tmp_path / "pipe"), (link := tmp_path / "link"), (file := tmp_path / "file")
    os.mkfifo(pipe)
    file.touch()
    link.symlink_to(file)  # /dev/stdout is one
    for path in (pipe, link, tmp_path):
        with pytest.raises(OSError, match="is a link, a folder or a device"), replacing(path):
            pass
    assert (stat.S_ISFIFO(pipe.stat().st_mode), link.is_symlink()) == (True, True)
