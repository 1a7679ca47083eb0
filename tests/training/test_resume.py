from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch

from tests.forked import module_here
from tests.running_server import PATIENCE
from training.command import main
from training.errors import CheckpointError, Interrupted, RunBusy
from training.fitting import checkpoint, session
from training.fitting.metrics import read
from training.fitting.run import open_run
from training.fitting.session import train
from training.fitting.trainer import Trainer

if TYPE_CHECKING:
    from rich.console import Console

    from training.config import Config
    from training.recipes.recall import Recall


def same(one: object, other: object) -> bool:
    """Equal bit for bit, through dictionaries and lists."""
    match one, other:
        case torch.Tensor(), torch.Tensor():
            return one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        case dict(), dict():
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        case list(), list():
            return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def uninterrupted(config: Config) -> dict[str, Any]:
    trainer = Trainer(config, config.task())
    trainer.fit(until=config.steps)
    return trainer.state()


def stopped_and_resumed(config: Config, stops: tuple[int, ...], path: Path) -> dict[str, Any]:
    """Each stretch in a new trainer that gets nothing but the file that the one before it wrote."""
    for stop in (*stops, config.steps):
        trainer = Trainer(config, config.task())
        if path.exists():
            trainer.resume(checkpoint.load(path))
        trainer.fit(until=stop)
        checkpoint.save(trainer.state(), path)
        torch.rand(3)  # somebody else's use of the random numbers must not matter
    return checkpoint.load(path)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_an_interrupted_fit_ends_with_the_same_bits_as_an_uninterrupted_one(
    brief: Recall, tmp_path: Path, cell: str
) -> None:
    config = replace(brief, cell=cell, layers=2, hidden=3)
    expected = uninterrupted(config)
    found = stopped_and_resumed(config, (7, 10, 44), tmp_path / "checkpoint.pt")
    assert expected["step"] == 60
    assert same(expected, found)


def test_another_seed_gives_other_bits(brief: Recall) -> None:
    first, second = uninterrupted(brief), uninterrupted(replace(brief, seed=1))
    assert not same(first["network"], second["network"])


def arguments(folder: Path) -> list[str]:
    places = ["--runs", str(folder / "runs"), "--models", str(folder / "models")]
    fields = ["--steps", "400", "--evaluate-every", "10", "--patience", "1000", "--checkpoint-every", "30"]
    return ["recall", *fields, *places]


