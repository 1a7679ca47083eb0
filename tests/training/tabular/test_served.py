"""The very table that was learnt from is streamed to a real server, and what comes back is what torch says."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.running_server import RunningServer
from tests.tidegate.cli.test_cli import run
from tests.training.tabular.conftest import lines
from training.fitting import checkpoint
from training.fitting.session import train
from training.tabular.settings import Table, defaults

if TYPE_CHECKING:
    from collections.abc import Iterator

METER, SITES = {"series": "meter", "ignore": ("site", "region")}, {"series": ("region", "site"), "ignore": "meter"}
MODELS: dict[str, dict[str, Any]] = {
    "numbers": {"horizons": (1, 6), "cell": "gru", "layers": 2} | METER,
    "quantiles": {"quantiles": (0.1, 0.5, 0.9), "cell": "lstm"} | SITES,
    "lags": {"lags": 24, "relative": True, "horizons": (1, 6)} | SITES,
    "known": {"known": ("temperature", "kind"), "horizons": (1, 6)} | METER,
    "labels": {"target": ("kind",), "cell": "rnn"} | SITES,
    "anomalies": {"task_": "anomaly", "cell": "lstm"} | METER,
}
PLACES = {"a": "a,north", "b": "b,north", "c": "a,south"}


def config_of(name: str, file: str, folder: Path) -> Table:
    usual = defaults(
        files=(file,), name=name, target=("load",), hidden=6, steps=12, batch=4, evaluate_every=6,
        runs=folder / "runs", models=folder / "models",
    )  # fmt: skip
    return replace(usual, **MODELS[name])


@pytest.fixture(scope="module")
def meters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three series by meter, or by region and site, with gaps and missing values; their rows stand in mixed order."""
    found = []
    for meter, place in PLACES.items():
        head, *rows = lines(series=(meter,))
        found += [f"{row.removesuffix(meter)}{place},{meter}" for row in rows[10 * len(found) % 97 :]]
    path = tmp_path_factory.mktemp("meters") / "meters.csv"
    path.write_text("\n".join([f"{head},region,meter", *sorted(found)]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def answers(meters: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """What torch says to each row of the file, by model; the models lie in `folder`."""
    folder = tmp_path_factory.getbasetemp() / "served"
    found = {}
    for name in MODELS:
        config = config_of(name, meters, folder)
        result = train(config, console=Console(file=io.StringIO()))
        task = config.task()
        network = task.network()
        network.load_state_dict(checkpoint.load(result.run.checkpoint)["best"])
        network.eval()
        task.report(network)  # an anomaly's threshold is chosen here
        grid = task.look.grid
        with torch.no_grad():
            said = np.concatenate([network(task.x_NF[None, start:end])[0].numpy() for start, end in grid.bounds])
        found[name] = np.empty_like(said)
        found[name][grid.row_N] = said
    return found


@pytest.fixture(scope="module")
def server(answers: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:  # noqa: ARG001 - trained first
    with RunningServer(tmp_path_factory.getbasetemp() / "served" / "models") as running:
        yield running.ready()


@pytest.mark.parametrize("name", MODELS)
def test_the_raw_table_of_several_series_with_gaps_and_categories_is_answered_as_torch_answers_each(
    server: RunningServer,
    answers: dict[str, np.ndarray],  # type: ignore[type-arg]
    meters: str,
    name: str,
) -> None:
    done = run(server.address, "stream", name, "--no-trace", meters)
    assert done.returncode == 0, done.stderr
    expected = answers[name]
    names, *rows = csv.reader(io.StringIO(done.stdout))
    given = list(csv.DictReader(Path(meters).read_text().splitlines()))
    apart = names[: names.index("step")]
    assert apart == (["meter"] if MODELS[name]["series"] == "meter" else ["region", "site"])
    assert [row[: len(apart)] for row in rows] == [[line[column] for column in apart] for line in given]
    columns = [place for place, column in enumerate(names) if column not in (*apart, "step", "y")]
    found = np.array([[float(row[place]) for place in columns] for row in rows])
    assert found.shape == expected.shape
    size = np.maximum(1, np.abs(expected).max(axis=0))
    assert float((np.abs(found - expected) / size).max()) <= 1e-5
