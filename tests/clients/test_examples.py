"""The examples in other languages, each run as its head says: `make test-clients` needs node and npm."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.running_server import ROOT, RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = "0.8,1,0\n-0.5,0,0\n0.1,0,1\n"


@pytest.fixture(scope="module", params=["http2", "grpc"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with RunningServer(ROOT / "models", "--transport", request.param) as server:
        yield server.ready().address


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in JavaScript with its packages, and `buf` beside them."""
    folder = shutil.copytree(ROOT / "examples" / "node", tmp_path_factory.mktemp("node") / "example")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, timeout=300)
    subprocess.run([*install, "--no-save", "@bufbuild/buf"], cwd=folder, check=True, timeout=300)
    return folder


def run(*command: object, folder: Path, sent: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "TIDEGATE_PROTO": str(ROOT / "proto"),
        "PATH": f"{folder / 'node_modules' / '.bin'}:{os.environ['PATH']}",
    }
    return subprocess.run(
        list(map(str, command)),
        cwd=folder, env=environment, input=sent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def printed(*command: object, folder: Path, sent: str = "") -> str:
    done = run(*command, folder=folder, sent=sent)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_sequence_is_followed_in_javascript(node: Path, address: str) -> None:
    assert printed("node", "follow.js", address, "recall", folder=node, sent=ROWS) == "0: 0.00\n1: 0.00\n2: 0.83\n"


def test_a_refusal_is_said_in_javascript(node: Path, address: str) -> None:
    done = run("node", "follow.js", address, "recall", folder=node, sent="0.8,1\n")
    assert (done.returncode, done.stderr) == (1, "input 'x' has shape [1, 2]; expected [steps, 3]\n")


def test_three_steps_are_taken_with_buf_curl(node: Path, address: str) -> None:
    said = printed("sh", ROOT / "examples" / "buf_curl.sh", f"http://{address}", "recall", folder=node)
    assert '"closed"' in said
    assert "0.83" in said
