"""What was proved is kept by content: a restart is quick, and never takes a changed file for the one that it was."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from server.repository.source import intake as _intake
from server.settings import Settings
from stepgraph.errors import ModelRefused
from stepgraph.isolation import cache, intake
from stepgraph.isolation.intake import Effort
from stepgraph.isolation.packing import pack
from stepgraph.isolation.sandbox import Limits, Sandbox
from stepgraph.isolation.verdict import Refused
from tests.hostile_models import lstm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Counted:
    """A quarantine that counts what it is asked, and that stays open for the next test."""

    def __init__(self) -> None:
        self.real = Sandbox(Limits(20, 512))
        self.asked = 0

    def ask(self, kind: type, job: str, path: Path, **more: object) -> object:
        self.asked += 1
        return self.real.ask(kind, job, path, **more)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Counted]:
    counted = Counted()
    yield counted
    counted.real.close()


class Restarts:
    """A model's folder, a cache, and servers one after the other that take the model in."""

    def __init__(self, folder: Path, sandbox: Counted) -> None:
        self.path = folder / "model" / "model.onnx"
        self.path.parent.mkdir()
        self.settings = Settings(cache=folder / "cache", max_batch=2)
        self.sandbox = sandbox

    def save(self, model: onnx.ModelProto) -> None:
        """Writes the model."""
        self.path.write_bytes(model.SerializeToString())

    def load(self, **settings: object) -> str:
        """How a server that starts now gets the model: "proved" in quarantine, or "known" from the cache."""
        before = self.sandbox.asked
        self.loaded = _intake(replace(self.settings, **settings)).load(self.path)
        return "proved" if self.sandbox.asked > before else "known"

    @property
    def kept(self) -> list[Path]:
        """The files of the cache."""
        return sorted((self.settings.cache).iterdir())


@pytest.fixture
def restarts(tmp_path: Path, sandbox: Counted, monkeypatch: pytest.MonkeyPatch) -> Restarts:
    monkeypatch.setattr("stepgraph.isolation.intake.Sandbox", lambda _limits: sandbox)
    made = Restarts(tmp_path, sandbox)
    made.save(lstm())
    return made


def answer(restarts: Restarts) -> bytes:
    engine = restarts.loaded.engine
    x = np.linspace(-1, 1, 3 * 2 * 3, dtype=np.float32).reshape(3, 2, 3)
    return engine.run({"x": x}, np.tile(engine.graph.initial, (2, 1)), trace=True).outputs["y"].tobytes()


def test_what_was_proved_is_known_after_a_restart_and_answers_the_same_bits(restarts: Restarts) -> None:
    assert restarts.load() == "proved"
    first, answered = restarts.loaded, answer(restarts)
    assert restarts.load() == "known"
    assert answer(restarts) == answered
    assert restarts.loaded.proof == first.proof
    assert restarts.loaded.sha256 == first.sha256
    assert restarts.loaded.engine.largest == first.engine.largest


def test_a_file_that_changed_in_one_weight_is_proved_again(restarts: Restarts) -> None:
    restarts.load()
    before, status = answer(restarts), restarts.path.stat()
    model = onnx.load(restarts.path)
    weights = bytearray(model.graph.initializer[0].raw_data)
    weights[2] ^= 1
    model.graph.initializer[0].raw_data = bytes(weights)
    restarts.save(model)
    os.utime(restarts.path, ns=(status.st_atime_ns, status.st_mtime_ns))  # nor does the clock tell
    assert restarts.load() == "proved"
    assert answer(restarts) != before


def test_a_sidecar_that_comes_changes_or_goes_is_part_of_the_content(restarts: Restarts) -> None:
    sidecar = restarts.path.with_name("model.toml")
    assert restarts.load() == "proved"
    sidecar.write_text("[state]\n", encoding="utf-8")
    assert restarts.load() == "proved"
    sidecar.write_text("[fixed]\n", encoding="utf-8")
    assert restarts.load() == "proved"
    assert restarts.load() == "known"
    sidecar.unlink()
    assert restarts.load() == "known"


def test_weights_in_another_file_are_part_of_the_content(restarts: Restarts) -> None:
    onnx.save(lstm(), restarts.path, save_as_external_data=True, location="weights", size_threshold=0)
    weights = restarts.path.with_name("weights")
    assert restarts.load() == "proved"
    assert restarts.load() == "known"
    before = answer(restarts)
    content = bytearray(weights.read_bytes())
    content[2] ^= 1
    weights.write_bytes(content)
    assert restarts.load() == "proved"
    assert answer(restarts) != before
    weights.unlink()
    with pytest.raises(ModelRefused, match="'weights', and that file cannot be read: No such file"):
        restarts.load()


