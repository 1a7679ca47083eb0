from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from server.edge.native import descriptions
from server.edge.native.descriptions import Descriptions
from server.repository.folder import Found
from server.repository.repository import Entry
from stepgraph.errors import ModelRefused
from tidegate.v1 import tidegate_pb2

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_list_is_made_once_for_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Entry] = []
    real = descriptions._model
    monkeypatch.setattr(descriptions, "_model", lambda entry: made.append(entry) or real(entry))
    entries = [Entry(Found(name, 1, tmp_path, (0, 0))) for name in "ab"]  # type: ignore[arg-type]
    kept = Descriptions()
    first = kept.all(entries)
    assert kept.all(entries) is first
    assert len(made) == 2
    entries[1] = replace(entries[1], refusal=ModelRefused("it is none"))
    listed = tidegate_pb2.ListModelsResponse.FromString(kept.all(entries)).models
    assert [(model.name, model.reason) for model in listed] == [("a", ""), ("b", "it is none")]
    assert tidegate_pb2.DescribeModelResponse.FromString(kept.one(entries[1])).model == listed[1]
    assert len(made) == 3
