from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tidegate.columns import read_legend
from training.command import main
from training.fitting import checkpoint
from training.fitting.session import train
from training.fitting.trainer import Trainer
from training.tabular.comparing import fit_each
from training.tabular.learning import splits
from training.tabular.learning.windows import NOTHING, Lanes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from training.tabular.settings import Table


def test_one_command_looks_learns_judges_and_exports(
    gappy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    small = ["--hidden", "8", "--steps", "150", "--batch", "4", "--evaluate-every", "25"]
    status = main(["table", gappy, "--target", "load", "--series", "site", "--horizons", "1,6", *small, *places])
    said = capsys.readouterr().out
    assert status == 0, said
    assert "gaps, the longest of 12 steps" in said
    assert "It beats the best naive forecast" in said
    model = onnx.load(tmp_path / "models" / "gappy" / "1" / "model.onnx")
    props = {prop.key: json.loads(prop.value) for prop in model.metadata_props if prop.key != "tidegate.description"}
    inputs = props["tidegate.inputs"]["x"]
    assert inputs["features"][:3] == ["load", "temperature", "kind"]
    assert inputs["missing"] == ["load", "temperature"]
    assert inputs["categories"] == {"kind": ["", "rest", "work"], "site": ["", "a", "b"]}
    assert inputs["calendar"]["days"] == "days"
    assert (inputs["timestamp"], inputs["time_format"]) == ("when", "")
    read_legend(inputs, "x", [len(inputs["features"])])  # as the server and the client do
    assert props["tidegate.outputs"]["y"]["features"] == ["load_in_1", "load_in_6"]


def test_a_fit_takes_as_many_threads_as_it_is_told(brief_table: Callable[..., Table], console: Console) -> None:
    config = brief_table(steps=2, evaluate_every=2, threads=1)
    torch.set_num_threads(2)
    fit_each([config], config.look(), fresh=False, console=console)
    assert torch.get_num_threads() == 1


def test_the_report_is_what_the_exported_file_answers_to_the_rows_of_the_test(
    brief_table: Callable[..., Table], console: Console
) -> None:
    config = brief_table(steps=20)
    result = train(config, console=console)
    task = config.task()
    session = onnxruntime.InferenceSession(str(result.model.path), providers=["CPUExecutionProvider"])
    errors: dict[int, list[float]] = {0: [], 1: []}
    load, hour = task.inputs.x_NF[:, 0], task.look.grid.tick_N
    for begin, first, end in task.parts.spans(task.look.grid, splits.TEST, task.lead):
        (y,) = session.run(None, {"x": task.inputs.x_NF[None, begin:end]})
        for row in range(first, end):
            for index, ahead in enumerate((1, 6)):
                later = [place for place in range(row, end) if hour[place] == hour[row] + ahead]
                if later and not np.isnan(load[later[0]]):
                    errors[index].append(abs(y[0, row - begin, index] - load[later[0]]))
    lines = result.report.values["lines"]
    for index, found in errors.items():
        assert lines[index]["rows"] == len(found)  # type: ignore[index] # plain values
        assert lines[index]["errors"]["model"] == pytest.approx(np.mean(found), rel=1e-5)  # type: ignore[index]


def test_a_fit_that_was_left_goes_on_to_the_same_bits_with_the_state_that_it_carried(
    brief_table: Callable[..., Table], tmp_path: Path
) -> None:
    config = brief_table(dropout=0.2, layers=2)
    whole = Trainer(config, config.task())
    whole.fit(until=30)
    first = Trainer(config, config.task())
    first.fit(until=17)
    checkpoint.save(first.state(), tmp_path / "checkpoint.pt")
    second = Trainer(config, config.task())
    second.resume(checkpoint.load(tmp_path / "checkpoint.pt"))
    second.fit(until=30)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_a_lane_carries_its_state_from_window_to_window_and_starts_anew_with_a_series() -> None:
    lanes = Lanes(((0, 25), (25, 31), (31, 100)), window=8, lanes=2, seed=0)
    for number in range(4):
        epoch = lanes.epoch(number)
        seen = epoch.rows_SBW[epoch.rows_SBW != NOTHING].tolist()
        assert len(seen) == len(set(seen))
        assert len(seen) == 100 if number == 0 else len(seen) > 70
        for lane in range(2):
            for window in range(1, lanes.windows):
                last, here = epoch.rows_SBW[window - 1, lane, -1], epoch.rows_SBW[window, lane, 0]
                if not epoch.fresh_SB[window, lane]:
                    assert here == last + 1
                    assert here not in (0, 25, 31)


def test_the_state_makes_a_window_what_it_would_be_in_the_whole(brief_table: Callable[..., Table]) -> None:
    task = brief_table().task()
    network = task.network().eval()
    e, k = task.e_NE[None, :60], task.k_NC[None, :60]
    whole = network.core(e, k)
    lanes, fresh = e.expand(4, -1, -1), torch.tensor([True] * 4)
    first = network.carry(lanes[:, :30], k.expand(4, -1, -1)[:, :30], fresh)
    second = network.carry(lanes[:, 30:], k.expand(4, -1, -1)[:, 30:], ~fresh)
    torch.testing.assert_close(torch.cat([first, second], dim=1)[:1], whole)


def test_series_are_held_back_whole_where_they_are_short(tmp_path: Path, brief_table: Callable[..., Table]) -> None:
    rows = ["series,load"]
    random = np.random.default_rng(0)
    for name in range(12):
        rows += [f"s{name},{value:.3f}" for value in np.cumsum(random.normal(size=40))]
    path = tmp_path / "short.csv"
    path.write_text("\n".join(rows) + "\n")
    task = brief_table(files=(str(path),), series="series", horizons=(6,)).task()
    assert task.parts.by == "series"
    names = {part: set(task.look.grid.series_N[task.parts.part_N == part]) for part in (0, 1, 2)}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == 12
    assert [column.name for column in task.inputs.columns] == ["load"]  # the name of a series says nothing of another


@pytest.mark.parametrize("f", ["relu", "sigmoid", "tanh"])
def test_a_head_with_a_bounded_function_stays_within_its_bounds(brief_table: Callable[..., Table], f: str) -> None:
    config = brief_table(f=f)
    network = config.task().network()
    network.core.head.weight.data.normal_(0, 50)
    with torch.no_grad():
        y = network(network.example(3, 50))
    assert (y >= -1e-3).all() if f == "relu" else (y > 50).all() and (y < 150).all()