def test_a_refusal_is_known_too(restarts: Restarts) -> None:
    model = lstm()
    model.graph.node[0].attribute[0].i = 7
    restarts.save(model)
    before = restarts.sandbox.asked
    for _ in range(2):
        with pytest.raises(ModelRefused, match="hidden_size 7 do not fit"):
            restarts.load()
    assert restarts.sandbox.asked == before + 1


@pytest.mark.parametrize(("limit", "few"), [("load_seconds", 1e-3), ("load_memory_mib", 0.1)])
def test_a_file_that_takes_too_much_is_known_until_it_or_the_limit_changes(
    restarts: Restarts, monkeypatch: pytest.MonkeyPatch, limit: str, few: float
) -> None:
    def tries(**settings: float) -> int:
        before = restarts.sandbox.asked
        with pytest.raises(ModelRefused, match=rf"--{limit.replace('_', '-')}; it is tried again when the file or"):
            restarts.load(**settings)
        return restarts.sandbox.asked - before

    def limited(limits: Limits) -> Counted:
        restarts.sandbox.real = made.enter_context(Sandbox(limits))
        return restarts.sandbox

    monkeypatch.setattr("stepgraph.isolation.intake.Sandbox", limited)
    monkeypatch.setattr(restarts.sandbox, "real", None)
    with ExitStack() as made:
        assert tries(**{limit: few}) == 1
        assert tries(**{limit: few}) == 0, "a restart does not try again"
        os.utime(restarts.path)
        assert tries(**{limit: few}) == 0, "the content is the same"
        model = lstm()
        model.producer_name = "another"
        restarts.save(model)
        assert tries(**{limit: few}) == 1
        assert restarts.load() == "proved"


