"""The server on a Unix socket, over both transports."""

from __future__ import annotations

import signal
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

import tidegate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.running_server import RunningServer


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: one of a Unix socket has at most 107 bytes."""
    with TemporaryDirectory(prefix="tidegate-") as folder:
        yield Path(folder, "socket")


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_it_is_this_user_s_alone_replaces_one_that_was_left_and_is_removed_at_the_end(
    start: Callable[..., RunningServer], place: Path, tmp_path: Path, transport: str
) -> None:
    arguments = ["--host", f"unix:{place}", "--transport", transport]
    first = start(tmp_path, *arguments).ready()
    assert first.address == f"unix:{place}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    second = start(tmp_path, *arguments)
    assert second.wait() == 1
    assert f"cannot listen on unix:{place}: another server listens on {place}" in second.log
    with tidegate.connect(first.address, timeout=120) as client:
        assert client.models() == ()
    first.process.send_signal(signal.SIGKILL)
    first.wait()
    assert place.exists()
    third = start(tmp_path, *arguments).ready()
    with tidegate.connect(third.address, timeout=120) as client:
        assert client.models() == ()
    third.terminate()
    assert third.wait() == 0
    assert not place.exists()


def test_another_kind_of_file_is_left_as_it_is(
    start: Callable[..., RunningServer], place: Path, tmp_path: Path
) -> None:
    place.write_text("mine")
    server = start(tmp_path, "--host", f"unix:{place}")
    assert server.wait() == 1
    assert f"{place} is there and is no socket" in server.log
    assert place.read_text() == "mine"


def test_several_workers_cannot_share_one(start: Callable[..., RunningServer], place: Path, tmp_path: Path) -> None:
    server = start(tmp_path, "--host", f"unix:{place}", "--workers", "2", "--store", f"sqlite:{place}.sqlite")
    assert server.wait() == 2
    assert "a Unix socket is of one process alone" in server.log
