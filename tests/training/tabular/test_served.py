"""The very table that was learnt from is streamed to a real server, and what comes back is what torch says."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.running_server import ROOT, RunningServer
from training.fitting import checkpoint
from training.fitting.session import train
from training.tabular.settings import Table, defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS: dict[str, dict[str, Any]] = {
    "numbers": {"horizons": (1, 6), "cell": "gru", "layers": 2},
    "quantiles": {"quantiles": (0.1, 0.5, 0.9), "cell": "lstm"},
    "lags": {"lags": 24, "relative": True, "horizons": (1, 6)},
    "known": {"known": ("temperature", "kind"), "horizons": (1, 6)},
    "labels": {"target": ("kind",), "cell": "rnn"},
    "anomalies": {"task_": "anomaly", "cell": "lstm"},
}


def config_of(name: str, file: str, folder: Path) -> Table:
    usual = defaults(
        files=(file,), name=name, target=("load",), series="site", hidden=6, steps=12, batch=4, evaluate_every=6,
        runs=folder / "runs", models=folder / "models",
    )  # fmt: skip
    return replace(usual, **MODELS[name])


@pytest.fixture(scope="module")
def answers(gappy: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """What torch says to the rows of the first series, by model; the models lie in `folder`."""
    folder = tmp_path_factory.getbasetemp() / "served"
    found = {}
    for name in MODELS:
        config = config_of(name, gappy, folder)
        result = train(config, console=Console(file=io.StringIO()))
        task = config.task()
        network = task.network()
        network.load_state_dict(checkpoint.load(result.run.checkpoint)["best"])
        network.eval()
        task.report(network)  # an anomaly's threshold is chosen here
        start, end = task.look.grid.bounds[0]
        with torch.no_grad():
            found[name] = network(task.x_NF[None, start:end])[0].numpy()
    return found


@pytest.fixture(scope="module")
def server(answers: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:  # noqa: ARG001 - trained first
    with RunningServer(tmp_path_factory.getbasetemp() / "served" / "models") as running:
        yield running.ready()


@pytest.mark.parametrize("name", MODELS)
def test_the_raw_table_with_gaps_and_categories_is_answered_as_torch_answers(
    server: RunningServer,
    answers: dict[str, np.ndarray],
    gappy: str,
    tmp_path: Path,
    name: str,  # type: ignore[type-arg]
) -> None:
    lines = Path(gappy).read_text().splitlines()
    first = tmp_path / "first.csv"
    first.write_text("\n".join([lines[0], *(line for line in lines if line.endswith(",a"))]) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli", "--server", server.address, "stream", name, "--no-trace", str(first)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = answers[name]
    names = list(csv.DictReader(io.StringIO(done.stdout)).fieldnames or [])
    rows = list(csv.reader(io.StringIO(done.stdout)))[1:]
    columns = [place for place, column in enumerate(names) if column not in ("step", "y")][: expected.shape[1]]
    found = np.array([[float(row[place]) for place in columns] for row in rows])
    assert found.shape == expected.shape
    size = np.maximum(1, np.abs(expected).max(axis=0))
    assert float((np.abs(found - expected) / size).max()) <= 1e-5
