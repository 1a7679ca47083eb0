"""Several processes, started by torchrun, learn what one with the same total batch learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from training.command import main
from training.errors import ConfigError
from training.fitting import checkpoint, processes
from training.fitting.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.tabular.settings import Table

ROOT = str(Path(__file__).parents[3])
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training")


def command(file: str, folder: Path) -> list[str]:
    small = ["--hidden", "5", "--steps", "24", "--batch", "4", "--evaluate-every", "4", "--checkpoint-every", "10"]
    places = ["--runs", str(folder / "runs"), "--models", str(folder / "models")]
    return ["table", file, "--target", "load", "--series", "site", "--horizons", "1,6", *small, *places]


def curve(folder: Path) -> list[tuple[float, float]]:
    (metrics,) = (folder / "runs").rglob("metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    return [(line["training_loss"], line["validation_loss"]) for line in lines]


def test_two_processes_have_the_loss_curve_of_one_and_write_one_model(gappy: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(command(gappy, one)) == 0
    environment = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TORCHRUN, *command(gappy, two)], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the card is") == 1
    for found, expected in zip(curve(two), curve(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert [path.name for path in (two / "models" / "gappy").iterdir()] == ["1"]
    memories = []
    for folder in (one, two):
        (path,) = (folder / "runs").rglob("checkpoint.pt")
        memories.append(checkpoint.load(path)["network"]["memory"])
    assert memories[1].numpy() == pytest.approx(memories[0].numpy(), abs=1e-3)  # the state of every lane is in it


def test_a_batch_that_cannot_be_shared_is_refused(
    brief_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = brief_table()
    monkeypatch.setattr(processes, "count", lambda: 3)
    with pytest.raises(ConfigError, match="--batch: 4 cannot be shared by 3 processes"):
        Trainer(config, config.task())


def test_one_process_is_the_first_and_has_every_row() -> None:
    assert (processes.count(), processes.first(), processes.mine(6)) == (1, True, slice(0, 6))
    assert processes.told("a") == "a"
