"""Repositories over a folder of a test's own, with a loader that reads a word instead of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.repository.repository import Repository
from server.settings import Settings
from stepgraph.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from stepgraph.isolation.intake import Effort
    from stepgraph.model import LoadedModel
    from tests.zoo import Zoo


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models=tmp_path)


@pytest.fixture(scope="session")
def loaded(zoo: Zoo) -> LoadedModel:
    from stepgraph.loading import load

    return load(zoo.models / "tiny" / "1" / "model.onnx", 1, 1e-3)


class Repositories:
    """Makes repositories over one folder and stops them."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.made: list[Repository] = []
        self.loads: list[str] = []

    def make(self, settings: Settings) -> Repository:
        self.made.append(Repository(settings, self))
        return self.made[-1]

    def load(self, path: Path, _effort: Effort) -> LoadedModel | None:
        self.loads.append("/".join(path.parts[-3:-1]))
        if path.read_text(encoding="utf-8") == "bad":
            raise ModelRefused("bad is no model")
        return self.loaded

    def of_content(self, sha256: str) -> LoadedModel:
        raise ModelRefused(f"{sha256} is not in the cache")

    def holds(self, _sha256: str) -> bool:
        return False

    def need(self, contents: Collection[str]) -> None:
        self.needed = frozenset(contents)

    def close(self) -> None:
        pass


@pytest.fixture
async def repositories(loaded: LoadedModel) -> AsyncIterator[Repositories]:
    repositories = Repositories(loaded)
    yield repositories
    for each in repositories.made:
        each.stop()


def put(settings: Settings, name: str, version: str, text: str = "good") -> Path:
    path = settings.models / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
