"""The repository on disk with a loader that reads a word instead of a model."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.durability.null_keeper import NullKeeper
from server.edge.admission import Admission
from server.edge.refusals import Refusals
from server.errors import ModelUnavailable, UnknownModel
from server.operations import sample
from server.runtime.counters import Histogram
from server.settings import Settings
from tests.server.repository.conftest import put
from tidegate.v1 import error_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from stepgraph.isolation.intake import Effort
    from stepgraph.model import LoadedModel
    from tests.server.repository.conftest import Repositories


async def test_the_newest_versions_that_load_are_served(settings: Settings, repositories: Repositories) -> None:
    for version in ("1", "2", "10"):
        put(settings, "a", version)
    put(settings, "a", "11", "bad")
    repository = repositories.make(replace(settings, keep_versions=2))
    await repository.refresh(settled=True)
    assert sorted(repositories.loads) == ["a/10", "a/11", "a/2"]
    assert repository.find("a", 0).version == 10
    assert repository.find("a", 2).version == 2
    with pytest.raises(ModelUnavailable, match="bad is no model") as caught:
        repository.find("a", 11)
    assert caught.value.reason == error_pb2.REASON_MODEL_REFUSED
    with pytest.raises(UnknownModel) as unknown:
        repository.find("a", 1)
    assert unknown.value.reason == error_pb2.REASON_UNKNOWN_VERSION


async def test_what_was_tried_and_is_not_proved_is_served_with_a_warning_or_refused_if_strict(
    settings: Settings, loaded: LoadedModel, repositories: Repositories, caplog: pytest.LogCaptureFixture
) -> None:
    put(settings, "a", "1")
    repositories.loaded = replace(loaded, proof=replace(loaded.proof, unread="node 'n' has no rule"))
    lenient, strict = repositories.make(settings), repositories.make(replace(settings, strict=True))
    await lenient.refresh(settled=True)
    assert lenient.find("a", 1).version == 1
    assert "a version 1: it was tried and is not proved: node 'n' has no rule" in caplog.text
    await strict.refresh(settled=True)
    with pytest.raises(ModelUnavailable, match="--strict refuses") as caught:
        strict.find("a", 1)
    assert caught.value.reason == error_pb2.REASON_MODEL_REFUSED


async def test_a_file_that_is_still_being_written_is_left_alone(settings: Settings, repositories: Repositories) -> None:
    repository = repositories.make(settings)
    path = put(settings, "a", "1", "ba")
    await repository.refresh()
    assert repositories.loads == []
    path.write_text("good, and longer", encoding="utf-8")
    await repository.refresh()
    assert repositories.loads == []
    await repository.refresh()
    assert repositories.loads == ["a/1"]
    await repository.refresh()
    assert repositories.loads == ["a/1"], "nothing changed"


async def test_a_refused_file_is_tried_again_when_it_has_changed(
    settings: Settings, repositories: Repositories
) -> None:
    repository = repositories.make(settings)
    path = put(settings, "a", "1", "bad")
    for _ in range(3):
        await repository.refresh()
    assert repositories.loads == ["a/1"]
    path.write_text("good", encoding="utf-8")
    for _ in range(3):
        await repository.refresh()
    assert repositories.loads == ["a/1", "a/1"]
    assert repository.find("a", 0).version == 1


async def test_what_is_not_name_version_file_is_passed_over(settings: Settings, repositories: Repositories) -> None:
    for name, version in (("a", "x"), ("a", "0"), ("a", "-1"), ("a", "1.5"), (".git", "1"), ("a", "²")):
        put(settings, name, version)
    (settings.models / "README.md").write_text("models", encoding="utf-8")
    (settings.models / "a" / "7").mkdir()
    repository = repositories.make(settings)
    await repository.refresh(settled=True)
    assert repository.entries() == ()


async def test_a_model_in_the_wrong_place_is_named_once_with_the_right_one(
    settings: Settings, repositories: Repositories, caplog: pytest.LogCaptureFixture
) -> None:
    put(settings, "a", "x")
    put(settings, "a", "1").rename(settings.models / "a" / "1" / "weights.onnx")
    put(settings, "b", "1").rename(settings.models / "loose.onnx")
    put(settings, ".landing-b", "1")
    (put(settings, "c", "1").parent / "vocabulary.onnx").write_text("good", encoding="utf-8")
    repository = repositories.make(settings)
    await repository.refresh()
    assert not caplog.records, "it may be about to be moved"
    for _ in range(3):
        await repository.refresh()
    assert [record.getMessage() for record in caplog.records] == [
        "loose.onnx is not served: it is looked for at NAME/VERSION/model.onnx",
        "a/1/weights.onnx is not served: it is not called model.onnx",
        "a/x/model.onnx is not served: the version 'x' is no whole number from 1 on",
    ]


async def test_a_superseded_version_stays_until_its_last_sequence_ends(
    settings: Settings, repositories: Repositories, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    put(settings, "a", "1")
    repository = repositories.make(settings)
    await repository.refresh(settled=True)
    old = repository.find("a", 0)
    slots = old.slots.reserve(1)
    put(settings, "a", "2")
    await repository.refresh(settled=True)
    assert repository.find("a", 0).version == 2
    assert "unloading" not in caplog.text
    old.slots.give_back(slots.tolist())
    await repository.refresh()
    assert "unloading a version 1" in caplog.text
    assert [entry.found.version for entry in repository.entries()] == [2]


async def test_what_is_counted_of_a_version_stays_when_its_file_is_replaced_or_goes_and_comes_back(
    settings: Settings, repositories: Repositories
) -> None:
    def opened() -> int:
        taken = sample.take(repository, NullKeeper(), Admission(repository, settings), Refusals(), Histogram((1.0,)))
        return taken.models["a", "1"].counters.opened

    path = put(settings, "a", "1")
    repository = repositories.make(settings)
    await repository.refresh(settled=True)
    old = repository.find("a", 1)
    old.counters.opened += 3
    slots = old.slots.reserve(1)
    path.write_text("good, and another", encoding="utf-8")
    await repository.refresh(settled=True)
    repository.find("a", 1).counters.opened += 1
    assert opened() == 4, "both are served"
    old.slots.give_back(slots.tolist())
    await repository.refresh()
    assert opened() == 4, "the first is gone"
    path.unlink()
    await repository.refresh()
    path.write_text("good", encoding="utf-8")
    await repository.refresh(settled=True)
    assert opened() == 4, "it has come back"


async def test_a_folder_that_is_gone_takes_its_models_and_no_other(
    settings: Settings, repositories: Repositories
) -> None:
    path = put(settings, "a", "1")
    put(settings, "b", "1")
    repository = repositories.make(settings)
    await repository.refresh(settled=True)
    path.unlink()
    await repository.refresh()
    assert [entry.found.name for entry in repository.entries()] == ["b"]
    with pytest.raises(UnknownModel, match="'b'"):
        repository.find("a", 0)


async def test_a_model_that_loads_is_listed_and_says_so(settings: Settings, repositories: Repositories) -> None:
    put(settings, "a", "1")
    loading, waiting = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    repository = repositories.make(settings)
    load = repositories.load

    def slowly(path: Path, effort: Effort) -> LoadedModel | None:
        loop.call_soon_threadsafe(loading.set)
        asyncio.run_coroutine_threadsafe(waiting.wait(), loop).result()
        return load(path, effort)

    repositories.load = slowly
    refreshing = asyncio.create_task(repository.refresh(settled=True))
    await loading.wait()
    with pytest.raises(ModelUnavailable, match="still loading"):
        repository.find("a", 0)
    waiting.set()
    await refreshing
    assert repository.find("a", 0).version == 1
