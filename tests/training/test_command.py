from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
import torch

from training.command import configure, main, parser
from training.field import fields_of
from training.fitting.metrics import read
from training.recipes.named import RECIPES, TABLES

if TYPE_CHECKING:
    from pathlib import Path


def test_help_lists_every_recipe_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0
    for name, recipe in (RECIPES | TABLES).items():
        assert name in said
        assert " ".join((recipe.__doc__ or "").split()) in said


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_help_of_a_recipe_gives_each_field_its_sentence_default_and_unit(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([recipe, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for field in fields_of(RECIPES[recipe]()):
        assert f"{field.flag} " in said
        assert f" {field.sentence} (default: " in said
        assert field.help in said


def test_every_field_of_every_recipe_has_a_sentence() -> None:
    for recipe in RECIPES.values():
        for field in fields_of(recipe()):
            assert field.sentence.endswith("."), field.name
            assert field.sentence[0].isupper(), field.name


def test_the_unit_stands_behind_the_default() -> None:
    found = {field.name: field.help for field in fields_of(RECIPES["recall"]())}
    assert found["steps"] == "Optimiser steps at most. (default: 3000 steps)"
    assert found["forget_bias"].endswith("(default: none)")


def test_the_command_line_overrides_the_recipe_and_nothing_else() -> None:
    given = parser().parse_args(["recall", "--cell", "gru", "--learning-rate", "0.5", "--chrono", "none"])
    config, recipe = configure(given), RECIPES["recall"]()
    assert (config.cell, config.learning_rate, config.chrono) == ("gru", 0.5, None)
    changed = {field.name for field in fields(config) if getattr(config, field.name) != getattr(recipe, field.name)}
    assert changed == {"cell", "learning_rate", "chrono"}


def status_of(arguments: list[str]) -> object:
    """The exit status, whether it was returned or argparse left with it."""
    try:
        return main(arguments)
    except SystemExit as left:
        return left.code


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("", "RECIPE"),
        ("tides", "invalid choice: 'tides'"),
        ("recall --hidden many", "--hidden: 'many' is not a whole number"),
        ("recall --learning-rate fast", "--learning-rate: 'fast' is not a number"),
        ("recall --forget-bias low", "--forget-bias: 'low' is not a number or none"),
        ("recall --cell tcn", "--cell: 'tcn' is none of rnn, lstm, gru"),
        ("recall --hidden 0", "--hidden: 0 must be at least 1"),
        ("recall --learning-rate 0", "--learning-rate: 0.0 must be above 0"),
        ("recall --learning-rate nan", "--learning-rate: nan must be above 0"),
        ("recall --decay 2", "--decay: 2.0 must lie from 0 to 1"),
        ("recall --name ../up", "--name: '../up' is not a plain folder name"),
        ("recall --flag-noise 0.5", "--flag-noise: 0.5 must lie"),
        ("recall --length 1", "--length: 1 must be at least 2"),
        ("recall --chrono 1", "--chrono: 1 must be at least 3"),
        ("recall --forget-bias 1", "--forget-bias and --chrono set the same biases"),
        ("recall --colour red", "unrecognized arguments: --colour red"),
        ("recall --hidden", "--hidden: expected one argument"),
        ("glucose --window 10", "--window: 10 must be above --burn-in, 12"),
        ("weather --unit degC", "--unit: degC must be written as COLUMN=UNIT"),
        ("weather --training-share 1", "--training-share: 1.0 must lie between 0 and 1"),
    ],
)
def test_a_wrong_value_is_one_clear_line_and_exit_status_2(
    arguments: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(arguments.split()) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert said.err.startswith("python -m training")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_failure_is_one_clear_line_and_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nothing.csv.gz"
    assert main(["glucose", "--data", str(missing)]) == 1
    assert capsys.readouterr().err == f"python -m training glucose: {missing} does not exist\n"


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["recall", "--steps", "5", "--runs", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("python -m training recall: ")
    assert said.count("\n") == 1


@pytest.mark.usefixtures("pictures")
def test_a_pipe_gets_few_plain_lines_and_a_run_leaves_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    assert main(["recall", "--steps", "100", "--evaluate-every", "2", "--patience", "50", *places]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert 10 <= sum(line.startswith("step ") for line in said.splitlines()) <= 11
    run = next(tmp_path.glob("runs/recall/*/config.json")).parent
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [entry.step for entry in read(run / "metrics.jsonl")] == list(range(2, 101, 2))
    decides = json.loads((run / "config.json").read_text())
    assert decides["steps"] == 100
    assert decides["data"] == {"source": "drawn at random from the config's seed", "sha256": ""}
    assert decides["versions"]["torch"] == torch.__version__
    assert "memory of t=1" in (run / "report.txt").read_text()
    result = json.loads((run / "result.json").read_text())
    assert (result["model"], result["version"], result["steps"]) == ("recall", 1, 100)
    assert (tmp_path / "models" / "recall" / "1" / "model.onnx").is_file()


def test_training_imports_nothing_of_the_server_or_client_and_sends_no_telemetry() -> None:
    script = (
        "import training.__main__, os, sys; "
        "assert not {'server', 'grpc', 'tidegate.client', 'tidegate.v1'} & set(sys.modules); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    clean = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    found = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_ctrl_c_while_torch_is_imported_ends_a_training_without_a_traceback() -> None:
    script = """
import os, runpy, signal, sys

class Finder:
    def find_spec(name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""
    ended = subprocess.run([sys.executable, "-c", script, "recall"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
