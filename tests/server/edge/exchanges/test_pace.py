"""Requests of many streams at once leave the others their turns."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest

from server.edge.exchanges.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """A clock that only work moves, and what is to be called later."""

    def __init__(self) -> None:
        self.now = 100.0
        self.later: deque[Callable[[], object]] = deque()
        self.crowded = False
        self.pace = Pace(self.later.append, lambda: self.now, lambda: self.crowded)
        self.took: list[str] = []

    def take(self, name: str) -> None:
        """As a stream does: a millisecond of requests if there is time, else later."""
        if self.now > self.pace.ends():
            self.pace.wait(lambda: self.take(name))
        else:
            self.took.append(name)
            self.now += 2.0**-10


def test_of_many_streams_some_wait_for_a_turn_to_come_in_their_order() -> None:
    loop = Loop()
    names = [f"{i}" for i in range(20)]
    for name in names:
        loop.take(name)
    assert len(loop.took) == 3
    turns = 0
    while loop.later:
        before = len(loop.took)
        loop.later.popleft()()
        turns += 1
        assert len(loop.took) - before <= 3
    assert loop.took == names
    assert turns == 6


def test_one_with_requests_without_end_has_one_turn_at_a_time() -> None:
    loop = Loop()

    def go_on() -> None:
        loop.now += 0.004
        loop.pace.wait(go_on)

    loop.pace.wait(go_on)
    for _ in range(20):
        assert len(loop.later) == 1
        loop.later.popleft()()


def test_one_that_comes_alone_is_taken_at_once() -> None:
    loop = Loop()
    for i in range(50):
        loop.now += 0.05
        loop.take(f"{i}")
        assert len(loop.took) == i + 1
    assert not loop.later


def test_where_several_accounts_have_streams_turns_are_short() -> None:
    loop = Loop()
    loop.crowded = True
    for i in range(20):
        loop.take(f"{i}")
    assert len(loop.took) == 2
    while loop.later:
        before = len(loop.took)
        loop.later.popleft()()
        assert len(loop.took) - before <= 2
    assert len(loop.took) == 20


def test_a_write_that_fails_keeps_no_later_one_from_its_turn() -> None:
    loop, wrote = Loop(), list[int]()
    loop.pace.soon(lambda: wrote[0] and None)
    loop.pace.soon(lambda: wrote.append(1))
    with pytest.raises(IndexError):
        loop.later.popleft()()
    while loop.later:
        loop.later.popleft()()
    loop.pace.soon(lambda: wrote.append(2))
    loop.later.popleft()()
    assert wrote == [1, 2]
