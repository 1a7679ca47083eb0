"""The models of a server in a test, in place of its folder: there from the start, all their versions served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.errors import UnknownModel
from server.repository.entry import Entry
from server.repository.folder import Found
from server.runtime.served_model import ServedModel
from stepgraph.errors import StepFailed
from stepgraph.model import LoadedModel
from stepgraph.running.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pytest
    from numpy.typing import NDArray

    from server.settings import Settings

MODEL = "recall"


class Shelf:
    """Versions of one model, from `start` to `stop`."""

    def __init__(self, loaded: Mapping[int, LoadedModel], settings: Settings) -> None:
        self.models = {v: ServedModel(MODEL, v, model, settings) for v, model in loaded.items()}

    def start(self) -> None:
        for model in self.models.values():
            model.start()

    def stop(self) -> None:
        for model in self.models.values():
            model.stop()

    def find(self, name: str, version: int, _new: int = 0) -> ServedModel:
        if name != MODEL or version not in {0, *self.models}:
            raise UnknownModel("there is no such model")
        return self.models[version or max(self.models)]

    def exact(self, _name: str, version: int, sha256: str) -> ServedModel:
        assert self.models[version].loaded.sha256 == sha256
        return self.models[version]

    def entry(self, name: str, version: int) -> Entry:
        return Entry(Found(name, version, Path(), ()), self.find(name, version))

    def assert_empty(self) -> None:
        """Nobody has a place here."""
        for model in self.models.values():
            assert not model.in_use, f"{model.slots.in_use} slots are taken, {model.asleep} sleep"
            assert not model.slots._numbers, "an account counts for a slot that nobody has"
            assert not model.watermarks.held.any()


def fail_at(row: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine computes no step whose input is this row."""
    run_once = Engine.run_once

    def failing(engine: Engine, inputs: Any, state: Any, trace: bool) -> Any:  # noqa: ANN401 - as the engine has them
        if (next(iter(inputs.values())) == row).all(-1).any():
            raise StepFailed("it cannot be computed")
        return run_once(engine, inputs, state, trace)

    monkeypatch.setattr(Engine, "run_once", failing)
