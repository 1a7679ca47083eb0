"""Files that take the place of others: their owner's alone, and whole or not there at all."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from tidegate.files import replacing, whole


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


def test_a_file_with_as_long_a_name_as_may_be_is_written_and_of_others_their_own_name_is_said(tmp_path: Path) -> None:
    path = tmp_path / ("ö" * 127)
    with replacing(path) as file:
        file.write(b"kept")
    assert path.read_bytes() == b"kept"
    for other in (tmp_path / "none" / "file", tmp_path / ("n" * 256), path / "file"):
        with pytest.raises(OSError, match=re.escape(f"'{other}'")), replacing(other):
            pass


def test_what_could_keep_a_reader_waiting_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="it is no file, but a folder, a pipe or a device"):
            whole(path)
    (tmp_path / "file").write_text("whole")
    with whole(tmp_path / "file") as file:
        assert file.read() == b"whole"


def test_a_disk_that_is_full_is_said_of_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{path}'")), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
