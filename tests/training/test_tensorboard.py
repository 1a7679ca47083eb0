from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from training.command import main
from training.fitting.run import open_run
from training.fitting.session import train

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from training.recipes.recall import Recall


class Writer:
    """What TensorBoard's writer was told."""

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        pass


def test_the_curves_of_a_fit_are_written_where_tensorboard_finds_them(
    brief: Recall, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Writer] = []

    def writer(folder: str, purge_step: int) -> Writer:
        made.append(Writer(folder, purge_step))
        return made[-1]

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    result = train(replace(brief, tensorboard=True), console=console)
    (board,) = made
    assert (board.folder, board.purge_step) == (str(result.run.folder / "tensorboard"), 1)
    steps = {name: [step for found, _, step in board.scalars if found == name] for name, _, _ in board.scalars}
    assert steps["loss/batch"] == list(range(1, 61))
    assert steps["loss/validation"] == steps["loss/training"] == steps["learning_rate"] == [10, 20, 30, 40, 50, 60]


def test_a_run_with_curves_is_the_same_run(brief: Recall) -> None:
    assert open_run(brief, "") == open_run(replace(brief, tensorboard=True), "")


def test_without_its_package_the_flag_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["recall", "--tensorboard", "--runs", str(tmp_path), "--models", str(tmp_path)]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
