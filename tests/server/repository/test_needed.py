"""The contents that sequences may come back to are known across restarts, for as long as any may be parked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.repository.needed import Needed

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "needed.json"


def pass_(needed: Needed, clock: Clock, seconds: float) -> frozenset[str]:
    for _ in range(int(seconds // 60)):
        clock.now += 60
        needed.note(())
    return needed.note(())


def test_a_content_is_needed_while_it_is_used_and_then_for_as_long_as_sequences_stay_parked(
    file: Path, clock: Clock
) -> None:
    needed = Needed(file, DAY, clock)
    assert needed.note({"a", "b"}) == {"a", "b"}
    pass_(needed, clock, DAY / 2)
    assert needed.note({"b"}) == {"a", "b"}
    assert pass_(needed, clock, 0.6 * DAY) == {"b"}
    assert pass_(needed, clock, 0.6 * DAY) == frozenset()


def test_a_server_that_starts_knows_what_the_one_before_it_needed_and_time_without_a_server_does_not_count(
    file: Path, clock: Clock
) -> None:
    Needed(file, DAY, clock).note({"a"})
    clock.now += 30 * DAY
    assert Needed(file, DAY, clock).note(()) == {"a"}


def test_servers_that_share_a_cache_need_what_each_of_them_does_and_a_clock_that_jumps_forgets_nothing(
    file: Path, clock: Clock
) -> None:
    one, other = Needed(file, DAY, clock), Needed(file, DAY, clock)
    one.note({"a"})
    assert other.note({"b"}) == {"a", "b"}
    clock.now += 400 * DAY
    assert one.note(()) == {"a", "b"}


@pytest.mark.parametrize("text", ["", "[]", '{"time": "x", "used": {}}', '{"time": 1, "used": 7}', "\x00"])
def test_a_file_that_means_nothing_is_as_none(file: Path, clock: Clock, text: str) -> None:
    file.write_text(text)
    needed = Needed(file, DAY, clock)
    assert needed.note(()) == frozenset()
    assert needed.note({"a"}) == {"a"}
    assert Needed(file, DAY, clock).note(()) == {"a"}


def test_where_nothing_can_be_written_it_is_known_as_long_as_the_server_lives(tmp_path: Path, clock: Clock) -> None:
    for nowhere in (None, tmp_path / "no folder" / "file"):
        needed = Needed(nowhere, DAY, clock)
        needed.note({"a"})
        assert needed.note(()) == {"a"}
