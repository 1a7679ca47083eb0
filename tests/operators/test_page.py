"""What docs/operate.md tells operators to type, word for word, in its order, against a real server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import chdir, contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING

import pytest

import tidegate
from server.repository import rules
from tests.operators.test_admin import ROWS, parked, the_rest
from tests.running_server import ROOT, RunningServer
from tests.tidegate.cli.test_cli import forker
from tests.torch_models import Spec, write

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
# `python` has its module run by a fork of a process that has imported it, and ends as that does.
_ASKS = """
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
    one.connect({place!r})
    socket.send_fds(one, ["\\0".join([os.getcwd(), *sys.argv[2:]]).encode()], [0, 1, 2])
    sys.exit(one.recv(1)[0])
"""
_BY_NAME = """
python() {{ {python} -I -S {asks} "$@"; }}
tidegate() {{ python -m tidegate.cli "$@"; }}
set -e -o pipefail
"""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@contextmanager
def forks(environment: dict[str, str]) -> Iterator[Path]:
    """A script that has a module run as `python -m` runs it."""

    def run(one: socket.socket) -> None:
        with one:
            message, ends, _, _ = socket.recv_fds(one, 2**16, 3)
            folder, module, *arguments = message.decode().split("\0")
            process = forker().start(module, arguments, environment, Path(folder), (ends[0], ends[1], ends[2]))
            for end in ends:
                os.close(end)
            one.send(bytes([process.wait() % 256]))

    def serve() -> None:
        with suppress(OSError):  # it is closed
            while True:
                Thread(target=run, args=listening.accept()[:1], daemon=True).start()

    with (
        TemporaryDirectory(prefix="tidegate-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
    ):
        place, script = f"{folder}/asked", Path(folder, "asks.py")
        listening.bind(place)
        listening.listen()
        script.write_text(_ASKS.format(place=place), encoding="utf-8")
        serving = Thread(target=serve, daemon=True)
        serving.start()
        yield script
        listening.shutdown(socket.SHUT_RDWR)
        serving.join()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        write(Spec(hidden=4, seed=version), tmp_path / "models" / "weather" / str(version) / "model.onnx")
    return tmp_path / "models"


def test_every_command_of_the_page_does_what_it_says(models: Path, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'server.sqlite'}"
    (tmp_path / "old.sqlite").touch()
    with RunningServer(models, "--poll-seconds", "0.1", "--store", store) as server:
        address = server.ready().address
        id_, token, _ = parked(address, "ann", 5, "weather")
        (code,) = blocks("py")
        with redirect_stdout(StringIO()) as printed, chdir(tmp_path):
            exec(code.replace("localhost:50051", address), {"tidegate": tidegate})  # noqa: S102 - our own page
        assert printed.getvalue() == f"{id_} 3 5 ann\n"
        environment = {"TIDEGATE_SERVER": address, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        with forks(environment) as script:
            commands = _BY_NAME.format(python=sys.executable, asks=script) + "\n".join(blocks("bash"))
            done = subprocess.run(
                ["bash", "-c", commands],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=500,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f'"id": "{id_}"') == 3
        assert len(the_rest(address, id_, token, 5, version=2)) == len(ROWS) - 5
        said = rules.parsed((models / "weather" / "versions.toml").read_text(encoding="utf-8"))
    assert said.move == {3: 2, 1: 2}
    assert said.alias == {"stable": 2}


def test_the_file_of_rules_that_the_page_shows_is_one() -> None:
    (text,) = blocks("toml")
    assert rules.parsed(text).move == {3: 2, rules.REST: 2}
