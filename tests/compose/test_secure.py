"""The server of Compose with TLS and tokens, as docs/secure.md has it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

import tidegate
from bench.processes.child import free_port
from tests.compose.load import load
from tests.compose.project import REPOSITORY, docker
from tests.security.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.compose.project import Project

USER = 10001  # whom the server's image has


@pytest.fixture
def secured(project: Project, tmp_path: Path) -> Iterator[Project]:
    """Not started; its file `docker-compose.override.yml` is that of the page, its certificates are in a folder."""
    page = (REPOSITORY / "docs" / "secure.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(services:.*?)^```", page, re.MULTILINE | re.DOTALL)
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(shown.replace("./certificates", str(tmp_path / "certificates")), encoding="utf-8")
    files = f"{REPOSITORY / 'docker-compose.yml'}:{override}"
    environment = {**project.environment, "COMPOSE_FILE": files, "TIDEGATE_PORT": str(free_port())}
    found = replace(project, name=f"{project.name}-secure", environment=environment)
    docker("tag", f"{project.name}-server", f"{found.name}-server")
    try:
        yield found
    finally:
        found.compose("down", "--volumes")
        docker("rmi", f"{found.name}-server")


@pytest.mark.skipif(os.geteuid() != 0, reason="the folder of certificates is given to another user")
def test_with_tls_and_a_token_it_is_as_the_page_says_and_both_are_renewed_while_a_client_streams(
    secured: Project, tmp_path: Path
) -> None:
    folder, ours = tmp_path / "certificates", tmp_path / "ours"
    issuer = Authority(ours)
    put(issuer.issue("server", "localhost"), folder)
    first = secured.compose("run", "--rm", "--no-TTY", "server", "token", "add", "mill", "--may", "predict").strip()
    secured.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "server")
    address = f"https://localhost:{secured.environment['TIDEGATE_PORT']}"
    with pytest.raises(tidegate.Refused, match="asks for a token"), tidegate.connect(address, ca=issuer.file) as client:
        client.models()
    with load(address, 4, partial(tidegate.connect, ca=issuer.file, token=first)) as running:
        put(issuer.issue("newer", "localhost"), folder)
        second = secured.inside("python", "-m", "server", "token", "renew", "mill").stdout.strip()
        running.advance(300)
        with tidegate.connect(address, ca=issuer.file, token=second) as client:
            assert "recall" in {model.name for model in client.models()}  # and what other tests have trained


def put(files: tuple[Path, Path], folder: Path) -> None:
    """A certificate and its key where the server reads them."""
    folder.mkdir(exist_ok=True)
    for path, name in zip(files, ("server.pem", "server.key"), strict=True):
        (folder / name).write_bytes(path.read_bytes())
    for path in (folder, *folder.iterdir()):
        os.chown(path, USER, USER)
