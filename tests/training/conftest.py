from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from rich.console import Console

from tests.training.card import CARD, Card
from training.fitting import device, plot
from training.recipes.named import recall
from training.recipes.weather import weather
from training.tabular.judging import card as card_of_model
from training.tabular.looking import reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from training.recipes.recall import Recall
    from training.tabular.looking.reading import Rows
    from training.tabular.settings import Table


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks are fastest on one thread, and other tests keep the number they had."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# What takes twenty times as long as a small fit, and what a card has instead of it.
SLOW = ((plot, "draw", None), (card_of_model, "figures", ()), (card_of_model, "served", ""))
REAL = [getattr(module, name) for module, name, _ in SLOW]


@pytest.fixture(autouse=True, scope="module")
def _no_pictures() -> Iterator[None]:
    """Pictures are drawn, and a file is shown to the server's check, only for a test that has `pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, instead in SLOW:
            patch.setattr(module, name, lambda *_, instead=instead: instead)
        yield


@pytest.fixture(autouse=True, scope="session")
def _read_once() -> Iterator[None]:
    """What a table says is read once for all tests that learn from it; those of the reading itself call `read`."""
    known: dict[tuple[tuple[str, ...], str], Rows] = {}
    read = reading.read

    def once(patterns: Sequence[str]) -> Rows:
        key = (tuple(patterns), reading.digest(reading.found(patterns)))
        if key not in known:
            known[key] = read(patterns)
            for column in known[key].columns.values():
                column.values.flags.writeable = False  # nobody finds what another has changed
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "read", once)
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for (module, name, _), real in zip(SLOW, REAL, strict=True):
        monkeypatch.setattr(module, name, real)


@pytest.fixture
def console() -> Console:
    """A pipe that is read with `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200, highlight=False)


@pytest.fixture
def brief(tmp_path: Path) -> Recall:
    """The recall recipe, for 60 steps, in folders of its own."""
    places = {"runs": tmp_path / "runs", "models": tmp_path / "models"}
    return replace(recall(), steps=60, evaluate_every=10, checkpoint_every=25, **places)


@pytest.fixture
def brief_weather(tmp_path: Path) -> Table:
    """The weather recipe, for 60 steps, in folders of its own."""
    return replace(weather(), steps=60, runs=tmp_path / "runs", models=tmp_path / "models")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """A graphics card that is none: `--device cuda` finds it."""
    monkeypatch.setattr(device, "found", lambda name: CARD if name == "cuda" else torch.device("cpu"))
    adam = sys.modules[torch.optim.Adam.__module__]
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_, **__: None)  # it knows no device "meta"
    with Card() as card:
        yield card
