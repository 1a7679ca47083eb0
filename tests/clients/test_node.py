"""A client in JavaScript (grpc-js) on each transport: `make test-clients` needs node and npm."""

from __future__ import annotations

import os
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
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningServer, dict[str, str]]]:
    """A server, and what its clients have in their environment besides."""
    transport, _, tls = request.param.partition(" with ")
    authority = Authority(tmp_path_factory.mktemp("tls"))
    given = authority.options() if tls else []
    with RunningServer(ROOT / "models", "--transport", transport, *given) as server:
        yield server.ready(), {"TIDEGATE_CA": str(authority.file)} if tls else {}


def command(script: Path, server: RunningServer, case: str) -> list[str]:
    address = server.address.replace("127.0.0.1", "localhost")  # node wants no number for a name in TLS
    return ["node", str(script), address, str(ROOT / "proto"), case]


def environment(variables: dict[str, str]) -> dict[str, str]:
    """A client's own: TIDEGATE_CA of another server, which speaks TLS, would have it speak TLS too."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")} | variables


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
def test_a_client_in_javascript_is_served(
    script: Path, served: tuple[RunningServer, dict[str, str]], case: str, outcome: str
) -> None:
    server, variables = served
    done = subprocess.run(
        command(script, server, case),
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (outcome, "")


def test_a_client_in_javascript_sees_the_end_of_a_server_that_stops(script: Path) -> None:
    with RunningServer(ROOT / "models", "--transport", "http2") as server:
        drained = command(script, server.ready(), "drain")
        with subprocess.Popen(drained, env=environment({}), stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "streaming\n", server.log
            server.process.terminate()
            assert client.stdout.read().strip() in {"OK", "UNAVAILABLE"}
        assert server.wait() == 0
        assert "Traceback" not in server.log
