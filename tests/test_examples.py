"""The scripts of `examples/`, each run as its head says, against a real server; numbers are those of the file alone."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

import stepgraph
from tests.running_server import ROOT, RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = ROOT / "models" / "recall" / "1" / "model.onnx"
ROWS = "0.8,1,0\n-0.5,0,0\n0.1,0,1\n"
SENSORS = 1_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with RunningServer(ROOT / "models") as server:
        yield server.ready().address


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", str(ROOT / "examples" / name), *map(str, arguments)]


def printed(name: str, *arguments: object, sent: str = "") -> str:
    done = subprocess.run(
        command(name, *arguments), cwd=ROOT, input=sent, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@cache
def loaded() -> stepgraph.Model:
    return stepgraph.load(FILE)


def outputs(rows: np.ndarray) -> list[float]:
    """What the file answers, without a server."""
    model, state, found = loaded(), None, []
    for row in rows:
        answer, state = model.step(row, state)
        found.append(float(answer.output[0]))
    return found


def test_a_sequence_is_followed_line_by_line(address: str) -> None:
    lines = printed("follow.py", address, "recall", sent=ROWS).splitlines()
    expected = outputs(np.array([[0.8, 1, 0], [-0.5, 0, 0], [0.1, 0, 1]]))
    assert [line.split("  ")[0] for line in lines] == [f"{step}: [{value}]" for step, value in enumerate(expected)]
    assert [re.search(r"input (\S+)  forget (\S+)", line).groups() for line in lines] == [  # type: ignore[union-attr]
        ("1.00", "0.00"),
        ("0.00", "1.00"),
        ("0.00", "1.00"),
    ]


def test_a_sequence_is_followed_with_tritonclient(address: str) -> None:
    lines = printed("follow_triton.py", address, "recall", sent=ROWS).splitlines()
    expected = outputs(np.array([[0.8, 1, 0], [-0.5, 0, 0], [0.1, 0, 1]]))
    assert [line.split("  ")[0] for line in lines] == [f"{step}: [{value}]" for step, value in enumerate(expected)]
    assert [line.split("  ")[1] for line in lines] == ["forget 0.00", "forget 1.00", "forget 1.00"]


def test_many_files_are_followed_side_by_side(address: str, tmp_path: Path) -> None:
    files = []
    for value in (0.8, -0.4, 0.1):
        files.append(tmp_path / f"{value}.csv")
        files[-1].write_text(f"{value},1,0\n0,0,1\n", encoding="utf-8")
    expected = [outputs(np.array([[value, 1, 0], [0, 0, 1]]))[-1] for value in (0.8, -0.4, 0.1)]
    lines = printed("follow_asyncio.py", address, "recall", *files).splitlines()
    assert lines == [f"{file}: step 1: [{value}]" for file, value in zip(files, expected, strict=True)]


async def test_a_gateway_carries_a_thousand_sensors_over_one_stream_and_each_gets_its_own_answers(address: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command("gateway.py", address, "recall", "--listen", "127.0.0.1:0"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int((await asyncio.wait_for(process.stdout.readline(), 120)).rpartition(b":")[2])
        values = {f"sensor {index}": index / SENSORS for index in range(SENSORS)}
        parts = [dict(list(values.items())[first::10]) for first in range(10)]
        heard = await asyncio.wait_for(asyncio.gather(*(speak(port, part) for part in parts)), 120)
        answers = {name: lines for part in heard for name, lines in part.items()}
        assert len(answers) == SENSORS
        for name, value in values.items():
            steps, numbers = zip(*(line.split(",", 1) for line in answers[name]), strict=True)
            assert steps == ("0", "1", "error", "2")
            expected = outputs(np.array([[value, 1, 0], [0, 0, 0], [0, 0, 1]]))
            assert [float(number) for number in numbers[:2] + numbers[3:]] == pytest.approx(expected, rel=1e-5)
    finally:
        process.terminate()
        await process.wait()


async def speak(port: int, values: dict[str, float]) -> dict[str, list[str]]:
    """Sends three steps and a bad line of each sensor over one connection, and returns the answers of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for row in ("{},1,0", "0,0,0", "0,0", "0,0,1"):
        writer.writelines(f"{name},{row.format(value)}\n".encode() for name, value in values.items())
    answers: dict[str, list[str]] = {name: [] for name in values}
    for _ in range(4 * len(values)):
        name, _, rest = (await reader.readline()).decode().strip().partition(",")
        answers[name].append(rest)
    writer.close()
    return answers
