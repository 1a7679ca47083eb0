from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from server.edge.native import descriptions
from server.edge.native.descriptions import Descriptions
from server.repository.entry import Entry
from server.repository.folder import Found
from stepgraph.errors import ModelRefused
from tidegate.v1 import tidegate_pb2

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_list_is_made_once_for_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Entry] = []
    real = descriptions._model
    monkeypatch.setattr(descriptions, "_model", lambda entry: made.append(entry) or real(entry))
    entries = [Entry(Found(name, 1, tmp_path, (0, 0))) for name in "ab"]  # type: ignore[arg-type]
    kept = Descriptions()
    first = await kept.all(entries)
    assert await kept.all(entries) is first
    assert len(made) == 2
    entries[1] = replace(entries[1], refusal=ModelRefused("it is none"))
    listed = tidegate_pb2.ListModelsResponse.FromString(await kept.all(entries)).models
    assert [(model.name, model.reason) for model in listed] == [("a", ""), ("b", "it is none")]
    assert tidegate_pb2.DescribeModelResponse.FromString(kept.one(entries[1])).model == listed[1]
    assert len(made) == 3


async def test_while_models_are_described_for_the_first_time_others_have_their_turns(tmp_path: Path) -> None:
    kept, turns, over = Descriptions(), 0, asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await kept.all([Entry(Found(f"m{n}", 1, tmp_path, (0, 0))) for n in range(20)])  # type: ignore[arg-type]
    over.set()
    await counting
    assert turns >= 20
