from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

from training.export import export
from training.network import build
from training.tabular.learning.front import Front, encoding_of
from training.tabular.learning.inputs import Input, Inputs
from training.tabular.learning.network import TableNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.tabular.settings import Table
    from training.tabular.task import TableTask


def by_a_loop(task: TableTask, rows: np.ndarray) -> list[list[float]]:  # type: ignore[type-arg] # [T, F]
    """What the first nodes give, row by row, as a person would write it."""
    encoding = task.encoding
    last = [0.0] * len(encoding.numbers)
    since = [0.0] * len(encoding.numbers)
    before = None
    found = []
    for row in rows.astype(np.float64):
        now = row[encoding.clock[0]] * 86400 + row[encoding.clock[1]]
        elapsed = 1.0 if before is None else (now - before) / 3600
        before = now
        numbers, unseen, waited = [], [], []
        for index, place in enumerate(encoding.numbers):
            value = (row[place] - encoding.mean_n[index]) / encoding.deviation_n[index]
            gone = math.isnan(value)
            since[index] = since[index] + elapsed if gone else 0.0
            last[index] = last[index] if gone else value
            numbers.append(last[index])
            if index in encoding.gappy:
                unseen.append(float(gone))
                waited.append(since[index] / (since[index] + 8))
        waves = []
        for place, turn, phase in encoding.waves:
            waves.append(math.sin(2 * math.pi * (row[place] * turn + phase)))
        found.append([*numbers, *unseen, *waited, elapsed / (elapsed + 8), *waves])
    return found


def test_gaps_are_filled_with_the_last_value_and_its_age_as_a_loop_does(brief_table: Callable[..., Table]) -> None:
    task = brief_table().task()
    start, end = task.look.grid.bounds[1]
    rows = task.x_NF[start:end]
    assert rows.isnan().any()
    found = Front(task.encoding)(rows[None]).e_BTE[0].numpy()
    expected = np.array(by_a_loop(task, rows.numpy()))
    waves = len(task.encoding.waves)
    np.testing.assert_allclose(found[:, :-waves], expected[:, :-waves], atol=1e-5)
    np.testing.assert_allclose(found[:, -waves:], expected[:, -waves:], atol=2e-3)  # parabolas


def test_rows_that_were_encoded_once_for_the_fit_are_those_of_the_graph(brief_table: Callable[..., Table]) -> None:
    task = brief_table().task()
    for start, end in task.look.grid.bounds:
        encoded = task.front(task.x_NF[None, start:end])
        assert torch.equal(task.e_NE[start:end], encoded.e_BTE[0])
        assert torch.equal(task.k_NC[start:end], encoded.k_BTC[0])


@pytest.mark.parametrize(
    ("cell", "options"), [("rnn", {}), ("lstm", {"quantiles": (0.1, 0.5, 0.9)}), ("gru", {"layers": 2})]
)
def test_onnxruntime_gives_what_torch_gives_with_gaps_and_what_was_never_seen(
    brief_table: Callable[..., Table], cell: str, options: dict[str, object]
) -> None:
    config = brief_table(cell=cell, **options)
    task = config.task()
    network = build(config, task)
    assert isinstance(network, TableNetwork)
    session = onnxruntime.InferenceSession(export(network, task, {}).content, providers=["CPUExecutionProvider"])
    x = network.example(5, 200)
    x[0, :20, [place for place, column in enumerate(task.inputs.columns) if column.missing]] = float("nan")
    x[1, :, task.encoding.categories[0]] = 99.0  # no category that there is
    (found,) = session.run(None, {"x": x.numpy()})
    with torch.no_grad():
        expected = network(x).numpy()
    assert not np.isnan(expected).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_quantiles_never_cross(brief_table: Callable[..., Table]) -> None:
    config = brief_table(quantiles=(0.05, 0.5, 0.6, 0.95))
    task = config.task()
    network = build(config, task)
    for parameter in network.parameters():
        parameter.data.normal_(0, 3)  # worse than any fit
    with torch.no_grad():
        y = network(network.example(3, 50)).reshape(3, 50, 2, 4)
    assert (y.diff(dim=-1) >= 0).all()


def test_a_number_that_varies_only_after_the_training_part_stays_small_and_a_tiny_one_does_not_vanish() -> None:
    later_N = np.arange(100) >= 50
    columns = [later_N, np.where(later_N, 101_000, 100_000), 1e-9 * (np.arange(100) % 7), np.where(later_N, 5, np.nan)]
    x_NF = np.stack(columns, axis=1).astype(np.float32)
    inputs = Inputs(
        tuple(Input(name, "number", missing=name == "new") for name in ("flag", "air", "tiny", "new")), x_NF
    )
    z_NE = Front(encoding_of(inputs, ~later_N, 60.0))(torch.from_numpy(x_NF)[None]).e_BTE[0, :, :4]
    assert z_NE.abs().max() <= 5
    assert z_NE[:, 2].std() > 0.5
