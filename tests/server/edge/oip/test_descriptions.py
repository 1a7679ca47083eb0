"""What is said of models is made once for each change."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

from server.caller import Caller
from server.edge.oip import descriptions
from server.edge.oip.descriptions import Descriptions
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.repository.entry import Entry
from server.repository.folder import Found
from server.settings import Settings
from stepgraph.errors import ModelRefused

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CALLER = Caller("ipv4:10.0.0.1")


class Listed:
    """A repository as far as it is listed; `entries` is another tuple after each change."""

    def __init__(self, *entries: Entry) -> None:
        self.now = entries
        self.gone: list[tuple[str, int]] = []

    def entries(self) -> tuple[Entry, ...]:
        return self.now

    def withdrawn(self) -> list[tuple[str, int]]:
        return list(self.gone)

    def served(self) -> list[Any]:
        return [SimpleNamespace(name=e.found.name, version=e.found.version) for e in self.now]


def test_the_index_is_made_once_for_each_change(tmp_path: Path) -> None:
    a, b = (Entry(Found(name, 1, tmp_path, (0, 0))) for name in "ab")  # type: ignore[arg-type]
    repository = Listed(a, b)
    kept = Descriptions(repository, Settings())  # type: ignore[arg-type]
    first = kept.index(CALLER, only_ready=False)
    assert kept.index(CALLER, only_ready=False) is first
    assert states(first) == [("a", "LOADING", ""), ("b", "LOADING", "")]
    assert kept.index(CALLER, only_ready=True) == b""
    repository.now = a, replace(b, refusal=ModelRefused("it is none"))
    assert states(kept.index(CALLER, only_ready=False)) == [("a", "LOADING", ""), ("b", "UNAVAILABLE", "it is none")]
    repository.gone = [("a", 1)]
    assert states(kept.index(CALLER, only_ready=False))[0] == ("a", "UNAVAILABLE", "unloaded")


def test_a_model_is_described_once_and_its_versions_are_those_that_are_served_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[str]()
    repository = Listed(*(Entry(Found("a", number, tmp_path, (0, 0))) for number in (3, 1)))  # type: ignore[arg-type]
    kept = Descriptions(repository, Settings())  # type: ignore[arg-type]
    graph = SimpleNamespace(inputs=(), outputs=(), trace=())
    model: Any = Mock(graph=graph, version=3)
    model.name = "a"
    for name in "_metadata", "_config":
        real = getattr(descriptions, name)
        monkeypatch.setattr(descriptions, name, lambda *of, real=real: made.append(real.__name__) or real(*of))
    for versions in ["1", "3"], ["3"]:
        told = pb.ModelMetadataResponse.FromString(kept.metadata(model))
        assert (told.name, list(told.versions)) == ("a", versions)
        assert pb.ModelConfigResponse.FromString(kept.config(model)).config.name == "a"
        repository.now = repository.now[:1]
    assert made == ["_metadata", "_config"]


def states(index: bytes) -> list[tuple[str, str, str]]:
    return [(m.name, m.state, m.reason) for m in pb.RepositoryIndexResponse.FromString(index).models]
