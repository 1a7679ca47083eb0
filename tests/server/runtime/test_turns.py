"""Long work in turns: whoever has much to do holds up nobody else for more than a slice."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from server.runtime.turns import AT_ONCE, Turns, once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Loop:
    """What an event loop does later, one call after the other; each look at its clock takes a second."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()
        self.done: list[str] = []
        self._now = 0.0

    def clock(self) -> float:
        self._now += 1
        return self._now

    def turn(self) -> None:
        self.done.append("|")
        self.calls.popleft()()

    def work(self, name: str, pieces: int) -> Iterator[None]:
        for _ in range(pieces):
            self.done.append(name)
            yield


def turns(loop: Loop, pieces: float) -> Turns:
    """Turns of so many pieces."""
    return Turns(loop.calls.append, pieces, clock=loop.clock)


def test_what_is_short_is_done_at_once() -> None:
    loop = Loop()
    line = turns(loop, 10).line()
    line.run(loop.work("a", 3))
    assert loop.done == ["a"] * 3
    assert not line.work
    assert not loop.calls


def test_clients_take_turns_and_each_keeps_its_order() -> None:
    loop = Loop()
    both = turns(loop, 2)
    one, two = both.line(), both.line()
    one.run(loop.work("a", 5))
    one.run(loop.work("b", 1))
    two.run(loop.work("x", 3))
    while loop.calls:
        loop.turn()
    assert "".join(loop.done) == "aaxx|aa|x|a|b"
    assert not one.work
    assert not two.work


def test_work_that_makes_work_does_it_after_its_own() -> None:
    loop = Loop()
    line = turns(loop, 100).line()

    def first() -> Iterator[None]:
        line.run(loop.work("later", 1))
        loop.done.append("first")
        yield
        loop.done.append("first again")

    line.run(first())
    assert loop.done == ["first", "first again", "later"]


def test_work_that_fails_is_told_of_and_the_next_goes_on() -> None:
    loop = Loop()
    line = turns(loop, 1).line()
    failures: list[Exception] = []

    def failing() -> Iterator[None]:
        yield
        raise ValueError("no")

    line.run(failing(), failures.append)
    line.run(loop.work("a", 1))
    while loop.calls:
        loop.turn()
    assert [str(failure) for failure in failures] == ["no"]
    assert "a" in loop.done
    assert not line.work


def test_who_has_no_loop_does_everything_at_once() -> None:
    loop, line = Loop(), AT_ONCE.line()
    line.run(loop.work("a", 10_000))
    line.run(once(lambda: loop.done.append("b")))
    assert loop.done[-1] == "b"
    assert not line.work


def test_between_two_turns_others_go_first_for_a_while_if_they_have_something_to_do() -> None:
    calls: deque[Callable[[], None]] = deque()
    now, done = 0.0, 0

    def work() -> Iterator[None]:
        nonlocal done
        while True:
            done += 1
            yield

    Turns(calls.append, 0.0, 1.0, lambda: now).line().run(work())
    calls.popleft()()
    assert done == 2, "nobody else had anything to do"
    for _ in range(2):
        now += 0.4  # somebody did something
        calls.popleft()()
        assert done == 2
    now += 0.4
    calls.popleft()()
    assert done == 3, "they have gone first for long enough"
    calls.popleft()()
    assert done == 4