def signalled(folder: Path, number: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Start a training process and send it a signal once it has validated five times."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = module_here("training", *arguments(folder), pipes=(0, output.fileno(), errors.fileno()))
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and process.is_alive():
                metrics = [path.read_text().splitlines() for path in folder.glob("runs/*/*/metrics.jsonl")]
                if sum(map(len, metrics)) >= 5:
                    break
                process.join(0.02)
            if process.is_alive():
                os.kill(process.pid, number)
            process.join(PATIENCE)
        finally:
            process.kill()
            process.join()
        for said in (output, errors):
            said.seek(0)
        ended = subprocess.CompletedProcess("training", process.exitcode or 0, output.read(), errors.read())
    if ended.returncode == 0:  # it had finished before the signal came
        for made in folder.iterdir():
            shutil.rmtree(made)
        return signalled(folder, number)
    return ended


def outcome(folder: Path) -> tuple[bytes, str]:
    """The newest model and the metrics."""
    newest = max((folder / "models" / "recall").iterdir(), key=lambda version: int(version.name))
    return (newest / "model.onnx").read_bytes(), next(folder.glob("runs/*/*/metrics.jsonl")).read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """What comes of a fit that is left alone."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(arguments(folder)) == 0
    return outcome(folder)


def test_ctrl_c_exports_the_best_so_far_and_the_same_command_goes_on_to_the_same_model(
    whole: tuple[bytes, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = signalled(tmp_path, signal.SIGINT)
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped at step" in stopped.stderr
    assert "is exported" in stopped.stderr
    assert "to go on: python -m training recall" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    provenance = {prop.key: prop.value for prop in onnx.load(tmp_path / "models/recall/1/model.onnx").metadata_props}
    best = json.loads(provenance["tidegate.provenance"])["best_step"]
    assert f"the best so far, of step {best}, is exported" in stopped.stderr
    assert main(arguments(tmp_path)) == 0
    assert "resuming" in capsys.readouterr().out
    assert outcome(tmp_path) == whole


def test_after_kill_9_the_same_command_goes_on_to_the_same_model(
    whole: tuple[bytes, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert signalled(tmp_path, signal.SIGKILL).returncode == -signal.SIGKILL
    assert not (tmp_path / "models").exists()
    assert main(arguments(tmp_path)) == 0
    assert "resuming" in capsys.readouterr().out
    assert outcome(tmp_path) == whole


def interrupted(config: Config, console: Console, steps: int) -> str:
    """Train, and send this process the signal of Ctrl-C from inside a step; what was said at the end."""
    train_step = Trainer._train

    def step(self: Trainer) -> None:
        train_step(self)
        if self.step == steps:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train", step)
        with pytest.raises(Interrupted) as caught:
            train(config, console=console)
    return str(caught.value)


def said(console: Console) -> list[str]:
    """The lines that a run begins with."""
    assert isinstance(console.file, io.StringIO)
    return [line for line in console.file.getvalue().splitlines() if line.startswith(("starting", "resuming"))]


def test_a_run_says_whether_it_starts_or_resumes(brief: Recall, console: Console) -> None:
    assert "stopped at step 33 of 60" in interrupted(brief, console, 33)
    train(brief, console=console)
    train(brief, console=console)
    first, second, third = said(console)
    assert first.startswith("starting")
    assert second.startswith("resuming")
    assert second.endswith("at step 33")
    assert third.startswith("starting")
    assert third.endswith("(it was finished before)")


def test_a_fit_that_was_stopped_before_its_first_validation_has_nothing_to_export(
    brief: Recall, console: Console
) -> None:
    assert interrupted(brief, console, 7).endswith("nothing to export yet")
    assert not brief.models.exists()


def test_a_full_disk_loses_nothing_that_was_there(
    brief: Recall, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(brief, console=console)
    before = {path.name: path.read_bytes() for path in first.run.folder.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            train(brief, console=console)
    aside = first.run.folder.with_suffix(".before")
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    assert not list(brief.runs.rglob("*.tmp"))
    assert [path.name for path in first.model.path.parents[1].iterdir()] == ["1"]
    second = train(brief, console=console)
    assert second.model.path.read_bytes() == first.model.path.read_bytes()
    assert not aside.exists()


def test_fresh_starts_anew_beside_an_unfinished_checkpoint(brief: Recall, console: Console) -> None:
    interrupted(brief, console, 33)
    train(brief, console=console, fresh=True)
    assert said(console)[1].endswith("(--fresh)")
    assert [entry.step for entry in read(open_run(brief, "").metrics)] == [10, 20, 30, 40, 50, 60]


def test_metrics_after_the_checkpoint_are_not_told_twice(brief: Recall, console: Console) -> None:
    run = open_run(brief, "")
    run.begin(brief, brief.task().data)
    trainer = Trainer(brief, brief.task())
    trainer.fit(until=25)
    checkpoint.save(trainer.state(), run.checkpoint)
    # Killed at step 47, while it wrote the line of step 40 for the second time.
    run.metrics.write_text(
        "".join(
            f'{{"step": {step}, "training_loss": 1, "validation_loss": 1, "learning_rate": 1, "best": true}}\n'
            for step in (10, 20, 30, 40)
        )
        + '{"step": 4'
    )
    train(brief, console=console)
    assert [entry.step for entry in read(run.metrics)] == [10, 20, 30, 40, 50, 60]


def test_a_config_that_differs_in_anything_that_matters_is_another_run(brief: Recall, tmp_path: Path) -> None:
    assert open_run(brief, "") != open_run(replace(brief, seed=1), "")
    assert open_run(brief, "") != open_run(brief, "other data")
    assert open_run(brief, "") == open_run(replace(brief, models=tmp_path / "elsewhere"), "")


def test_two_processes_cannot_train_in_the_same_run(brief: Recall, console: Console) -> None:
    with open_run(brief, "").held(), pytest.raises(RunBusy, match="another process"):
        train(brief, console=console)
    assert train(brief, console=console).model.number == 1


def test_a_run_that_was_stopped_at_its_export_goes_on_with_the_export(
    brief: Recall, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "land", stop)
        with pytest.raises(KeyboardInterrupt):
            train(brief, console=console)
    monkeypatch.setattr(Trainer, "_train", None)  # not one more step is needed
    assert train(brief, console=console).model.number == 1
    assert said(console)[1].endswith("at step 60")


def test_a_thread_can_train_too(brief: Recall, console: Console) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, brief, console=console).result().steps == 60


def test_a_damaged_checkpoint_is_a_clear_error(brief: Recall, console: Console) -> None:
    run = open_run(brief, "")
    run.begin(brief, brief.task().data)
    run.checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="--fresh starts anew"):
        train(brief, console=console)


def test_a_checkpoint_of_another_network_is_a_clear_error(brief: Recall, console: Console) -> None:
    run = open_run(brief, "")
    run.begin(brief, brief.task().data)
    other = replace(brief, hidden=2)
    checkpoint.save(Trainer(other, other.task()).state(), run.checkpoint)
    with pytest.raises(CheckpointError, match="does not fit"):
        train(brief, console=console)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"step": 1}, path)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        checkpoint.save({"step": 2}, path)
    assert checkpoint.load(path) == {"step": 1}
