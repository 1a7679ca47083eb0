from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import onnx
import pytest

from stepgraph.loading import load
from tests.end_to_end.bystander import bystander
from tests.lab.growth import Peak, growth, mib
from tests.lab.looks import many_nodes, many_ports, stack
from tests.lab.stall import Processor, answered_during

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.running_server import RunningServer

OBEYS = """
import sys
kept = []
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Obedient:
    """A process that does what a line of Python says, in place of a server."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", OBEYS], stdin=pipe, stdout=pipe, text=True)

    def do(self, line: str) -> None:
        print(line, file=self.process.stdin, flush=True)
        self.process.stdout.readline()

    @property
    def resident(self) -> float:
        return mib(self.process.pid, "VmRSS")


@pytest.fixture
def process() -> Iterator[Obedient]:
    running = Obedient()
    with running.process:
        running.do("")
        yield running
        running.process.kill()


async def test_growth_is_what_the_rounds_after_the_warm_ones_keep(process: Obedient) -> None:
    async def round_() -> None:
        process.do("kept.append(bytearray(b'x') * 2**23)")

    assert 38 < await growth(process, round_, warm=2, rounds=5) < 50


async def test_memory_that_is_given_back_is_no_growth(process: Obedient) -> None:
    async def round_() -> None:
        process.do("kept[:] = [bytearray(b'x') * 2**23]")

    assert await growth(process, round_, warm=2, rounds=5) < 10


def test_a_peak_is_seen_although_the_memory_was_given_back(process: Obedient) -> None:
    process.do("kept.append(bytearray(b'x') * 2**26); kept.clear()")
    with Peak(process) as low:
        process.do("")
    with Peak(process) as high:
        process.do("kept.append(bytearray(b'x') * 2**25); kept.clear()")
    assert low.mib < 8
    assert 30 < high.mib < 40


def test_processor_time_is_that_of_the_work_and_not_of_the_waiting(process: Obedient) -> None:
    with Processor(process) as idle:
        process.do("__import__('time').sleep(0.3)")
    with Processor(process) as busy:
        process.do("sum(range(30_000_000))")
    assert idle.loop < 0.1 < busy.loop
    assert busy.loop == pytest.approx(busy.all)


async def test_a_bystander_tells_how_often_it_was_answered_during_some_work(server: RunningServer) -> None:
    async with bystander(server.address) as other:
        assert await answered_during(other, other.more(20)) >= 20
        assert await answered_during(other, asyncio.sleep(0)) <= 1


def calls(path: Path) -> int:
    """How many functions are called to look at a file, whatever machine it is and whatever else runs on it."""
    events = Counter[str]()
    sys.setprofile(lambda _frame, event, _of: events.update([event]))
    try:
        load(path, 2, 0.0)
    finally:
        sys.setprofile(None)
    return events["call"] + events["c_call"]


@pytest.mark.parametrize(
    "made", [many_nodes, lambda count: many_ports(count // 5), lambda count: stack("GRU", count // 5, 4, 4)]
)
def test_a_look_takes_calls_in_proportion_to_the_size_of_a_file(
    made: Callable[[int], onnx.ModelProto], tmp_path: Path
) -> None:
    counted = []
    for count in (10, 20, 40):
        onnx.save(made(count), tmp_path / f"{count}.onnx")
        counted.append(calls(tmp_path / f"{count}.onnx"))
    small, middle, large = counted
    assert large - middle < 2.5 * (middle - small)
