"""A project of docker-compose.yml with a name, a port, models and runs of its own. Knows docker, and no pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from bench.processes.child import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REPOSITORY = Path(__file__).parents[2]
OWNER = 4711  # a user whom neither the images nor a usual machine knows
WHEELS_PORT = 8765  # always the same: another address would be another build to the engine's cache


class EngineError(Exception):
    """A command of docker failed; the text is what it said."""


@dataclass(frozen=True)
class Project:
    """What `docker compose` is told, and where its other ends are."""

    name: str
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """Where the server is published."""
        return f"127.0.0.1:{self.environment['TIDEGATE_PORT']}"

    @property
    def entrance(self) -> str:
        """Where the replicas are published."""
        return f"127.0.0.1:{self.environment['TIDEGATE_REPLICAS_PORT']}"

    @property
    def models(self) -> Path:
        """The model repository on this side."""
        return Path(self.environment["TIDEGATE_MODELS"])

    @property
    def runs(self) -> Path:
        """The runs of training on this side."""
        return Path(self.environment["TIDEGATE_RUNS"])

    @property
    def server(self) -> str:
        """The id of the server's container."""
        return self.compose("ps", "--all", "--quiet", "server").strip()

    def compose(self, *arguments: str) -> str:
        """`docker compose` and what it printed. Raises EngineError."""
        return docker("compose", "--project-name", self.name, *arguments, environment=self.environment)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the server's container, whatever its exit status."""
        return subprocess.run(["docker", "exec", self.server, *command], capture_output=True, text=True, check=False)

    def train(self, *arguments: str) -> str:
        """One training to its end, and what it printed. Raises EngineError."""
        return self.compose("run", "--rm", "--no-TTY", "training", *arguments)

    @contextmanager
    def training(self, *arguments: str) -> Iterator[str]:
        """The id of a container that trains in the background, for as long as the context lasts."""
        container = self.compose("run", "--detach", "training", *arguments).strip()
        try:
            yield container
        finally:
            docker("rm", "--force", container)


@contextmanager
def built(folder: Path) -> Iterator[Project]:
    """Every image built, nothing started; nothing is left behind. Models and runs are in `folder`."""
    models = shutil.copytree(REPOSITORY / "models" / "recall" / "1", folder / "models" / "recall" / "1").parents[1]
    if os.geteuid() == 0:  # else it belongs to an ordinary user as it is
        for path in (models, *models.rglob("*")):
            os.chown(path, OWNER, OWNER)
    places = {
        "TIDEGATE_HOST": "127.0.0.1",
        "TIDEGATE_PORT": str(free_port()),
        "TIDEGATE_REPLICAS_PORT": str(free_port()),
        "TIDEGATE_MODELS": str(models),
        "TIDEGATE_RUNS": str(folder / "runs"),  # not there yet: the engine makes it
    }
    with wheels() as sources:
        project = Project(f"tidegate-test-{os.getpid()}", {**os.environ, **sources, **places})
        try:
            project.compose("--profile", "*", "build")
            yield project
        finally:
            project.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "local")


@contextmanager
def wheels() -> Iterator[Mapping[str, str]]:
    """The folder that PIP_FIND_LINKS names, if it names one, which a build cannot see: served to it over the bridge."""
    folder = Path(os.environ.get("PIP_FIND_LINKS", ""))
    if not folder.is_absolute():
        yield {}
        return
    host = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()
    with ThreadingHTTPServer((host, WHEELS_PORT), partial(SilentHandler, directory=str(folder))) as files:
        Thread(target=files.serve_forever, daemon=True).start()
        yield {"PIP_FIND_LINKS": f"http://{host}:{WHEELS_PORT}/", "PIP_TRUSTED_HOST": host}
        files.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    """Serves files and does not talk about it."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def docker(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """A command of docker and what it printed on standard output. Raises EngineError."""
    command = ["docker", *arguments]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise EngineError("there is no command `docker`") from None
    if done.returncode:
        raise EngineError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def inspect(container: str, field: str) -> str:
    """One field of what the engine knows about a container, such as `.State.ExitCode`."""
    return docker("inspect", "--format", f"{{{{{field}}}}}", container).strip()


def logs(container: str) -> str:
    """What a container printed on standard output."""
    return docker("logs", container)
