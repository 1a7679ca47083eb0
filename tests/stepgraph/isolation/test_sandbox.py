"""What looks into a file may die in every way there is: the sentence says which, and the next file is looked into."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from stepgraph.errors import ModelRefused
from stepgraph.isolation.sandbox import Limits, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path("/models/a/1/model.onnx")
ENDINGS = {
    "segfault": r"onnx or onnxruntime ends with signal 11 \(Segmentation fault\)",
    "abort": r"takes more than 64 MiB of memory.*--load-memory-mib",
    "grow": r"takes more than 64 MiB of memory.*--load-memory-mib",
    "hang": r"took more than 0\.5 s.*--load-seconds",
    "killed": r"killed \(signal 9\): the machine or the container has too little memory",
    "wrong": rf"failed: ValueError: a fault of ours at {FILE}",
    "leave": "ended with no answer",
    "flood": r"memory|no answer",
}


@dataclass(frozen=True)
class Said:
    text: str


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(120, 64), "tests.stepgraph.isolation.dying_worker") as sandbox:
        yield sandbox


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_job_ends_the_refusal_says_so_and_the_next_job_is_done(sandbox: Sandbox, ending: str) -> None:
    with pytest.raises(ModelRefused, match=ENDINGS[ending]):
        sandbox.ask(Said, ending, FILE, 0.5 if ending == "hang" else None)
    assert sandbox.ask(Said, "well", FILE) == Said(str(FILE))


def test_a_job_may_write_more_to_stderr_than_a_pipe_holds(sandbox: Sandbox) -> None:
    assert sandbox.ask(Said, "chatter", FILE) == Said(str(FILE))


def test_one_that_was_closed_comes_back_when_it_is_asked() -> None:
    with Sandbox(Limits(120, 64), "tests.stepgraph.isolation.dying_worker") as sandbox:
        sandbox.close()
        assert sandbox.ask(Said, "well", FILE) == Said(str(FILE))
        sandbox.close()
        assert sandbox.ask(Said, "well", FILE) == Said(str(FILE))


def test_a_process_that_cannot_be_started_refuses_the_file_and_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("there is no room for a process")

    with Sandbox(Limits(120, 64), "tests.stepgraph.isolation.dying_worker") as sandbox, monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", full)
        with pytest.raises(ModelRefused, match="there is no room for a process"):
            sandbox.ask(Said, "well", FILE)  # a socket that is dropped open is a warning, and so an error


def test_closing_it_ends_the_job_that_is_under_way() -> None:
    with Sandbox(Limits(120, 64), "tests.stepgraph.isolation.dying_worker") as sandbox:
        sandbox.ask(Said, "well", FILE)
        process = sandbox._process
        assert process is not None
        refused: list[ModelRefused] = []

        def ask() -> None:
            try:
                sandbox.ask(Said, "hang", FILE)
            except ModelRefused as refusal:
                refused.append(refusal)

        thread = Thread(target=ask)
        thread.start()
        while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()):
            thread.join(0.01)
        sandbox.close()
        thread.join(120)
    assert len(refused) == 1
    assert process.poll() is not None
    assert not Path(f"/proc/{children[0]}").exists()


def test_a_process_that_died_is_started_anew() -> None:
    with Sandbox(Limits(120, 64), "tests.stepgraph.isolation.dying_worker") as sandbox:
        sandbox.ask(Said, "well", FILE)
        assert sandbox._process is not None
        sandbox._process.kill()
        sandbox._process.wait()
        with pytest.raises(ModelRefused, match="will be started anew"):
            sandbox.ask(Said, "well", FILE)
        assert sandbox.ask(Said, "well", FILE) == Said(str(FILE))


def test_what_a_job_is_told_comes_as_json_so_a_path_may_hold_anything(sandbox: Sandbox) -> None:
    path = Path("/models/a\n\"{}'\u2603/1/model.onnx")
    assert json.loads(json.dumps(str(path))) == sandbox.ask(Said, "well", path).text