def test_a_hurried_try_that_runs_out_of_time_is_no_refusal(restarts: Restarts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_HURRY", 1e-3)
    taken_in = _intake(restarts.settings)
    assert taken_in.load(restarts.path, Effort.KNOWN) is None
    assert taken_in.load(restarts.path, Effort.HURRIED) is None
    assert taken_in.load(restarts.path, Effort.PATIENT) is not None
    assert taken_in.load(restarts.path, Effort.KNOWN) is not None


@pytest.mark.parametrize("name", ["model.onnx", "model.toml"])
def test_a_file_that_cannot_fit_into_the_memory_is_refused_before_it_is_read(restarts: Restarts, name: str) -> None:
    with restarts.path.with_name(name).open("ab") as file:
        file.truncate(2**43)
    with pytest.raises(ModelRefused, match=r"8,388,608 MiB.*--load-memory-mib|more than 512 MiB of memory"):
        restarts.load(load_memory_mib=512)


def test_a_content_that_was_overwritten_is_had_from_the_cache(restarts: Restarts) -> None:
    for sidecar in (False, True):
        if sidecar:
            restarts.path.with_name("model.toml").write_text("[state]\n", encoding="utf-8")
        restarts.save(lstm())
        restarts.load()
        before, sha256 = answer(restarts), restarts.loaded.sha256
        other = lstm()
        other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
        restarts.save(other)
        restarts.load()
        assert answer(restarts) != before
        taken_in = _intake(restarts.settings)
        assert taken_in.holds(sha256)
        restarts.loaded = taken_in.of_content(sha256)
        assert restarts.loaded.sha256 == sha256
        assert answer(restarts) == before
    with pytest.raises(ModelRefused, match="not in the cache"):
        taken_in.of_content("0" * 64)


@pytest.mark.parametrize("needed", [True, False])
def test_a_content_that_is_needed_leaves_the_cache_for_no_other(
    restarts: Restarts, needed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    restarts.load()
    sha256, size = restarts.loaded.sha256, restarts.kept[0].stat().st_size
    for step in range(3):
        taken_in = _intake(replace(restarts.settings, cache_mib=2.5 * size / 2**20))
        taken_in.need([sha256] if needed else [])
        other = lstm()
        other.graph.doc_string = f"another {step}"
        restarts.save(other)
        taken_in.load(restarts.path)
    assert taken_in.holds(sha256) is needed
    assert len(restarts.kept) == 2
    _intake(replace(restarts.settings, cache_mib=0.5 * size / 2**20))._cache._make_room(restarts.settings.cache)
    assert not restarts.kept
    assert not caplog.text


def test_what_is_needed_and_takes_more_than_it_may_stays_and_that_is_said(
    restarts: Restarts, caplog: pytest.LogCaptureFixture
) -> None:
    restarts.load()
    kept = restarts.kept
    taken_in = _intake(replace(restarts.settings, cache_mib=0.5 * kept[0].stat().st_size / 2**20))
    taken_in.need([restarts.loaded.sha256])
    taken_in._cache._make_room(restarts.settings.cache)
    assert restarts.kept == kept
    assert "which is more than it may" in caplog.text


def test_a_change_of_any_file_of_stepgraph_proves_anew(
    restarts: Restarts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "stepgraph"
    shutil.copytree(cache._PACKAGE, package)
    monkeypatch.setattr(cache, "_PACKAGE", package)
    try:
        cache._ours.cache_clear()
        restarts.load()
        for room in ("", "rewriting", "cells", "isolation"):
            changed = next((package / room).glob("*.py"))
            changed.write_bytes(changed.read_bytes() + b"\n")
            cache._ours.cache_clear()
            assert restarts.load() == "proved", room
        assert restarts.load() == "known"
    finally:
        cache._ours.cache_clear()


def test_an_entry_of_another_release_is_renewed_without_an_error(
    restarts: Restarts, caplog: pytest.LogCaptureFixture
) -> None:
    restarts.load()
    (entry,) = restarts.kept
    entry.write_bytes(pack(Refused("what was kept before had other fields", None)))
    assert restarts.load() == "proved"
    assert restarts.load() == "known"
    assert not caplog.records


def test_what_is_kept_is_for_its_owner_alone(restarts: Restarts) -> None:
    before = os.umask(0)
    try:
        restarts.load()
    finally:
        os.umask(before)
    assert restarts.settings.cache.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in restarts.kept} == {0o600}


@pytest.mark.parametrize("damage", [b"", b"nothing of ours", None], ids=["emptied", "overwritten", "cut"])
def test_an_entry_that_is_damaged_is_ignored_and_replaced(restarts: Restarts, damage: bytes | None) -> None:
    restarts.load()
    (entry,) = restarts.kept
    entry.write_bytes(entry.read_bytes()[:-1] if damage is None else damage)
    assert restarts.load() == "proved"
    assert restarts.load() == "known"
    assert restarts.kept == [entry]


def test_an_entry_under_the_name_of_another_content_is_not_taken_for_it(restarts: Restarts) -> None:
    restarts.load()
    (entry,) = restarts.kept
    kept = entry.read_bytes()
    other = lstm()
    other.producer_name = "another"
    restarts.save(other)
    restarts.load()
    (name,) = (path for path in restarts.kept if path != entry)
    name.write_bytes(kept)
    assert restarts.load() == "proved"


def test_other_code_other_libraries_and_other_settings_prove_anew(
    restarts: Restarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts.load()
    assert restarts.load(max_batch=3) == "proved"
    assert restarts.load(patience_ms=2.0) == "proved"
    ours = cache._ours()
    for i in range(len(ours)):
        monkeypatch.setattr(cache, "_ours", lambda i=i: [*ours[:i], "another", *ours[i + 1 :]])
        assert restarts.load() == "proved"


def test_the_folder_is_bounded_and_the_least_used_goes_first(restarts: Restarts) -> None:
    names = []
    for i in range(4):
        model = lstm()
        model.producer_name = f"number {i}"
        restarts.save(model)
        restarts.load()
        names.append(next(path for path in restarts.kept if path not in names))
        os.utime(names[-1], (i, i))
    size = names[0].stat().st_size
    restarts.path.write_bytes(lstm().SerializeToString())
    restarts.load(cache_mib=3.5 * size / 2**20)
    assert not names[0].exists()
    assert not names[1].exists()
    assert len(restarts.kept) == 3
    assert sum(path.stat().st_size for path in restarts.kept) <= 3.5 * size


def test_an_entry_larger_than_the_whole_cache_is_not_kept(restarts: Restarts) -> None:
    restarts.load(cache_mib=1e-3)
    assert restarts.kept == []


def unwritable(folder: Path) -> None:
    folder.parent.joinpath("file").write_text("", encoding="utf-8")
    folder.symlink_to(folder.parent / "file" / "below")


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.fixture(params=[unwritable, open_to_all])
def unusable(request: pytest.FixtureRequest, restarts: Restarts) -> Restarts:
    request.param(restarts.settings.cache)
    return restarts


def test_a_folder_that_cannot_be_written_or_that_anybody_can_write_keeps_nothing(unusable: Restarts) -> None:
    assert unusable.load() == "proved"
    assert unusable.load() == "proved"


def test_off_keeps_nothing(restarts: Restarts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert restarts.load(cache=Path("off")) == "proved"
    assert not (tmp_path / "off").exists()
