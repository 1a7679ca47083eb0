"""Processes of the demonstration: they end with their block, and say in one sentence what went wrong."""

import os
from pathlib import Path

import pytest

from demo.errors import DemoError
from demo.process import Process
from demo.trainings import Progressed

SLEEPER = ["timeit", "-n1", "import time; time.sleep(60)"]


def test_a_process_ends_with_its_block(tmp_path: Path) -> None:
    with Process("sleeper", SLEEPER, tmp_path / "log") as one:
        assert not one.ended
    with pytest.raises(ProcessLookupError):
        os.kill(one._process.pid, 0)


def test_a_failure_is_one_sentence_with_the_log(tmp_path: Path) -> None:
    nothing = ["server", "--models", str(tmp_path / "none")]
    sentence = r"the server failed: .*is not a folder.*more in .*server\.log"
    with Process("the server", nothing, tmp_path / "server.log") as one, pytest.raises(DemoError, match=sentence):
        one.wait_for("serving", 120)


def test_a_process_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with Process("sleeper", SLEEPER, tmp_path / "log") as one, pytest.raises(DemoError, match=r"ready in 0\.1 s"):
        one.wait_for("ready", 0.1)


@pytest.mark.parametrize(
    ("said", "progressed"),
    [
        ("", Progressed(0, 1)),
        ("starting runs\nstep 300/3000  training 0.1\nstep 600/3000  training 0.1\n", Progressed(600, 3000)),
        ("step 2700/3000  training\n2900 steps (stopped early); best validation loss", Progressed(2900, 2900)),
    ],
)
def test_progress_is_read_from_what_the_pipeline_says(said: str, progressed: Progressed) -> None:
    assert Progressed.read(said) == progressed
