"""The containers as a user runs them, with a real engine."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import tidegate
from tests.compose.project import docker, inspect, logs
from tests.running_server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.compose.project import Project

LARGEST = 165  # MB that the server's image adds to python:3.11-slim; 10 of them send OpenTelemetry
GRACE = 30  # seconds: the stop_grace_period of the server
WRITE, HOLD, READ = [0.7, 1, 0], [-0.4, 0, 0], [0.2, 0, 1]  # what `recall` takes: value, write, read
BRIEF = ("--steps", "20", "--evaluate-every", "10")
ENDLESS = ("--steps", "100000000", "--patience", "100000000")


def test_the_server_image_adds_little_to_its_base(up: Project) -> None:
    total = up.inside("du", "--summarize", "--total", "--block-size=1000000", "/opt/venv", "/app").stdout.splitlines()[
        -1
    ]
    assert int(total.split()[0]) < LARGEST


@pytest.mark.parametrize("module", ["torch", "training"])
def test_the_server_image_cannot_train(up: Project, module: str) -> None:
    assert "ModuleNotFoundError" in up.inside("python", "-c", f"import {module}").stderr


def test_the_server_is_an_ordinary_user_for_ever(up: Project) -> None:
    status = dict(line.split(":\t", 1) for line in up.inside("cat", "/proc/self/status").stdout.splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("folder", ["/app", "/models", "/opt/venv", "/tmp"])  # noqa: S108 - the container's
def test_the_server_can_write_nothing(up: Project, folder: str) -> None:
    assert "Read-only file system" in up.inside("touch", f"{folder}/mark").stderr


def test_the_healthcheck_tells_a_server_from_a_closed_port(up: Project) -> None:
    assert inspect(up.server, ".State.Health.Status") == "healthy"
    assert up.inside("python", "-m", "server.operations.healthcheck").returncode == 0
    assert up.inside("python", "-m", "server.operations.healthcheck", "--port", "1").returncode == 1


def test_a_sequence_streams_from_outside_with_its_gates(up: Project) -> None:
    with tidegate.connect(up.address, timeout=20) as client, client.sequence("recall") as sequence:
        written, held, read = (sequence.step(row) for row in (WRITE, HOLD, READ))
    assert held.output == pytest.approx([0.0], abs=0.1)
    assert read.output == pytest.approx([0.7], abs=0.1)
    assert written.layer[0].input[0] > 0.9
    assert held.layer[0].input[0] < 0.1


def test_an_operator_lists_backs_up_and_restores_inside_the_container(up: Project, tmp_path: Path) -> None:
    with tidegate.connect(up.address, timeout=20) as client, client.sequence("recall") as sequence:
        sequence.step(WRITE)
        assert sequence.id in up.inside("tidegate", "sequences").stdout
        assert up.inside("tidegate", "store", "backup", "/state/a.backup").returncode == 0
    docker("cp", f"{up.server}:/state/a.backup", str(tmp_path))
    written = (tmp_path / "a.backup").read_bytes()
    command = ["docker", "exec", "--interactive", up.server, "sh", "-c", "cat > /state/b.backup"]
    subprocess.run(command, input=written, check=True)
    assert " put; " in up.inside("tidegate", "store", "restore", "/state/b.backup").stdout


def test_a_model_trained_in_a_container_is_served_without_a_restart(up: Project) -> None:
    started = inspect(up.server, ".State.StartedAt")
    up.train("recall", "--name", "fresh", *BRIEF)
    with tidegate.connect(up.address, timeout=20) as client:
        eventually(lambda: ("fresh", 1, "ready") in [(m.name, m.version, m.status) for m in client.models()])
        with client.sequence("fresh") as sequence:
            assert sequence.step(WRITE).step == 0
    assert inspect(up.server, ".State.StartedAt") == started


def test_what_training_writes_belongs_to_the_owner_of_the_models(up: Project) -> None:
    up.train("recall", "--name", "mine", *BRIEF)
    owner = owner_of(up.models)
    assert {owner_of(path) for path in (up.models / "mine").rglob("*")} == {owner}
    assert {owner_of(path) for path in (up.runs / "mine").rglob("*")} == {owner}


def test_an_interrupted_training_goes_on_in_the_next_container(project: Project) -> None:
    for beginning in ("starting runs/long", "resuming runs/long"):
        with project.training("recall", "--name", "long", *ENDLESS) as container:
            known = metrics(project.runs)
            eventually(lambda known=known: len(metrics(project.runs)) > len(known))
            docker("stop", container)
            assert beginning in logs(container)
            assert inspect(container, ".State.ExitCode") == "130"


def test_sigterm_ends_the_server_with_status_0_within_its_grace_though_a_client_stays(up: Project) -> None:
    container = up.server
    with tidegate.connect(up.address, timeout=20) as client, client.sequence("recall") as sequence:
        sequence.step(WRITE)
        before = time.monotonic()
        up.compose("stop", "server")
        took = time.monotonic() - before
    assert inspect(container, ".State.ExitCode") == "0"
    assert took < GRACE


def test_a_sequence_outlives_its_container(up: Project) -> None:
    with tidegate.connect(up.address, timeout=60) as client, client.sequence("recall") as sequence:
        sequence.step(WRITE)
        up.compose("up", "--detach", "--no-build", "--force-recreate", "--wait", "--wait-timeout", "120", "server")
        assert sequence.step(HOLD).step == 1
        assert sequence.step(READ).output == pytest.approx([0.7], abs=0.1)


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Waits for it, and fails if it takes longer."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.25)


def metrics(runs: Path) -> list[str]:
    """What the interrupted training has measured so far, a line for each validation."""
    return [line for path in runs.glob("long/*/metrics.jsonl") for line in path.read_text().splitlines()]


def owner_of(path: Path) -> tuple[int, int]:
    """The numbers of its user and its group."""
    return path.stat().st_uid, path.stat().st_gid
