"""A server on every interface, with TLS and tokens: what a client on a network meets, on both transports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tidegate
from bench.processes.child import free_port
from tests.security.certificates import Authority
from tests.security.test_tls import MODELS, ROW, SOON, TRANSPORTS, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running_server import RunningServer

NETWORK = "0.0.0.0"  # noqa: S104


def add(tokens: Path, name: str, *given: str, by: str = "add") -> str:
    """Changes the file of tokens; the secret that is shown once, if there is one."""
    made = command("server", "token", by, name, "--tokens", str(tokens), *given)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_token_that_was_changed_while_the_server_was_away_resumes_its_sequences(
    start: Callable[..., RunningServer], tmp_path: Path, transport: str
) -> None:
    authority, port, tokens, file = Authority(tmp_path), str(free_port()), tmp_path / "tokens", tmp_path / "token"
    file.write_text(add(tokens, "sensors", "--may", "predict"))
    secrets = [file.read_text()]
    kept = ["--port", port, "--store", f"sqlite:{tmp_path / 'kept.sqlite'}", "--checkpoint-steps", "4"]
    given = [*authority.options(), "--host", NETWORK, "--tokens", str(tokens), *kept, "--transport", transport]
    server = start(MODELS, *given).ready()
    address = f"https://localhost:{port}"
    for shown in (None, secrets[0][:-1] + ("y" if secrets[0].endswith("x") else "x")):
        async with tidegate.AsyncClient(address, ca=authority.file, token=shown, timeout=120) as stranger:
            with pytest.raises(tidegate.AccessDenied) as refused:
                await stranger.sequence("recall")
            assert refused.value.reason == "UNAUTHENTICATED"
            assert str(refused.value).count("connect with token_file=") == (shown is None)
    trust = {"ca": authority.file, "token_file": file, "timeout": 120, "resume_within": 120, "resuming": SOON}
    async with tidegate.AsyncClient(address, **trust) as client, client.sequence("recall") as sequence:
        answers = [[*(await sequence.step(ROW)).output] for _ in range(10)]
        server.process.kill()
        await asyncio.to_thread(server.wait)
        add(tokens, "sensors", by="remove")
        secrets.append(add(tokens, "sensors", "--may", "predict"))
        again = start(MODELS, *given)
        waiting = asyncio.create_task(sequence.step(ROW))
        await asyncio.to_thread(again.ready)
        file.write_text(secrets[1])  # until now the server has refused the old one
        answers += [[*(await waiting).output], *[[*(await sequence.step(ROW)).output] for _ in range(9)]]
        async with client.sequence("recall") as undisturbed:
            assert answers == [[*(await undisturbed.step(ROW)).output] for _ in range(20)]
    for log in (server.log, again.log):
        assert not any(secret in log for secret in secrets)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_certificate_stands_for_a_token_by_its_common_name_alone(
    start: Callable[..., RunningServer], tmp_path: Path, transport: str
) -> None:
    authority, tokens = Authority(tmp_path), tmp_path / "tokens"
    add(tokens, "line", "--may", "predict", "--certificate", "sensor-7")
    given = [*authority.options(ask_clients=True), "--tokens", str(tokens), "--transport", transport]
    server = start(MODELS, *given).ready()
    for subject, name, allowed in (
        ("sensor-7", "sensor.example", True),
        ("sensor-8", "sensor.example", False),
        (None, "sensor-7", False),  # a name that is none of the subject's
    ):
        cert, key = authority.issue("sensor", name, subject=subject)
        with tidegate.connect(f"https://{server.address}", ca=authority.file, cert=cert, key=key) as client:
            if allowed:
                with client.sequence("recall") as sequence:
                    assert sequence.step(ROW).step == 0
            else:
                with pytest.raises(tidegate.AccessDenied):
                    client.sequence("recall")
