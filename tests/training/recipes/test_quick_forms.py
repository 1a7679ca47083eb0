"""Each recipe in a form of seconds: it learns, and what it exports is served and stepped to the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

import tidegate
from tests.running_server import ROOT, RunningServer
from training.fitting.session import Result, train
from training.recipes.named import RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from training.config import Config
    from training.examples.task import ExamplesTask


@dataclass(frozen=True)
class Quick:
    """What is changed of a recipe, and a figure that only a network that learned has."""

    changes: dict[str, Any]
    figure: str
    learned: Callable[[float, float], bool]
    """Of the figure and of the best baseline's."""


SHORT = {"evaluate_every": 50, "decay": 0.5}
QUICK = {
    "adding": Quick(
        SHORT | {"length": 10, "hidden": 24, "chrono": 10, "steps": 350, "learning_rate": 0.01},
        "mean_squared_error",
        lambda found, other: found < other / 2,
    ),
    "temporal-order": Quick(
        SHORT | {"length": 20, "hidden": 24, "chrono": 20, "steps": 200, "learning_rate": 0.01},
        "accuracy",
        lambda found, other: found > 3 * other,
    ),
    "copy": Quick(
        SHORT | {"letters": 3, "silence": 2, "hidden": 32, "chrono": 6, "steps": 300, "learning_rate": 0.01},
        "accuracy",
        lambda found, other: found > 4 * other,
    ),
    "digits": Quick(
        SHORT | {"hidden": 32, "steps": 100, "learning_rate": 0.01}, "accuracy", lambda found, other: found > 3 * other
    ),
    "vowels": Quick(
        SHORT | {"hidden": 32, "steps": 60, "learning_rate": 0.01}, "accuracy", lambda found, other: found > 3 * other
    ),
    "text": Quick(
        SHORT | {"hidden": 48, "width": 16, "steps": 60, "learning_rate": 0.02},
        "bits_per_character",
        lambda found, other: found < other - 0.8,
    ),
    "glucose": Quick(
        SHORT | {"hidden": 16, "steps": 100, "learning_rate": 0.02},
        "rmse_30min",
        lambda found, other: found < other * 0.95,
    ),
}


class Shelf:
    """Trains each recipe once, when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, tuple[Config, Result]] = {}

    def made(self, name: str) -> tuple[Config, Result]:
        if name not in self._made:
            places = {"runs": self.folder / "runs", "models": self.folder / "models"}
            config = replace(RECIPES[name](), **QUICK[name].changes, **places)
            self._made[name] = config, train(config)
        return self._made[name]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def server(shelf: Shelf) -> Iterator[RunningServer]:
    for name in QUICK:
        shelf.made(name)
    with RunningServer(shelf.folder / "models") as running:
        yield running.ready()


@pytest.mark.parametrize("name", QUICK)
def test_the_quick_form_learns_what_no_baseline_knows(name: str, shelf: Shelf) -> None:
    quick, (_, result) = QUICK[name], shelf.made(name)
    values = result.report.values
    found = values["model"][quick.figure]
    others = [by[quick.figure] for who, by in values.items() if isinstance(by, dict) and who != "model"]
    best = max(others) if quick.figure == "accuracy" else min(others)
    assert quick.learned(found, best), (found, best)


@pytest.mark.parametrize("name", QUICK)
def test_the_exported_model_is_served_and_stepped_to_the_answers_of_its_file(
    name: str, shelf: Shelf, server: RunningServer
) -> None:
    config, result = shelf.made(name)
    task: ExamplesTask = config.task()
    x_TF = task.test.x_BTF[0, :30].numpy()
    session = onnxruntime.InferenceSession(result.model.path.read_bytes(), providers=["CPUExecutionProvider"])
    (wanted_BTO,) = session.run(None, {"x": x_TF[None]})
    with tidegate.connect(server.address) as client:
        model = client.describe(name, ready=True)
        with client.sequence(name) as sequence:
            found_TO = np.array([sequence.step(x_F).output for x_F in x_TF])
    assert tuple(model.inputs[0].features) == tuple(feature.name for feature in task.signature.inputs)
    assert tuple(model.outputs[0].features) == tuple(feature.name for feature in task.signature.outputs)
    np.testing.assert_allclose(found_TO, wanted_BTO[0], rtol=1e-5, atol=1e-5)


def written(server: RunningServer, *arguments: str) -> str:
    """What `examples/write_text.py` writes."""
    command = [sys.executable, "examples/write_text.py", server.address, "--length", "60", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == ""
    return done.stdout


def test_text_is_written_through_the_server_and_a_temperature_of_0_writes_the_likeliest(
    shelf: Shelf, server: RunningServer
) -> None:
    _, result = shelf.made("text")
    session = onnxruntime.InferenceSession(result.model.path.read_bytes(), providers=["CPUExecutionProvider"])
    symbols = [output.name for output in RECIPES["text"]().task().signature.outputs]
    text = "ROMEO.\n"
    for _ in range(60):
        x = np.array([[[symbols.index(symbol) + 1] for symbol in text]], dtype=np.float32)
        text += symbols[session.run(None, {"x": x})[0][0, -1].argmax()]
    assert written(server, "--temperature", "0") == text + "\n"


def test_a_seed_repeats_a_text_and_a_higher_temperature_spreads_it(server: RunningServer) -> None:
    first, again = (written(server, "--seed", "1", "--temperature", "0.8") for _ in range(2))
    assert first == again
    assert written(server, "--seed", "2", "--temperature", "0.8") != first
    assert len(set(written(server, "--seed", "1", "--temperature", "5"))) > len(set(first))
