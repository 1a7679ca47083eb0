from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import torch
from rich.console import Console

import training
from training.command import main
from training.errors import ConfigError, DataError
from training.fitting import checkpoint
from training.fitting.trainer import Trainer
from training.tabular.command import earlier
from training.tabular.inheriting import inherit
from training.tabular.judging import card
from training.tabular.searching import open_study, search
from training.tabular.settings import defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.tabular.settings import Table

BRIEF = [
    "--target",
    "load",
    "--series",
    "site",
    "--hidden",
    "5",
    "--steps",
    "8",
    "--batch",
    "4",
    "--evaluate-every",
    "4",
]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's check of each file takes seconds, and is another test's."""
    monkeypatch.setattr(card, "served", lambda _: "")


def command(folder: Path, file: str, *more: str) -> int:
    return main(["table", file, *BRIEF, "--runs", str(folder / "runs"), "--models", str(folder / "models"), *more])


def test_columns_that_tell_series_apart_are_given_at_once_or_one_by_one_and_the_card_names_them(
    gappy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pl.read_csv(gappy)
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("odd")).otherwise(pl.lit("even"))
    table.with_columns(half.alias("half")).write_csv(tmp_path / "halves.csv")
    file = str(tmp_path / "halves.csv")
    pages = []
    for more in (["--series", "site", "half"], ["--series", "half"]):  # BRIEF has --series site
        given = BRIEF[:2] + BRIEF[4:] if len(more) == 3 else BRIEF
        assert main(["table", file, *given, *more, "--look"]) == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    assert "site, half: 4 series" in pages[0]
    assert command(tmp_path, file, "--series", "half") == 0
    (card_file,) = (tmp_path / "runs").glob("halves/*/card.md")
    assert "| site, half | model | best naive |" in card_file.read_text()
    (config_file,) = (tmp_path / "runs").glob("halves/*/config.json")
    said = json.loads(config_file.read_text())
    for before, now in (("site", ("site",)), (None, ()), (["site", "half"], ("site", "half"))):
        config_file.write_text(json.dumps(said | {"series": before}))
        assert defaults(**earlier(str(config_file.parent))).series == now


def test_all_cells_and_seeds_are_fitted_and_the_best_seed_of_each_cell_is_exported(
    gappy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, gappy, "--cell", "all", "--seeds", "2") == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["gappy-gru", "gappy-lstm", "gappy-rnn"]
    for cell in ("rnn", "lstm", "gru"):
        assert f"gappy-{cell}/1/model.onnx" in said
        losses = {}
        for run in (tmp_path / "runs" / f"gappy-{cell}").glob("*/config.json"):
            state = checkpoint.load(run.parent / "checkpoint.pt")
            losses[run.parent] = state["best_loss"]
        assert len(losses) == 2
        (exported,) = [run for run in losses if (run / "result.json").exists()]
        assert losses[exported] == min(losses.values())
        assert "over 2 seeds" in (exported / "card.md").read_text()


def test_a_run_goes_on_with_new_data_and_reads_a_row_as_it_did_before(
    gappy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, gappy) == 0
    (first,) = (tmp_path / "runs" / "gappy").glob("*/inputs.json")
    rows = [line.split(",") for line in open_text(gappy)]
    doubled = [",".join([cells[0], str(2 * float(cells[1])) if cells[1] else "", *cells[2:]]) for cells in rows[1:]]
    newer = tmp_path / "newer.csv"
    newer.write_text("\n".join([",".join(rows[0]), *doubled]) + "\n")
    places = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    assert main(["table", str(newer), "--from", str(first.parent), "--steps", "4", *places]) == 0
    assert "gappy/2/model.onnx" in capsys.readouterr().out
    second = next(path for path in (tmp_path / "runs" / "gappy").glob("*/inputs.json") if path != first)
    assert json.loads(second.read_text()) == json.loads(first.read_text())  # the scaling is that of the first table


def open_text(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def test_the_first_weights_are_those_of_the_run_that_is_gone_on_with(
    brief_table: Callable[..., Table], gappy: str, tmp_path: Path
) -> None:
    assert command(tmp_path, gappy) == 0
    (first,) = (tmp_path / "runs" / "gappy").glob("*/inputs.json")
    config = brief_table(from_=str(first.parent), horizons=(1,), hidden=5)
    network = Trainer(config, config.task()).network
    best = inherit(str(first.parent)).weights
    for name, value in network.state_dict().items():
        assert name == "memory" or torch.equal(value, best[name]), name
    with pytest.raises(ConfigError, match=r"the network of .* is another"):
        brief_table(from_=str(first.parent), horizons=(1,), hidden=6).task().network()
    with pytest.raises(ConfigError, match="holds no finished run of a table"):
        brief_table(from_=str(tmp_path)).task()
    other = tmp_path / "other.csv"
    other.write_text("\n".join(line.replace("temperature", "warmth") for line in open_text(gappy)) + "\n")
    with pytest.raises(DataError, match="has no column of numbers 'temperature'"):
        brief_table(files=(str(other),), from_=str(first.parent), horizons=(1,), hidden=5).task()


def test_a_search_tries_settings_keeps_a_journal_and_goes_on_with_it(brief_table: Callable[..., Table]) -> None:
    config = brief_table(steps=8, evaluate_every=2)
    look, console = config.look(), Console(file=io.StringIO(), width=200)
    found = search(config, look, 0.03, console)
    study = open_study(config, look)
    tried = len(study.trials)
    assert tried >= 1
    assert found.hidden == study.best_params["hidden"]
    assert "validation loss" in console.file.getvalue()  # type: ignore[attr-defined] # a StringIO
    search(config, look, 0.001, console)
    assert len(open_study(config, look).trials) > tried


def test_a_frame_goes_the_same_way_as_a_file(gappy: str, tmp_path: Path) -> None:
    frame = pl.read_csv(gappy, try_parse_dates=True)
    result = training.table(
        frame, target="load", series="site", name="frame", hidden=5, steps=8, batch=4, evaluate_every=4,
        runs=tmp_path / "runs", models=tmp_path / "models", console=Console(file=io.StringIO()),
    )  # fmt: skip
    assert result.model.path.exists()
    assert (result.run.folder / "card.md").read_text().startswith("---\n")
    with pytest.raises(DataError, match="the frame has no column 'nothing'"):
        training.table(frame, target="nothing", console=Console(file=io.StringIO()))


def stop_at(patch: pytest.MonkeyPatch, count: int) -> None:
    """The signal of Ctrl-C after so many steps of training in this process."""
    train_step, done = Trainer._train, [0]

    def step(self: Trainer) -> None:
        train_step(self)
        done[0] += 1
        if done[0] == count:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(Trainer, "_train", step)


def test_ctrl_c_exports_the_best_of_what_was_fitted_with_its_card(
    gappy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_at(monkeypatch, 8 + 6)  # the second seed has validated once
    assert command(tmp_path, gappy, "--seeds", "3") == 130
    said = capsys.readouterr()
    assert "stopped at step 6 of 8" in said.err
    assert "the best so far, of step 4, is exported" in said.err
    assert (tmp_path / "models" / "gappy" / "1" / "model.onnx").exists()
    (written,) = (tmp_path / "runs").rglob("card.md")
    assert "over 2 seeds" in written.read_text()
    assert len(list((tmp_path / "runs").rglob("checkpoint.pt"))) == 2


def test_ctrl_c_ends_a_search_and_the_best_of_what_was_tried_is_fitted(
    brief_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = brief_table(steps=8, evaluate_every=4, patience=100)
    stop_at(monkeypatch, 8 + 3)  # in the second trial
    found = search(config, config.look(), 10, Console(file=io.StringIO()))
    study = open_study(config, config.look())
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert found.hidden == study.trials[0].params["hidden"]
