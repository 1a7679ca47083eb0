"""A client in JavaScript (grpc-js) on each transport: `make test-clients` needs node and npm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.running_server import ROOT, RunningServer
from tests.security.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, with the packages that it needs beside it."""
    folder = shutil.copytree(HERE, tmp_path_factory.mktemp("node") / "client")
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=300)
    return folder / "client.js"


@pytest.fixture(scope="module", params=["http2", "grpc", "http2 with TLS", "grpc with TLS"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    transport, _, tls = request.param.partition(" with ")
    authority = Authority(tmp_path_factory.mktemp("tls"))
    given = authority.options() if tls else []
    with (
        pytest.MonkeyPatch.context() as patched,
        RunningServer(ROOT / "models", "--transport", transport, *given) as server,
    ):
        if tls:
            patched.setenv("TIDEGATE_CA", str(authority.file))
        yield server.ready()


def command(script: Path, server: RunningServer, case: str) -> list[str]:
    address = server.address.replace("127.0.0.1", "localhost")  # node wants no number for a name in TLS
    return ["node", str(script), address, str(ROOT / "proto"), case]


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("unary", "recall"),
        ("deadline", "DEADLINE_EXCEEDED"),
        ("cancel", "CANCELLED"),
        ("steps", "OK 2002"),
        ("late", "OK 5002"),
        ("large", "20000"),
    ],
)
def test_a_client_in_javascript_is_served(script: Path, server: RunningServer, case: str, outcome: str) -> None:
    done = subprocess.run(command(script, server, case), capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == (outcome, "")


def test_a_client_in_javascript_sees_the_end_of_a_server_that_stops(script: Path) -> None:
    with RunningServer(ROOT / "models", "--transport", "http2") as server:
        with subprocess.Popen(command(script, server.ready(), "drain"), stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "streaming\n"
            server.process.terminate()
            assert client.stdout.read().strip() in {"OK", "UNAVAILABLE"}
        assert server.wait() == 0
        assert "Traceback" not in server.log
