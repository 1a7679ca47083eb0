"""Clients in Go and C++ on each transport, in clear and with TLS. What cannot be built here says what it needs."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from bench.processes.child import free_port
from tests.clients.compiled import OUTCOMES, built, missing
from tests.running_server import ROOT, RunningServer
from tests.security.certificates import Authority
from tests.security.test_front_door import add

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TRANSPORTS = "http2", "grpc"
CASES = {
    "unary": "recall",
    "deadline": "DEADLINE_EXCEEDED",
    "cancel": "CANCELLED",
    "steps": "OK 2000",
    "late": "OK 5000",
    "large": "100000 true",
}
CLIENTS = 4  # that a server has while it is drained


class Access:
    """What a server is started with, and what its clients show."""

    def __init__(self, kind: str, folder: Path) -> None:
        authority = Authority(folder / "tls")
        self.given: list[str] = []
        self.shown: dict[str, str] = {}
        if kind != "in clear":
            self.given = authority.options(ask_clients=kind == "mutual TLS")
            self.shown = {"TIDEGATE_CA": str(authority.file)}
        if kind == "mutual TLS":
            cert, key = authority.issue("client")
            self.shown |= {"TIDEGATE_CERT": str(cert), "TIDEGATE_KEY": str(key)}
        if kind == "TLS and a token":
            tokens, secret = folder / "tokens.json", folder / "token"
            secret.write_text(add(tokens, "sensors", "--may", "predict") + "\n")
            self.given += ["--tokens", str(tokens)]
            self.shown["TIDEGATE_TOKEN_FILE"] = str(secret)


@pytest.fixture(scope="module", params=["go", "cpp"])
def language(request: pytest.FixtureRequest) -> str:
    if needed := missing(request.param):
        pytest.skip(needed)
    return request.param


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds each once, in whatever order the tests run."""
    return cache(lambda language: built(language, tmp_path_factory.mktemp(language)))


@pytest.fixture
def client(language: str, programs: Callable[[str], Path]) -> Path:
    return programs(language)


@pytest.fixture(scope="module", params=["in clear", "TLS", "mutual TLS", "TLS and a token"])
def access(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Access:
    return Access(request.param, tmp_path_factory.mktemp("access"))


@pytest.fixture(scope="module", params=TRANSPORTS)
def server(request: pytest.FixtureRequest, access: Access) -> Iterator[RunningServer]:
    with RunningServer(ROOT / "models", "--transport", request.param, *access.given) as server:
        yield server.ready()


def begun(client: Path, address: str, case: str, access: Access, **shown: str) -> subprocess.Popen[str]:
    command = [str(client), address.replace("127.0.0.1", "localhost"), case]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | access.shown | shown, **pipes)


def told(process: subprocess.Popen[str]) -> str:
    said, errors = process.communicate(timeout=60)
    assert errors == ""
    return said.strip()


def test_a_client_is_served_with_deadlines_cancels_large_messages_and_late_reads(
    client: Path, language: str, server: RunningServer, access: Access
) -> None:
    asked = {case: begun(client, server.address, case, access) for case in CASES}
    words = OUTCOMES[language]
    assert {case: told(one) for case, one in asked.items()} == {
        case: words.get(outcome, outcome) for case, outcome in CASES.items()
    }


def test_a_client_with_another_token_is_refused(
    client: Path, language: str, server: RunningServer, access: Access, tmp_path: Path
) -> None:
    if "TIDEGATE_TOKEN_FILE" not in access.shown:
        pytest.skip("no token is asked for")
    wrong = tmp_path / "token"
    wrong.write_text("tg_wrong")
    said = told(begun(client, server.address, "unary", access, TIDEGATE_TOKEN_FILE=str(wrong)))
    assert said == OUTCOMES[language].get("UNAUTHENTICATED", "UNAUTHENTICATED")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_clients_go_on_with_the_same_answers_after_their_server_was_drained_and_started_again(
    client: Path, access: Access, tmp_path: Path, transport: str
) -> None:
    port, store = str(free_port()), f"sqlite:{tmp_path / 'kept.sqlite'}"
    given = ["--transport", transport, "--port", port, "--store", store, *access.given]
    with RunningServer(ROOT / "models", *given) as first:
        address = first.ready().address
        undisturbed = told(begun(client, address, "drain", access)).removeprefix("streaming\n")
        assert undisturbed.endswith("lost a stream: false")
        clients = [begun(client, address, "drain", access) for _ in range(CLIENTS)]
        assert all(one.stdout.readline() == "streaming\n" for one in clients)
        first.terminate()
        assert first.wait() == 0
        assert "Traceback" not in first.log
    with RunningServer(ROOT / "models", *given) as second:
        second.ready()
        assert [told(one) for one in clients] == [undisturbed.replace("false", "true")] * CLIENTS
