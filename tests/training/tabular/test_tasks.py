from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

from training.command import main
from training.errors import ConfigError, DataError
from training.export import export
from training.fitting.session import train
from training.fitting.trainer import Trainer
from training.tabular.judging import card
from training.tabular.judging.classes import judged
from training.tabular.judging.verdict import Compared, sentence
from training.tabular.learning import splits
from training.tabular.learning.classify import Classify
from training.tabular.learning.forecast import Wanted
from training.tabular.learning.network import TableNetwork
from training.tabular.task import TableTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from training.tabular.settings import Table


def test_a_rows_score_is_its_error_against_the_forecast_of_the_row_before(brief_table: Callable[..., Table]) -> None:
    config = brief_table(task_="anomaly", horizons=(1,), target=("load", "temperature"))
    task = config.task()
    network = task.network().eval()
    assert network.surprise is not None
    network.surprise.threshold_G.copy_(torch.tensor([7.0, 0.5]))
    start, end = task.look.grid.bounds[0]
    rows, hour = task.inputs.x_NF[start:end], task.look.grid.tick_N[start:end]
    with torch.no_grad():
        y = network(torch.from_numpy(rows[None]))[0].numpy()
    for row in range(end - start):
        errors = [0.0]
        if row and hour[row] == hour[row - 1] + 1:
            errors += [abs(rows[row, place] - y[row - 1, place]) / limit for place, limit in ((0, 7.0), (1, 0.5))]
        score = max(error for error in errors if not np.isnan(error))
        assert y[row, 2] == pytest.approx(score, rel=1e-4, abs=1e-5)
        assert y[row, 3] == (y[row, 2] > 1)
    session = onnxruntime.InferenceSession(export(network, task, {}).content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": rows[None]})
    np.testing.assert_allclose(found[0, :, 2], y[:, 2], rtol=1e-4, atol=1e-5)


def test_the_threshold_is_exceeded_by_the_share_of_the_validation_part_that_was_asked_for(
    brief_table: Callable[..., Table],
) -> None:
    config = brief_table(task_="anomaly", horizons=(1,), alarms=0.05)
    task = config.task()
    network = task.network().eval()
    task.report(network)
    flags = task.served(network, splits.VALIDATION)[task.parts.part_N == splits.VALIDATION, -1]
    assert np.nanmean(flags) == pytest.approx(0.05, abs=0.01)


def test_labels_of_steps_are_learnt_from_what_a_row_says(brief_table: Callable[..., Table], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=600)
    before = np.concatenate([[0.0], x[:-1]])
    label = np.where(before > 0.8, "rare", "usual")  # of the row before: only a memory knows it
    path = tmp_path / "labels.csv"
    path.write_text("x,label\n" + "".join(f"{value:.3f},{name}\n" for value, name in zip(x, label, strict=True)))
    config = brief_table(files=(str(path),), target=("label",), series=None, hidden=12, steps=150, learning_rate=0.02)
    task = config.task()
    assert isinstance(task.aim, Classify)
    trainer = Trainer(config, task)
    trainer.fit(until=config.steps)
    trainer.restore_best()
    found = judged(task, task.aim, task.served(trainer.network, splits.TEST))
    assert found.accuracy > 0.95
    report = task.report(trainer.network)
    assert str(report.values["verdict"]).startswith("It beats the most frequent class")
    assert report.values["log_loss"] == pytest.approx(found.log_loss)


def test_a_test_of_one_class_is_said_to_say_nothing(
    brief_table: Callable[..., Table], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    labels = ["a"] * 40 + ["b"] * 40 + ["a"] * 10 + ["c"] * 60  # as a table that is sorted by its label
    path = tmp_path / "sorted.csv"
    path.write_text("x,label\n" + "".join(f"{random.normal():.3f},{label}\n" for label in labels))
    task = brief_table(files=(str(path),), target=("label",), series=None, training_share=0.65).task()
    verdict = str(task.report(task.network()).values["verdict"])
    assert verdict.startswith("The test says NOTHING of what the model is worth: all of its rows are 'c'.")
    with pytest.raises(DataError, match="column 'label': the test part has no label that the training part has; give"):
        brief_table(files=(str(path),), target=("label",), series=None, training_share=0.5).task()
    path.write_text(path.read_text().replace(",c\n", ",a\n", 59))
    task = brief_table(files=(str(path),), target=("label",), series=None, training_share=0.5).task()
    assert task.notes[-1] == "rows of c are not judged: the training part has none"
    assert main(["table", str(path), "--target", "label", "--look"]) == 0
    assert "if their order means" in capsys.readouterr().out


@pytest.mark.parametrize(("first", "last", "part"), [(200, 260, "validation"), (240, 300, "test")])
def test_a_part_that_knows_nothing_of_the_target_is_refused_before_any_training(
    brief_table: Callable[..., Table], tmp_path: Path, first: int, last: int, part: str
) -> None:
    rows = [f"{row},{'' if first <= row < last else row % 7}.5".replace(",.5", ",") for row in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["other,load", *rows]) + "\n")
    config = brief_table(files=(str(tmp_path / "t.csv"),), series=(), horizons=(1,))
    with pytest.raises(DataError, match=rf"column 'load': 0 rows of the {part} part know its value 1 step later; give"):
        config.task()


def test_a_verdict_on_few_rows_says_how_few_and_one_on_many_does_not() -> None:
    for rows, few in ((20, " The test has 20 rows only, which is too few to be sure."), (200, "")):
        y_N, there_N = np.zeros(rows, np.float32), np.ones(rows, np.bool_)
        found = Compared(Wanted("load", 6, "MW"), y_N, {"model": y_N + 1, "median": y_N + 2}, there_N)
        assert sentence([found]).endswith(f"(median): its mean absolute error is 50.0% lower.{few}")
        assert found.wanted.title == "load in MW, 6 ahead"


def test_a_series_of_one_label_is_judged_at_its_last_row(brief_table: Callable[..., Table], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["name,x,label"]
    for number in range(30):
        rising = number % 2
        values = np.cumsum(random.normal(size=20) + (0.5 if rising else -0.5))
        lines += [f"s{number},{value:.3f},{'up' if rising else 'down'}" for value in values]
    path = tmp_path / "series.csv"
    path.write_text("\n".join(lines) + "\n")
    config = brief_table(files=(str(path),), target=("label",), series="name", horizons=(1,), steps=60, split="series")
    task = config.task()
    assert isinstance(task.aim, Classify)
    assert task.aim.whole
    trainer = Trainer(config, task)
    trainer.fit(until=config.steps)
    trainer.restore_best()
    found = judged(task, task.aim, task.served(trainer.network, splits.TEST))
    assert len(found.label_M) == len(set(task.look.grid.series_N[task.parts.part_N == splits.TEST]))
    assert found.accuracy > 0.7


def test_weights_of_rare_classes_do_not_change_what_a_probability_means(brief_table: Callable[..., Table]) -> None:
    task = brief_table(target=("kind",)).task()
    network = task.network()
    assert isinstance(network, TableNetwork)
    head = network.core.head
    with torch.no_grad():
        head.weight.zero_()  # the head knows nothing: what is best then is the weighted share of each class
        share = torch.tensor(task.aim.prior_C, dtype=torch.float32) * task.aim.weight_C  # type: ignore[attr-defined]
        head.bias.copy_(share.log())
        served = network.eval()(task.x_NF[None, :5])[0, 0]
    np.testing.assert_allclose(served.numpy(), task.aim.prior_C, rtol=1e-5)  # type: ignore[attr-defined]


def yaml_of(text: str) -> Any:  # noqa: ANN401 - whatever it says
    """What a model hub reads of it."""
    return import_module("yaml").safe_load(text)


@pytest.mark.usefixtures("pictures")
def test_the_card_says_first_what_the_model_is_worth_and_has_its_pictures(
    brief_table: Callable[..., Table], console: Console
) -> None:
    config = brief_table(quantiles=(0.1, 0.5, 0.9), steps=12)
    result = train(config, console=console)
    task = TableTask(config, config.look())
    text = card.write(task, result, "python -m training table gappy.csv").read_text()
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    told = yaml_of(head)
    (entry,) = told["model-index"]
    (results,) = entry["results"]
    assert (told["library_name"], entry["name"]) == ("onnx", "gappy")
    assert results["dataset"] == {"name": "gappy.csv", "type": "gappy"}  # both are required; the type is an identifier
    assert [set(metric) for metric in results["metrics"]] == [{"type", "name", "value"}] * 2
    assert body.strip().splitlines()[0] == result.report.values["verdict"]
    for picture in ("loss.png", "over_time.png", "worst.png", "calibration.png"):
        assert f"({picture})" in text
        assert (result.run.folder / picture).stat().st_size > 1000
    y = card.answered(task, result.model.path)
    assert f"0.1: {card.coverage(task, y)[0]:.3f}" in text
    assert "The server's check says that it will be served" in text
    assert "python -m training table gappy.csv" in text


def test_a_model_that_loses_says_so_first(brief_table: Callable[..., Table]) -> None:
    task = brief_table().task()
    network = task.network().eval()
    with torch.no_grad():
        network.core.head.bias.fill_(50.0)
    assert str(task.report(network).values["verdict"]).startswith("It LOSES to the best naive forecast")


@pytest.mark.parametrize(
    "changes",
    [
        {"task_": "anomaly", "horizons": (1, 6)},
        {"task_": "classify", "quantiles": (0.5,)},
        {"quantiles": (1.5,)},
        {"f": "relu", "task_": "classify"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    brief_table: Callable[..., Table], changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigError):
        brief_table(**changes)
