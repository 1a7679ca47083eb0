"""What a model keeps of its target: the values before, in units of the series' own level, and past the recurrence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from training.errors import ConfigError
from training.export import export
from training.tabular.learning import splits
from training.tabular.learning.front import Encoding, Front
from training.tabular.learning.graph import front
from training.tabular.learning.network import TableNetwork
from training.tabular.learning.nodes import FLOAT, Nodes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.tabular.settings import Table
    from training.tabular.task import TableTask

LAGS = 24


def before_by_a_loop(task: TableTask, first: int, end: int) -> np.ndarray:  # type: ignore[type-arg] # [T, L]
    """The value that each of the last steps had, row by row, as a person would write it."""
    place = task.inputs.place("load")
    ticks, values = task.look.grid.tick_N[first:end].tolist(), task.inputs.x_NF[first:end, place].tolist()
    mean, deviation = (getattr(task.encoding, name)[task.encoding.lagged[0]] for name in ("mean_n", "deviation_n"))
    known, last = {}, 0.0
    for tick, value in zip(ticks, values, strict=True):
        last = last if np.isnan(value) else (value - mean) / deviation
        known[tick] = last
    found = []
    for tick in ticks:
        steps = [max((one for one in known if one <= tick - back), default=ticks[0]) for back in range(1, LAGS + 1)]
        found.append([known[step] for step in steps])
    return np.array(found)


@pytest.mark.parametrize("relative", [False, True])
def test_the_values_of_the_last_steps_are_inputs_across_gaps(
    brief_table: Callable[..., Table], *, relative: bool
) -> None:
    task = brief_table(lags=LAGS, relative=relative).task()
    start, end = task.look.grid.bounds[1][0], task.look.grid.bounds[1][0] + 130
    assert np.diff(task.look.grid.tick_N[start:end]).max() > 1
    encoding = task.encoding
    found = Front(encoding)(task.x_NF[None, start:end]).e_BTE[0].numpy()
    expected = before_by_a_loop(task, start, end)
    if relative:
        now = (found[:, encoding.lagged[0]] + 1) * found[:, -1]
        level = np.abs(np.concatenate([now[:, None], expected], axis=1)).mean(axis=1).clip(encoding.least[0])
        np.testing.assert_allclose(found[:, -1], level, rtol=1e-5)
        expected = expected / level[:, None] - 1
    np.testing.assert_allclose(found[:, encoding.first_lag : encoding.inputs], expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"relative": True, "quantiles": (0.1, 0.5, 0.9)}, {"task_": "anomaly", "horizons": (1,)}]
)
def test_onnxruntime_keeps_the_lags_as_torch_does(
    brief_table: Callable[..., Table], changes: dict[str, object]
) -> None:
    task = brief_table(lags=LAGS, **changes).task()
    network = task.network().eval()
    task.report(network)
    artefact = export(network, task, {})
    start, end = task.look.grid.bounds[0]
    rows = task.x_NF[None, start:end]
    (found,) = onnxruntime.InferenceSession(artefact.content, providers=["CPUExecutionProvider"]).run(
        None, {"x": rows.numpy()}
    )
    with torch.no_grad():
        np.testing.assert_allclose(found, network(rows).numpy(), rtol=1e-4, atol=1e-3)


def test_the_fit_begins_with_the_linear_regression_on_the_lags(brief_table: Callable[..., Table]) -> None:
    task = brief_table(lags=LAGS, series=None, ignore=("site",)).task()
    network = task.network().eval()
    with torch.no_grad():
        y_NG = task.answers(network, splits.TRAINING).numpy()
    x_NE = np.column_stack([np.ones(len(task.e_NE)), task.e_NE.numpy()])
    for index, came_N in enumerate(task.aim.y_NG.T):  # type: ignore[attr-defined]
        known_N = ~np.isnan(came_N) & task.learnt_N
        weights, *_ = np.linalg.lstsq(x_NE[known_N], came_N[known_N], rcond=None)
        exact = np.abs(x_NE[known_N] @ weights - came_N[known_N]).mean()
        assert np.abs(y_NG[known_N, index] - came_N[known_N]).mean() < 1.05 * exact


def growing(path: Path) -> str:
    """Series with one shape, each of its own size, some thousand times as large as others."""
    random = np.random.default_rng(0)
    lines = ["name,load"]
    for number in range(12):
        size = 10.0 ** (number % 4)
        values = size * (3 + np.sin(np.arange(90) / 12 * 2 * np.pi)) * np.exp(0.01 * np.arange(90))
        lines += [f"s{number},{value:.6g}" for value in values * (1 + 0.02 * random.normal(size=90))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_series_of_different_sizes_count_alike_and_a_forecast_grows_with_its_series(
    brief_table: Callable[..., Table], tmp_path: Path
) -> None:
    file = growing(tmp_path / "growing.csv")
    config = brief_table(
        files=(file,), series="name", horizons=(1, 12), lags=12, relative=True, split="series", hidden=4
    )
    task = config.task()
    network = task.network().eval()
    assert isinstance(network, TableNetwork)
    rows = task.x_NF[None, :60]
    with torch.no_grad():
        once, tenfold = network(rows), network(rows * 10)
    torch.testing.assert_close(10 * once, tenfold, rtol=1e-4, atol=1e-3)
    came_NG = task.aim.y_NG  # type: ignore[attr-defined]
    error_NG = np.abs(task.served(network, splits.TEST) - came_NG) / came_NG
    for start, end in task.look.grid.bounds:
        if task.parts.part_N[start] == splits.TEST:
            assert np.nanmean(error_NG[start + 24 : end]) < 0.06


def test_rows_before_the_first_value_of_a_series_count_for_nothing_in_units_of_its_level(
    brief_table: Callable[..., Table], tmp_path: Path
) -> None:
    file = growing(tmp_path / "growing.csv")
    lines = (tmp_path / "growing.csv").read_text().splitlines()
    late = tmp_path / "late.csv"
    late.write_text("\n".join([lines[0], *(f"s{number}," for number in range(12)), *lines[1:]]) + "\n")
    changes = {"series": "name", "horizons": (1,), "lags": 12, "relative": True, "split": "series"}
    spreads, losses = [], []
    for each in (file, str(late)):
        task = brief_table(files=(each,), **changes).task()
        network = task.network().eval()
        spreads.append(float(network.core.tail.spread_G))  # type: ignore[union-attr,arg-type]
        losses.append(task.validation_loss(network))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.5)
    assert losses[1] == pytest.approx(losses[0], rel=0.5)


def test_a_forecast_starts_from_the_last_season_where_the_lags_reach_it(
    brief_table: Callable[..., Table], tmp_path: Path
) -> None:
    file = growing(tmp_path / "growing.csv")
    changes = {"files": (file,), "series": "name", "horizons": (6,), "split": "series", "relative": True}
    for lags, places in ((12, [5]), (4, [])):
        task = brief_table(lags=lags, **changes).task()
        base_E = task.network().core.tail.base_EG[:, 0]  # type: ignore[union-attr]
        found = [place - task.encoding.first_lag for place in base_E.nonzero()[:, 0].tolist()]
        assert [place for place in found if place >= 0] == places


@pytest.mark.parametrize(
    "changes",
    [{"lags": 1}, {"relative": True}, {"task_": "classify", "lags": 4}, {"lags": 4, "relative": True, "f": "relu"}],
)
def test_lags_that_say_nothing_are_refused(brief_table: Callable[..., Table], changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        brief_table(**changes)


def test_onnxruntime_keeps_the_lags_as_torch_does_where_two_rows_are_of_one_step() -> None:
    encoding = Encoding((0,), (0.0,), (1.0,), (), (), (), (), (1, 2), 60.0, lags=3, lagged=(0,))
    nodes = Nodes()
    front(nodes, encoding)
    ports = [helper.make_tensor_value_info(name, FLOAT, ["batch", "time", None]) for name in ("x", "e")]
    graph = helper.make_graph(nodes.nodes, "front", ports[:1], ports[1:], nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    seconds = np.cumsum([0, 60, 60, 60, 15, 60, 60, 15, 15, 60, 180, 60])
    rows = np.stack([np.arange(12), np.zeros(12), seconds], axis=1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": rows})
    np.testing.assert_array_equal(found, Front(encoding)(torch.from_numpy(rows)).e_BTE.numpy())
