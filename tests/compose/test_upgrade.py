"""An older server is replaced by this one, and one replica after the other, while clients stream."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.processes.child import free_port
from tests.compose.load import load
from tests.compose.project import REPOSITORY, EngineError, docker, inspect
from tests.compose.test_compose import eventually
from tests.compose.test_replicas import healthy, led_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.compose.project import Project

OLDER = "728bacb5"  # its SQLite files are of schema 3
SERVICES = ("server", "replica")
FROM_THIS = """
FROM {image}
USER root
RUN rm -rf /app/server /app/stepgraph /app/tidegate
COPY . /app
RUN python -m compileall -q /app
USER 10001:10001
"""


@pytest.fixture
def older(project: Project, tmp_path: Path) -> Iterator[Project]:
    """A project whose images have the packages of this server and the sources of an older one; nothing is started."""
    archive = subprocess.run(
        ["git", "archive", OLDER, "server", "stepgraph", "tidegate"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"the history of this checkout lacks {OLDER}")
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive.stdout, check=True)
    (tmp_path / "Dockerfile").write_text(FROM_THIS.format(image=f"{project.name}-server"), encoding="utf-8")
    ports = {name: str(free_port()) for name in ("TIDEGATE_PORT", "TIDEGATE_REPLICAS_PORT")}
    found = replace(project, name=f"{project.name}-upgrade", environment={**project.environment, **ports})
    for service in SERVICES:
        docker("build", "--quiet", "--tag", f"{found.name}-{service}", str(tmp_path))
    try:
        yield found
    finally:
        found.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
        docker("rmi", *(f"{found.name}-{service}" for service in SERVICES))


def renew(older: Project, project: Project) -> None:
    """What Compose starts from now on is this server."""
    for service in SERVICES:
        docker("tag", f"{project.name}-{service}", f"{older.name}-{service}")


def up(project: Project, service: str, *options: str) -> None:
    try:
        project.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", *options, service)
    except EngineError as error:
        pytest.fail(f"{error}\n{project.compose('--profile', '*', 'logs')}")


def test_a_newer_server_takes_over_an_older_ones_store_while_clients_stream(older: Project, project: Project) -> None:
    up(older, "server")
    before = inspect(older.server, ".Image")
    with load(older.address, 4) as running:
        renew(older, project)
        up(older, "server")
        running.advance()
    assert inspect(older.server, ".Image") != before


def test_replicas_of_an_older_server_are_replaced_one_after_the_other_while_clients_stream(
    older: Project, project: Project
) -> None:
    up(older, "entrance", "--scale", "replica=2")
    containers = older.compose("ps", "--quiet", "replica").split()
    assert len(containers) == 2
    eventually(lambda: led_to(older) == 2)
    with load(older.entrance, 4) as running:
        renew(older, project)
        for container in containers:
            docker("stop", container)
            docker("rm", container)
            running.advance()
            up(older, "replica", "--no-recreate", "--scale", "replica=2")
            eventually(lambda: led_to(older) == 2)
            running.advance()
    now = older.compose("ps", "--quiet", "replica").split()
    assert not set(now) & set(containers)
    for container in now:
        healthy(container)
