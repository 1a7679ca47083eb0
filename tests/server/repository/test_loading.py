"""Models load side by side: what takes long holds up nobody, and nothing is final before everything was tried."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from server.errors import ModelUnavailable, Reason, UnknownModel, WrongState
from server.repository import repository as repositories
from server.repository.loader import Loader
from server.repository.repository import Repository
from server.settings import Settings
from stepgraph.errors import ModelRefused
from stepgraph.isolation.intake import Effort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path

    from stepgraph.model import LoadedModel


class Words:
    """Makes a model of a file that holds a word, which is its content: "slow..." takes until `patience` is set."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self.patience = Event()
        self.cache_answers = Event()
        self.cache_answers.set()
        self.cached: set[str] = set()
        self.needed: frozenset[str] = frozenset()

    def load(self, path: Path, effort: Effort) -> LoadedModel | None:
        word = path.read_text(encoding="utf-8")
        if word.startswith("slow"):
            if effort < Effort.PATIENT:
                return None
            self.patience.wait()
        self.cached.add(word)
        return replace(self._loaded, sha256=word)

    def of_content(self, sha256: str) -> LoadedModel:
        if sha256 not in self.cached:
            raise ModelRefused("not in the cache")
        self.cache_answers.wait()
        return replace(self._loaded, sha256=sha256)

    def holds(self, sha256: str) -> bool:
        return sha256 in self.cached

    def need(self, contents: Collection[str]) -> None:
        self.needed = frozenset(contents)

    def close(self) -> None:
        self.patience.set()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    cache = tmp_path / ".cache"
    cache.mkdir()
    return Settings(models=tmp_path, cache=cache)


@pytest.fixture
def words(loaded: LoadedModel) -> Words:
    return Words(loaded)


@pytest.fixture
async def repository(settings: Settings, words: Words) -> AsyncIterator[Repository]:
    made = Repository(settings, words)
    words.close = lambda: None  # type: ignore[method-assign]
    yield made
    words.patience.set()
    made.stop()


def put(settings: Settings, name: str, version: int, word: str) -> Path:
    path = settings.models / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("new").write_text(word, encoding="utf-8")
    path.with_name("new").rename(path)
    return path


def why(ask: Callable[..., object], *what: object) -> Reason:
    """Why a question to a repository is refused."""
    with pytest.raises((ModelUnavailable, UnknownModel, WrongState)) as caught:
        ask(*what)
    return caught.value.reason


