"""Clients, the command line and the health check over TLS, on both transports."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

import tidegate
from bench.processes.child import free_port
from tests.raw_stream import NO_TRACE, open_, steps
from tests.running_server import RunningServer
from tests.security.certificates import Authority
from tidegate import wire
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODELS = Path(__file__).parents[2] / "models"
ROW = [0.7, 1, 0]
TRANSPORTS = ["http2", "grpc"]
SOON = tidegate.Resuming(longest_wait=0.2)


class Secured:
    """A server with TLS, who has issued its certificate, and one for its clients."""

    def __init__(self, folder: Path, transport: str, ask_clients: bool) -> None:
        self.authority = Authority(folder)
        self.cert, self.key = self.authority.issue("client", subject="sensor-7")
        self.given = [*self.authority.options(ask_clients=ask_clients), "--transport", transport]
        self.server = RunningServer(MODELS, *self.given)

    @property
    def address(self) -> str:
        return f"https://{self.server.address}"

    @property
    def trust(self) -> dict[str, Any]:
        return {"ca": self.authority.file, "timeout": 120}

    @property
    def shown(self) -> dict[str, Any]:
        return {"cert": self.cert, "key": self.key, **self.trust}


@pytest.fixture(scope="module", params=TRANSPORTS)
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("tls"), request.param, ask_clients=False)
    with made.server:
        made.server.ready()
        yield made


@pytest.fixture(scope="module", params=TRANSPORTS)
def asking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """It asks clients for a certificate."""
    made = Secured(tmp_path_factory.mktemp("mutual"), request.param, ask_clients=True)
    with made.server:
        made.server.ready()
        yield made


def first_answer(address: str, **given: Any) -> list[float]:  # noqa: ANN401
    with tidegate.connect(address, **given) as client, client.sequence("recall") as sequence:
        return [*sequence.step(ROW).output]


async def test_all_clients_get_the_same_over_tls(secured: Secured) -> None:
    expected = await asyncio.to_thread(first_answer, secured.address, **secured.trust)
    async with tidegate.AsyncClient(secured.address, **secured.trust) as client, client.sequence("recall") as sequence:
        assert [*(await sequence.step(ROW)).output] == expected
    credentials = grpc.ssl_channel_credentials(secured.authority.pem)
    async with grpc.aio.secure_channel(secured.server.address, credentials) as channel:
        call = TidegateStub(channel).Stream()
        for said in (open_(model="recall", trace=NO_TRACE), steps(0, 0, np.array(ROW, np.float32))):
            await call.write(said)
        assert (await call.read()).opened.model == "recall"
        assert [*wire.decode((await call.read()).answers.outputs[0])] == expected


def test_files_alone_ask_for_tls_too(secured: Secured) -> None:
    assert first_answer(secured.server.address, **secured.trust) == first_answer(secured.address, **secured.trust)


def test_what_was_not_given_is_taken_from_the_environment(asking: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("CA", asking.authority.file), ("CERT", asking.cert), ("KEY", asking.key)):
        monkeypatch.setenv(f"TIDEGATE_{name}", str(file))
    assert first_answer(asking.address, timeout=120)


@pytest.mark.parametrize("by", ["options", "environment"])
def test_the_command_line_speaks_tls(asking: Secured, by: str) -> None:
    files = {"ca": asking.authority.file, "cert": asking.cert, "key": asking.key}
    if by == "options":
        given = ["--tls", "--server", asking.server.address, *(f"--{name}={file}" for name, file in files.items())]
        environment: dict[str, str] = {}
    else:
        given = []
        environment = {f"TIDEGATE_{name.upper()}": str(file) for name, file in files.items()}
        environment["TIDEGATE_SERVER"] = asking.address
    done = command("tidegate.cli", *given, "models", "--json", environment=environment)
    assert [model["name"] for model in json.loads(done.stdout)] == ["recall"], done.stderr


def test_the_health_check_finds_the_server_by_its_own_certificate(secured: Secured) -> None:
    done = command("server.operations.healthcheck", *secured.given, "--port", secured.server.address.split(":")[1])
    assert (done.returncode, done.stderr) == (0, "")


def test_the_health_check_shows_a_certificate_where_one_is_asked_for(asking: Secured) -> None:
    given = [*asking.given, "--port", asking.server.address.split(":")[1]]
    done = command("server.operations.healthcheck", *given)
    assert (done.returncode, done.stderr) == (0, ""), "the server's own may do"
    shown = {"TIDEGATE_CERT": str(asking.cert), "TIDEGATE_KEY": str(asking.key)}
    assert command("server.operations.healthcheck", *given, environment=shown).returncode == 0
    stranger = Authority(asking.cert.parent / "other").issue("stranger")
    shown = {"TIDEGATE_CERT": str(stranger[0]), "TIDEGATE_KEY": str(stranger[1])}
    assert command("server.operations.healthcheck", *given, environment=shown).returncode == 1


# What goes wrong, in a sentence ---------------------------------------------------------------------------------------


def refusal(address: str, **given: Any) -> str:  # noqa: ANN401
    """The same of both calls and of streams; without a second attempt."""
    said = set()
    with tidegate.connect(address, **given) as client:
        for call in (client.models, lambda: client.sequence("recall")):
            with pytest.raises(tidegate.ConnectionLost) as caught:
                call()
            said.add(str(caught.value))
    [sentence] = said
    return sentence


def test_an_issuer_that_is_not_trusted_is_said_to_be_so(secured: Secured, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    words = refusal(secured.address, ca=other.file, timeout=120)
    assert f"server at {secured.address} is not from an issuer that is trusted here: give its issuer with ca=" in words
    assert "is not from an issuer that is trusted here" in refusal(secured.address, timeout=120)


def test_a_certificate_for_another_name_is_said_to_be_so(tmp_path: Path, start: Callable[..., RunningServer]) -> None:
    authority = Authority(tmp_path)
    server = start(tmp_path, *authority.options("elsewhere.example")).ready()
    words = refusal(f"https://{server.address}", ca=authority.file, timeout=120)
    assert words.endswith("is not for the name 127.0.0.1: connect by a name that it is for")


def test_a_client_without_a_certificate_is_told_to_show_one(asking: Secured) -> None:
    assert refusal(asking.address, **asking.trust).endswith(
        "asks clients for a certificate: connect with cert= and key="
    )


def test_a_client_whose_certificate_is_not_accepted_is_told_which(asking: Secured, tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("stranger")
    words = refusal(asking.address, **asking.trust, cert=cert, key=key)
    assert f"the server at {asking.address} does not accept the certificate {cert}" in words


async def test_asyncio_says_the_same(asking: Secured) -> None:
    async with tidegate.AsyncClient(asking.address, **asking.trust) as client:
        with pytest.raises(tidegate.ConnectionLost, match="asks clients for a certificate"):
            await client.models()


# Certificates that change ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_certificates_change_under_load_and_no_stream_breaks(
    start: Callable[..., RunningServer], tmp_path: Path, transport: str
) -> None:
    authority, metrics = Authority(tmp_path), free_port()
    given = ["--transport", transport, "--poll-seconds", "0.05", "--metrics-port", str(metrics)]
    server = start(MODELS, *authority.options(), *given, "--store", "none").ready()
    trust = {"ca": authority.file, "timeout": 120, "resume_within": 0}
    going = True

    async def load(client: tidegate.AsyncClient) -> int:
        """A stream that is lost is an error: nothing is kept."""
        async with client.sequence("recall", trace=False) as sequence:
            taken = 0
            while going:
                taken = (await sequence.step(ROW)).step
            return taken

    async with tidegate.AsyncClient(f"https://{server.address}", **trust) as client:
        loads = [asyncio.create_task(load(client)) for _ in range(8)]
        for name in ("a.example", "b.example"):
            authority.issue("server", name, "127.0.0.1")
            await asyncio.to_thread(server.line, f"new connections get the certificate of {name}")
            assert await asyncio.to_thread(first_answer, f"https://{server.address}", **trust)
            assert name in await asyncio.to_thread(names_at, server.address, authority)
        (tmp_path / "server.key").write_text("broken")
        await asyncio.to_thread(server.line, r"cannot be used.*still served with the certificate of b\.example")
        assert await asyncio.to_thread(first_answer, f"https://{server.address}", **trust)
        page = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode())
        assert "tidegate_certificate_failed_reads_total 1.0" in page
        assert float(re.search(r"^tidegate_certificate_expires_seconds (\S+)$", page, re.MULTILINE)[1]) > 32e9
        going = False
        assert all(taken > 0 for taken in await asyncio.gather(*loads))


def names_at(address: str, authority: Authority) -> set[str]:
    """The names in the certificate that a new connection gets."""
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), 120) as plain,
        authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        return {value for _, value in tls.getpeercert()["subjectAltName"]}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_killed_server_s_sequences_are_resumed_over_tls(
    start: Callable[..., RunningServer], tmp_path: Path, transport: str
) -> None:
    authority, port = Authority(tmp_path), str(free_port())
    kept = ["--port", port, "--store", f"sqlite:{tmp_path / 'kept.sqlite'}", "--checkpoint-steps", "4"]
    given = [*authority.options(ask_clients=True), *kept, "--transport", transport]
    cert, key = authority.issue("client")
    server = start(MODELS, *given).ready()
    trust = {"ca": authority.file, "cert": cert, "key": key, "timeout": 120, "resume_within": 120, "resuming": SOON}
    async with (
        tidegate.AsyncClient(f"https://localhost:{port}", **trust) as client,
        client.sequence("recall") as one,
        client.sequence("recall") as other,
    ):
        expected = [[*(await other.step(ROW)).output] for _ in range(30)]
        answers = [[*(await one.step(ROW)).output] for _ in range(15)]
        server.process.kill()
        await asyncio.to_thread(server.wait)
        start(MODELS, *given)
        answers += [[*(await one.step(ROW)).output] for _ in range(15)]
    assert answers == expected


def command(
    module: str, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**variables, **(environment or {})},
        cwd=MODELS.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
