"""Three replicas, one Valkey and Envoy in front, as a user runs them: sequences survive what happens to a replica."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.compose.load import load, rows
from tests.compose.project import REPOSITORY, EngineError, docker, inspect
from tests.compose.test_compose import eventually
from tests.raw_stream import RawStream, open_, rows_of, steps
from tidegate.v1 import error_pb2, sequence_pb2
from tidegate.v1.sequence_pb2 import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.compose.project import Project

CUT = 40
ROWS = rows(99, 3 * CUT)
KEPT = 9  # sequences: that all of them come to the right one of three replicas by chance is 1 to 20,000
HEALTHY = r"""
exec 3<>/dev/tcp/127.0.0.1/9901
printf 'GET /clusters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
grep 'replicas::.*::health_flags::healthy' <&3 || true
"""


@pytest.fixture(scope="module")
def replicas(project: Project) -> Iterator[Project]:
    """Up and healthy."""
    try:
        project.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "entrance")
    except EngineError as error:
        pytest.fail(f"{error}\n{project.compose('--profile', '*', 'logs')}")
    yield project
    project.compose("--profile", "replicas", "stop", "entrance", "replica", "valkey")


@pytest.fixture
def containers(replicas: Project) -> list[str]:
    found = replicas.compose("ps", "--quiet", "replica").split()
    assert len(found) == 3
    for container in found:
        healthy(container)
    return found


def test_another_process_resumes_a_sequence_at_the_replica_where_it_was(
    replicas: Project, containers: list[str], tmp_path: Path
) -> None:
    eventually(lambda: led_to(replicas) == len(containers))
    keeps = [str(tmp_path / f"{number}.seq") for number in range(KEPT)]
    for_keep = partial(tidegate_command, replicas.entrance)
    began = [
        where(containers, "sequences_opened_total", partial(for_keep, "stream", "recall", "--keep", keep))
        for keep in keeps
    ]
    went_on = [
        where(containers, "sequences_resumed_total", partial(for_keep, "resume", keep)) for keep in reversed(keeps)
    ]
    assert went_on[::-1] == began
    assert len(set(began)) > 1


def test_the_sequences_of_a_container_that_crashes_go_on_at_the_others(
    replicas: Project, containers: list[str]
) -> None:
    with load(replicas.entrance) as running:
        victim, held = busiest(containers)
        before = {container: metric(container, "sequences_resumed_total") for container in containers}
        docker("kill", victim)
        running.advance()
        survivors = [container for container in containers if container != victim]
        assert sum(metric(container, "sequences_resumed_total") - before[container] for container in survivors) >= held
        docker("start", victim)
        healthy(victim)
        running.advance()


def test_a_rolling_restart_under_load_loses_nothing(replicas: Project, containers: list[str]) -> None:
    with load(replicas.entrance) as running:
        for container in containers:
            docker("restart", container)
            assert inspect(container, ".State.ExitCode") == "0"
            healthy(container)
            running.advance()


async def test_a_store_that_crashes_is_not_noticed_and_has_kept_what_nobody_had_open(
    replicas: Project, containers: list[str]
) -> None:
    (valkey,) = replicas.compose("ps", "--quiet", "valkey").split()
    with load(replicas.entrance) as running:
        async with RawStream(f"{address(containers[0])}:50051") as stream:
            opened = await stream.ask(open_(model="recall", announce=True))
            heard = await kept(stream)
        docker("kill", valkey)
        running.advance()
        docker("start", valkey)
        eventually(lambda: all("tidegate_store_up 1.0\n" in page(container) for container in containers))
        async with RawStream(f"{address(containers[1])}:50051") as stream:
            begin = (await stream.ask(resume(opened, CUT))).next_steps[0]
            heard = heard[:begin] + await stream.run(0, begin, ROWS[begin:])
            await stream.ask(open_(1, model="recall"))
            assert await stream.run(1, 0, ROWS) == heard
        running.advance()


async def test_a_container_that_was_paused_cannot_write_over_what_went_on_without_it(
    replicas: Project, containers: list[str]
) -> None:
    with load(replicas.entrance) as running:
        paused, _ = busiest(containers)
        other = next(container for container in containers if container != paused)
        async with RawStream(f"{address(paused)}:50051") as first, RawStream(f"{address(other)}:50051") as second:
            opened = await first.ask(open_(model="recall", announce=True))
            heard = await kept(first)
            docker("pause", paused)
            try:
                again = await second.ask(resume(opened, CUT))
                begin = again.next_steps[0]
                heard = heard[:begin] + await second.run(0, begin, ROWS[begin : 2 * CUT])
                running.advance()
            finally:
                docker("unpause", paused)
            await first.say(steps(0, CUT, ROWS[:1]))  # it may well be answered: it cannot be kept
            assert await reason_of_release(first) == error_pb2.REASON_TAKEN_OVER
            heard += await second.run(0, 2 * CUT, ROWS[2 * CUT :])
        async with RawStream(f"{address(paused)}:50051") as stream:
            back = await stream.ask(resume(opened, 3 * CUT))
            begin = back.next_steps[0]
            assert begin > CUT
            assert await stream.run(0, begin, ROWS[begin:]) == heard[begin:]
            await stream.ask(open_(1, model="recall"))
            assert await stream.run(1, 0, ROWS) == heard
        running.advance()


def tidegate_command(server: str, *arguments: str) -> None:
    """A process that sends some rows through a sequence."""
    table = "".join(",".join(map(str, row)) + "\n" for row in ROWS[:CUT])
    command = [sys.executable, "-m", "tidegate.cli.command", "--server", server, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, input=table, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + CUT


def where(containers: list[str], name: str, call: Callable[[], None]) -> str:
    """The only replica whose number has grown by a call, and that by one."""
    before = [metric(container, name) for container in containers]
    call()
    grown = [metric(container, name) - was for container, was in zip(containers, before, strict=True)]
    assert sorted(grown) == [0, 0, 1]
    return containers[grown.index(1)]


def led_to(replicas: Project) -> int:
    """How many replicas the entrance takes for healthy."""
    return len(replicas.compose("exec", "--no-TTY", "entrance", "bash", "-c", HEALTHY).splitlines())


async def kept(stream: RawStream) -> list[bytes]:
    """Takes the first steps, and waits until they are all in the store."""
    await stream.say(steps(0, 0, ROWS[:CUT]))
    heard: list[bytes] = []
    while True:
        message = await stream.hear()
        if isinstance(message, sequence_pb2.Checkpointed):
            assert len(heard) == CUT
            return heard
        heard.extend(rows_of(message))


async def reason_of_release(stream: RawStream) -> int:
    while True:
        message = await stream.hear()
        if isinstance(message, sequence_pb2.Released):
            return int(message.error.reason)
        assert isinstance(message, sequence_pb2.Answers | sequence_pb2.Checkpointed), message


def resume(opened: sequence_pb2.Opened, answered: int) -> StreamRequest:
    claim = sequence_pb2.Resume(sequence_ids=opened.sequence_ids, resume_token=opened.resume_token, answered=[answered])
    return StreamRequest(resume=claim)


def busiest(containers: list[str]) -> tuple[str, int]:
    """The replica with the most open sequences, and how many."""
    held = {container: int(metric(container, "sequences_open")) for container in containers}
    container = max(containers, key=lambda c: held[c])
    assert held[container] > 0
    return container, held[container]


def metric(container: str, name: str) -> float:
    """A number of `recall` on a replica's page for Prometheus."""
    pattern = rf'^tidegate_{name}{{model="recall",version="1"}} (\S+)$'
    return float(re.search(pattern, page(container), re.MULTILINE).group(1))


def page(container: str) -> str:
    with urllib.request.urlopen(f"http://{address(container)}:9464/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def address(container: str) -> str:
    """Where a container is, as its own machine sees it."""
    return inspect(container, "range .NetworkSettings.Networks}}{{.IPAddress}}{{end").strip()


def healthy(container: str) -> None:
    eventually(lambda: inspect(container, ".State.Health.Status") == "healthy")
