"""Which versions a repository serves, and to whom, by the rules of `versions.toml` and by calls that change them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.errors import BadInput, ModelUnavailable, Reason, UnknownModel, WrongState
from server.repository import changes
from server.settings import Settings
from tests.server.repository.conftest import put

if TYPE_CHECKING:
    from server.repository.repository import Repository
    from stepgraph.model import LoadedModel
    from tests.server.repository.conftest import Repositories


@pytest.fixture
async def repository(settings: Settings, repositories: Repositories) -> Repository:
    for version in ("1", "2", "3"):
        put(settings, "a", version)
    made = repositories.make(settings)
    await made.refresh(settled=True)
    return made


def rules(settings: Settings, text: str) -> None:
    (settings.models / "a" / "versions.toml").write_text(text, encoding="utf-8")


async def look(repository: Repository, *versions: int) -> None:
    """Follows the folder until these are there."""
    await repository.look()
    for version in versions:
        assert (await repository.settled("a", version)).served is not None


async def test_a_pin_an_alias_and_a_canary_are_served_beside_the_newest_and_read_anew(
    settings: Settings, repository: Repository
) -> None:
    assert [e.found.version for e in repository.entries()] == [3]
    rules(settings, "pin = 2\nalias.stable = 1")
    await look(repository, 1, 2)
    assert repository.find("a", 0).version == repository.entry("a", 0).found.version == 2
    assert repository.find("a@stable", 0).version == repository.entry("a@stable", 0).found.version == 1
    assert repository.find("a@3", 0).version == 3
    assert repository.find("a@stable", 2).version == 2  # as who opens again what it had
    with pytest.raises(UnknownModel, match="has no alias 'old'; it has stable"):
        repository.find("a@old", 0)
    rules(settings, "")
    await look(repository)
    assert repository.find("a", 0).version == 3
    assert [e.found.version for e in repository.entries()] == [3]


async def test_a_canary_gets_its_share_of_new_sequences_and_of_no_others(
    settings: Settings, repository: Repository
) -> None:
    rules(settings, "pin = 2\ncanary.version = 3\ncanary.share = 10")
    await look(repository, 2, 3)
    assert Counter(repository.find("a", 0, 1).version for _ in range(1_000)) == {2: 900, 3: 100}
    assert Counter(repository.find("a", 0, 50).version for _ in range(100)) == {2: 90, 3: 10}
    assert {repository.find("a", 0).version for _ in range(100)} == {2}
    assert {repository.find("a", 2, 1).version for _ in range(100)} == {2}


async def test_a_file_that_means_nothing_leaves_the_rules_as_they_were_and_is_named(
    settings: Settings, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    rules(settings, "pin = 2")
    await look(repository, 2)
    rules(settings, "pin = two")
    await look(repository)
    assert repository.find("a", 0).version == 2
    assert "a/versions.toml is not followed" in caplog.text
    assert repository.rulebook.fault("a")


async def test_what_was_unloaded_by_call_stays_so_for_other_servers_and_after_a_restart_until_it_is_loaded(
    settings: Settings, repository: Repository, repositories: Repositories
) -> None:
    await changes.unload(repository, "a", 3)
    with pytest.raises(UnknownModel, match="version 3 is withdrawn"):
        repository.find("a", 3)
    other = repositories.make(settings)
    await other.refresh(settled=True)
    assert other.find("a", 0).version == 2
    await changes.unload(other, "a")
    await look(repository)
    assert not repository.entries()
    for asked in (lambda: other.find("a", 0), lambda: other.entry("a", 0), lambda: other.entry("a", 1)):
        with pytest.raises(UnknownModel, match="every version of model 'a' is withdrawn"):
            asked()
    assert (await changes.load(repository, "a", 1)).served is not None
    assert repository.find("a", 0).version == 1
    await changes.load(repository, "a")
    assert repository.find("a", 0).version == 3
    assert repository.find("a", 1).version == 1


async def test_a_change_that_cannot_be_is_refused_and_writes_nothing(
    settings: Settings, repository: Repository
) -> None:
    with pytest.raises(UnknownModel, match="has no version 9 here; it has 1, 2, 3"):
        await changes.pin(repository, "a", 9)
    for unknown in (changes.unload(repository, "b", 1), changes.pin(repository, "b", 1)):
        with pytest.raises(UnknownModel, match="no folder of model 'b'"):
            await unknown
    with pytest.raises(BadInput, match="the alias '2' is no name"):
        await changes.alias(repository, "a", "2", 2)
    for change in (
        changes.canary(repository, "a", 2, float("nan")),
        changes.canary(repository, "a", 2, 101.0),
        changes.canary(repository, "a", 2, -1.0),
        changes.unload(repository, "a", 2**64 - 1),
    ):
        with pytest.raises(BadInput, match=r"expected percent|expected a version"):
            await change
    assert not (settings.models / "a" / "versions.toml").exists()
    with pytest.raises(BadInput, match="expected a version"):
        await changes.move(repository, "a", 2**64 - 1, 2)
    assert not repository.rulebook.fault("a")
    (settings.models / "a" / "versions.new").mkdir()
    with pytest.raises(ModelUnavailable, match="cannot be written"):
        await changes.pin(repository, "a", 1)


async def test_sequences_of_a_withdrawn_version_are_continued_with_another_that_keeps_the_same_states(
    repository: Repository,
) -> None:
    source = repository.find("a", 0)
    slots = source.slots.reserve(1)
    await changes.move(repository, "a", 3, 2)
    assert repository.find("a", 0).version == 2
    sha256 = source.loaded.sha256
    assert repository.exact("a", 3, sha256).version == 2
    assert repository.exact("a", 3, "of another file").version == 2
    assert changes.moving(repository) == [source]
    source.slots.give_back(slots.tolist())
    assert changes.moving(repository) == []  # none is open
    await changes.move(repository, "a", 3, 0)
    with pytest.raises(ModelUnavailable) as later:
        repository.exact("a", 3, "of another file")
    assert later.value.reason is Reason.MODEL_NOT_READY


async def test_a_move_to_a_version_that_keeps_other_states_is_refused(
    repository: Repository, repositories: Repositories, loaded: LoadedModel
) -> None:
    graph = replace(loaded.graph, initial=loaded.graph.initial.astype(np.float64))
    repositories.loaded = replace(loaded, graph=graph)
    with pytest.raises(WrongState, match="version 2 of 'a' keeps another state than version 3"):
        await changes.move(repository, "a", 3, 2)
    assert repository.find("a", 3).version == 3


async def test_a_folder_whose_name_holds_an_at_sign_is_no_model(
    settings: Settings, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    put(settings, "b@c", "1")
    await repository.look(settled=True)
    assert "b@c is not served: its name holds an '@'" in caplog.text