async def until(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever is asked for
    """The answer of a repository once it is not "not ready" any more."""
    while True:
        try:
            return ask()
        except ModelUnavailable as error:
            assert error.reason == Reason.MODEL_NOT_READY  # noqa: PT017 - it ends the loop
            await asyncio.sleep(0)


async def test_what_takes_long_holds_up_nobody(settings: Settings, repository: Repository, words: Words) -> None:
    for number in range(5):
        put(settings, f"a{number}", 1, f"slow{number}")
    put(settings, "zebra", 1, "quick")
    await repository.refresh(settled=True)
    assert repository.find("zebra", 0).loaded.sha256 == "quick"
    assert why(repository.find, "a0", 1) == Reason.MODEL_NOT_READY
    put(settings, "new", 1, "quick too")
    await repository.refresh(settled=True)
    assert repository.find("new", 0).loaded.sha256 == "quick too", "a lane stays free"
    words.patience.set()
    for number in range(5):
        assert await until(lambda number=number: repository.find(f"a{number}", 1))


async def test_while_the_newest_version_takes_long_the_one_before_it_serves(
    settings: Settings, repository: Repository, words: Words
) -> None:
    put(settings, "a", 1, "quick")
    put(settings, "a", 2, "slow")
    await repository.refresh(settled=True)
    assert repository.find("a", 0).version == 1
    words.patience.set()
    assert await until(lambda: repository.find("a", 2))
    assert repository.find("a", 0).version == 2
    assert [entry.found.version for entry in repository.entries()] == [2]


async def test_until_everything_was_tried_what_is_not_found_is_not_ready(
    settings: Settings, repository: Repository, words: Words
) -> None:
    put(settings, "a", 2, "slow")
    assert why(repository.find, "a", 1) == Reason.MODEL_NOT_READY
    await repository.look(settled=True)
    for version in (0, 1, 2):
        assert why(repository.find, "a", version) == Reason.MODEL_NOT_READY
        assert why(repository.exact, "a", version, "any") == Reason.MODEL_NOT_READY
    assert why(repository.find, "b", 0) == Reason.MODEL_NOT_READY
    assert why(repository.exact, "b", 1, "any") == Reason.MODEL_NOT_READY
    words.patience.set()
    await repository.refresh(settled=True)
    assert why(repository.find, "a", 1) == Reason.UNKNOWN_VERSION
    assert why(repository.exact, "a", 1, "any") == Reason.UNKNOWN_VERSION
    assert why(repository.find, "b", 0) == Reason.UNKNOWN_MODEL


async def test_several_versions_that_are_kept_load_beside_each_other(settings: Settings, words: Words) -> None:
    for version in (1, 2):
        put(settings, "a", version, f"slow{version}")
    repository = Repository(replace(settings, keep_versions=2, load_at_once=4), words)
    await repository.look(settled=True)
    assert [entry.found.version for entry in repository.entries()] == [1, 2]
    words.patience.set()
    for version in (1, 2):
        assert await until(lambda version=version: repository.find("a", version))
    assert {model.version for model in repository.served()} == {1, 2}
    repository.stop()


async def test_a_superseded_version_is_loaded_at_once_when_its_sequences_come_back(
    settings: Settings, repository: Repository
) -> None:
    put(settings, "a", 1, "one")
    put(settings, "a", 2, "two")
    await repository.refresh(settled=True)
    assert (await until(lambda: repository.exact("a", 1, "one"))).version == 1
    assert why(repository.find, "a", 3) == Reason.UNKNOWN_VERSION


async def test_nothing_final_is_said_of_a_version_that_is_deleted_while_it_is_loaded_for_its_sequences(
    settings: Settings, repository: Repository, words: Words
) -> None:
    put(settings, "a", 1, "one")
    put(settings, "a", 2, "two")
    words.cached.add("one")
    words.cache_answers.clear()
    await repository.refresh(settled=True)
    assert why(repository.exact, "a", 1, "one") == Reason.MODEL_NOT_READY
    shutil.rmtree(settings.models / "a" / "1")
    await repository.look()
    assert why(repository.exact, "a", 1, "one") == Reason.MODEL_NOT_READY
    assert not repository.placement().strands("a", 1)
    words.cache_answers.set()
    assert (await until(lambda: repository.exact("a", 1, "one"))).version == 1
    while not repository.placement().strands("a", 1):  # no sequence has come
        await repository.look()
    assert why(repository.exact, "a", 1, "one") == Reason.UNKNOWN_VERSION


async def test_sequences_of_a_version_that_was_overwritten_go_on_with_their_content_while_it_is_in_the_cache(
    settings: Settings, repository: Repository, words: Words, caplog: pytest.LogCaptureFixture
) -> None:
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    first = repository.find("a", 1)
    slots = first.slots.reserve(3)
    put(settings, "a", 1, "two")
    await repository.refresh(settled=True)
    assert "a version 1 was overwritten in place: 3 open sequences go on with the content one" in caplog.text
    assert "also after a restart" in caplog.text
    assert repository.find("a", 1).loaded.sha256 == "two"
    assert repository.exact("a", 1, "one") is first
    first.slots.give_back(slots.tolist())
    await repository.refresh()
    again = await until(lambda: repository.exact("a", 1, "one"))
    assert again is not first
    assert again.loaded.sha256 == "one"
    await repository.refresh()
    assert repository.exact("a", 1, "one") is again, "its client may need a moment"
    words.cached.clear()
    with pytest.raises(WrongState, match="put the file with the sha256 three back"):
        await until(lambda: repository.exact("a", 1, "three"))


async def test_an_overwritten_content_that_is_not_kept_is_said_before_anything_is_lost(
    settings: Settings, repository: Repository, words: Words, caplog: pytest.LogCaptureFixture
) -> None:
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    repository.find("a", 1).slots.reserve(2)
    words.cached.clear()
    put(settings, "a", 1, "two")
    await repository.refresh(settled=True)
    assert "2 open sequences go on" in caplog.text
    assert "not after a restart: the cache lacks it" in caplog.text


async def test_a_content_of_which_sequences_were_kept_is_needed_although_no_file_has_it_any_more(
    settings: Settings, repository: Repository, words: Words
) -> None:
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    await repository.look()
    assert not words.needed
    first = repository.find("a", 1)
    first.counters.written += 1  # the checkpoint of a sequence that was parked at once
    put(settings, "a", 1, "two")
    await repository.refresh(settled=True)
    slots = repository.find("a", 1).slots.reserve(1)
    await repository.look()
    assert words.needed == {"one", "two"}
    repository.find("a", 1).slots.give_back(slots.tolist())
    again = Repository(settings, words)
    words.needed = frozenset()
    await again.look()
    assert words.needed == {"one", "two"}, "after a restart"
    again.stop()


async def test_a_file_that_was_only_touched_keeps_its_sequences(settings: Settings, repository: Repository) -> None:
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    model = repository.find("a", 1)
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    assert repository.served() == [model]


async def test_the_list_is_the_same_until_something_changes(settings: Settings, repository: Repository) -> None:
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    before = repository.entries()
    await repository.refresh(settled=True)
    assert repository.entries() is before
    put(settings, "b", 1, "one")
    await repository.refresh(settled=True)
    assert repository.entries() is not before


async def test_what_cannot_be_read_any_more_goes_on_with_what_was_loaded(
    settings: Settings, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    look = repositories.folder.look
    closed = {"a": "its folder cannot be read"}
    monkeypatch.setattr(
        repositories.folder, "look", lambda models: replace(look(models), models={}, strays=(), closed=closed)
    )
    await repository.refresh(settled=True)
    assert repository.find("a", 0).loaded.sha256 == "one"
    assert why(repository.find, "a", 2) == Reason.MODEL_NOT_READY
    assert why(repository.exact, "a", 1, "two") == Reason.MODEL_NOT_READY
    monkeypatch.setattr(repositories.folder, "look", look)
    path.unlink()
    path.symlink_to("nowhere")
    await repository.refresh(settled=True)
    assert repository.find("a", 0).loaded.sha256 == "one"
    assert why(repository.exact, "a", 1, "two") == Reason.MODEL_NOT_READY


async def test_a_look_that_fails_changes_nothing(
    settings: Settings, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)

    def fail(_models: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(repositories.folder, "look", fail)
    with pytest.raises(PermissionError):
        await repository.look()
    assert repository.find("a", 0).loaded.sha256 == "one"


async def test_what_is_known_comes_first_and_what_a_client_waits_for_before_its_equals() -> None:
    order: list[tuple[str, Effort]] = []
    loader = Loader(lambda: None, 1)

    def load(name: str) -> Callable[[Effort], None]:
        return lambda effort: order.append((name, effort))

    for name in ("a", "b", "c"):
        loader.load(name, load(name), lambda _: None)
    loader.hurry("c")
    await loader.idle()
    assert order == [("a", Effort.KNOWN), ("c", Effort.KNOWN), ("b", Effort.KNOWN)] + [
        (name, effort) for effort in (Effort.HURRIED, Effort.PATIENT) for name in ("c", "a", "b")
    ]


async def test_a_fault_of_the_server_while_it_loads_refuses_the_model(
    settings: Settings, repository: Repository, words: Words
) -> None:
    def fail(_path: Path, _effort: Effort) -> None:
        raise ZeroDivisionError

    words.load = fail  # type: ignore[method-assign, assignment]
    put(settings, "a", 1, "one")
    await repository.refresh(settled=True)
    with pytest.raises(ModelUnavailable, match="failed to load it"):
        repository.find("a", 1)
