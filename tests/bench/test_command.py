import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bench.verdict import LIMITS

Said = Callable[..., str]


@pytest.fixture
def said(forked: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:  # noqa: ARG001 - it patches
    """What a command prints in this process, which ends with one of these statuses."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(command: str, *statuses: int) -> str:
        module, *options = shlex.split(command)
        monkeypatch.setattr(sys, "argv", [module, *options])
        status = import_module(module).main()
        written = capsys.readouterr()
        assert status in statuses, written.out + written.err
        return written.out

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def printed(command: str, *statuses: int) -> str:
    """What `python -m` and the rest of a command print, which ends with one of these statuses."""
    words = [sys.executable, "-m", *shlex.split(command)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode in statuses, ran.stdout + ran.stderr
    return ran.stdout


def test_the_command_prints_a_table_the_verdict_and_a_file(said: Said, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    table = said(f"bench.__main__ --only traces --hidden 128 --rounds 1 --seconds 0.1 --json {file}", 0, 1)
    assert "engine, batch 64, traces" in table
    assert "\x1b" not in table
    assert len(json.loads(file.read_text())["verdict"]) == len(LIMITS)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_every_process_is_gone_when_the_command_is_interrupted(how: signal.Signals) -> None:
    options = ["--only", "connections", "--hidden", "32", "--without", "tidegate", "--without", "compiled"]
    with subprocess.Popen([sys.executable, "-m", "bench", *options], stdout=subprocess.DEVNULL) as command:
        children = children_of(command)
        command.send_signal(how)
        assert command.wait(timeout=500) in (130, 143)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def children_of(command: subprocess.Popen[bytes], count: int = 3) -> list[str]:
    """Its children once there are so many of them, however long it takes to export the models first."""
    while command.poll() is None:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        if len(children) >= count:
            return children
        time.sleep(0.05)
    raise AssertionError(f"the command ended before it had {count} children")


def test_resuming_is_measured_for_a_young_and_an_old_sequence(said: Said) -> None:
    assert "after     2,500 steps: median" in said("bench.resuming --ages 10 2500 --times 3", 0, 1)


def test_parked_sequences_are_measured_at_a_server_with_few_and_one_with_many(said: Said) -> None:
    table = said("bench.parked --sequences 300 --checkpoints 2 --times 15", 0, 1)
    assert "      300 sequences: " in table
    assert "MB of memory, " in table
    assert "resuming one of the many takes" in table


def test_both_clients_are_measured_over_both_of_their_transports() -> None:
    table = printed("bench.clients --seconds 0.2 --rounds 1", 0)
    rows = [tuple(line.split()[:3]) for line in table.splitlines()[-8:]]
    loads = [("asyncio", "1"), ("asyncio", "64"), ("threads", "1"), ("threads", "16")]
    assert rows == [(*load, way) for load in loads for way in ("gRPC's", "own")]


def test_both_clients_are_measured_beside_those_of_another_checkout_at_its_own_server() -> None:
    table = printed("bench.clients --seconds 0.2 --rounds 1 --beside .", 0)
    assert [line.split()[2] for line in table.splitlines()[-8:]] == ["before", "this"] * 4


def test_an_outage_of_the_store_is_measured_in_three_phases(said: Said) -> None:
    table = said("bench.outage --seconds 1.5 --well 1", 0, 1)
    assert [line.split(":")[0].strip() for line in table.splitlines()[1:4]] == ["before", "dead", "after"]
    assert "none had to wait for room" in table
    assert "each once and in order" in table


def test_the_stalls_of_a_bystander_are_measured_for_each_attack(said: Said) -> None:
    table = said(
        'bench.stalls --only "parked by" --only "empty tensors" --only "empty data" --models 1 --parked 100 --again 0',
        0,
        1,
    )
    assert "10,000 parked by one message" in table
    assert "500,000 empty tensors" in table
    assert "the machine by itself: a step of" in table
    assert "the longest step took" in table


def test_another_checkout_is_measured_beside_this_one() -> None:
    table = printed("bench --only traces --hidden 32 --rounds 1 --seconds 0.1 --beside .", 0, 1)
    assert "engine before, batch 64, traces" in table
    assert "this / before" in table
