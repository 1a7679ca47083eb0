from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.compose.project import EngineError, built, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.compose.project import Project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Both images built, nothing started."""
    try:
        docker("compose", "ls")  # takes the command, its plugin and the engine
    except EngineError as error:
        pytest.exit(f"make test-compose needs a container engine: {error}", returncode=1)
    with built(tmp_path_factory.mktemp("compose")) as project:
        yield project


@pytest.fixture
def up(project: Project) -> Project:
    """With a server that is up and healthy."""
    try:
        project.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "server")
    except EngineError as error:
        pytest.fail(f"{error}\n{project.compose('logs', 'server')}")
    return project
