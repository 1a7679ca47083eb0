"""Whatever can wait for the next turn of the event loop shares the time of one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.edge.exchanges.pace import Pace
from server.edge.http2.gate import TurnTime
from server.runtime import answers
from server.runtime.answers import Answers
from server.runtime.loop_turn import LoopTurn
from server.runtime.scheduler import Block, Part
from server.runtime.shares import Take

if TYPE_CHECKING:
    from collections.abc import Callable

MS = 2.0**-10


class Loop:
    """A clock that only work moves, and what is to be called in the next turn."""

    def __init__(self) -> None:
        self.now = 100.0
        self.later: deque[Callable[[], None]] = deque()
        self.turn = LoopTurn(self.later.append, 3 * MS)
        self.done: list[Any] = []

    def run_turn(self) -> float:
        """Calls what was to be called in this turn; returns what that took."""
        began = self.now
        for _ in range(len(self.later)):
            self.later.popleft()()
        return self.now - began

    def work(self, what: object) -> None:
        """Takes a millisecond."""
        self.done.append(what)
        self.now += MS


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(answers, "perf_counter", lambda: made.now)
    return made


class Sink:
    """Works for each part."""

    size = 0

    def __init__(self, loop: Loop, name: int) -> None:
        self._loop, self._name = loop, name

    def answered(self, _: Part) -> None:
        self._loop.work(self._name)


def parts(loop: Loop, numbers: range) -> list[Part]:
    """Of a block each."""
    return [Part(Take(Block(np.arange(1), 1, {}, False, Sink(loop, n)), 0, 1)) for n in numbers]  # type: ignore[arg-type]


def test_a_turn_has_its_time_anew_after_its_sockets_were_read_or_in_the_next_turn(loop: Loop) -> None:
    loop.turn.spend(2 * MS)
    assert loop.turn.left == MS
    loop.turn.end()
    assert loop.turn.left == 3 * MS
    loop.run_turn()
    loop.turn.spend(2 * MS)
    loop.turn.spend(2 * MS)
    assert loop.turn.left == -MS
    loop.run_turn()
    assert loop.turn.left == 3 * MS
    assert not loop.later


def test_the_answers_of_a_large_batch_go_out_in_order_over_several_turns_and_what_follows_them_after_them(
    loop: Loop,
) -> None:
    handed = Answers(loop.turn)
    handed.put(parts(loop, range(7)), lambda: loop.done.append("then"))
    assert loop.done == [0, 1, 2]
    assert handed
    handed.put(parts(loop, range(7, 9)))  # what comes meanwhile goes behind
    assert loop.done == [0, 1, 2]
    while handed:
        assert loop.run_turn() <= 3 * MS
    assert loop.done == [0, 1, 2, 3, 4, 5, 6, "then", 7, 8]


def test_at_least_one_answer_goes_out_in_a_turn_that_has_no_time_left(loop: Loop) -> None:
    loop.turn.spend(9 * MS)
    handed = Answers(loop.turn)
    handed.put(parts(loop, range(3)))
    assert loop.done == [0]


def test_what_must_not_wait_goes_out_at_once_after_all_that_waits(loop: Loop) -> None:
    handed = Answers(loop.turn)
    handed.put(parts(loop, range(5)))
    handed.put_all(parts(loop, range(5, 6)))
    assert loop.done == [0, 1, 2, 3, 4, 5]
    loop.run_turn()
    assert loop.done == [0, 1, 2, 3, 4, 5]
    assert not handed


def test_what_an_answer_causes_to_be_put_goes_out_after_those_that_wait(loop: Loop) -> None:
    handed = Answers(loop.turn)
    handed.put([], lambda: handed.put(parts(loop, range(1, 2)), lambda: loop.done.append("inner")))
    assert loop.done == [1, "inner"]
    first, second = parts(loop, range(2, 4))
    handed.put([first], lambda: handed.put(parts(loop, range(4, 5))))
    handed.put([second])
    while loop.later:
        loop.run_turn()
    assert loop.done == [1, "inner", 2, 4, 3]


def test_reading_requests_answers_and_writes_of_one_turn_take_no_longer_together_than_a_turn_may(loop: Loop) -> None:
    pace = Pace(loop.later.append, lambda: loop.now, turn=loop.turn)
    reading, handed = TurnTime(2 * MS, loop.turn), Answers(loop.turn)

    def read(number: int) -> None:
        loop.work(f"read {number}")
        reading.spend(MS)

    for number in range(20):
        reading.wait(lambda number=number: read(number))  # type: ignore[misc]
        pace.wait(lambda number=number: loop.work(f"request {number}"))  # type: ignore[misc]
        pace.soon(lambda number=number: loop.work(f"write {number}"))  # type: ignore[misc]
    handed.put(parts(loop, range(20)))
    assert len(loop.done) == 3
    loop.turn.end()
    took = [loop.run_turn()]
    while loop.later:
        loop.turn.end()
        took.append(loop.run_turn())
    # one of each kind goes on in each turn, whatever is left of it; three kinds find nothing left
    assert max(took[1:]) <= (3 + 3) * MS
    assert len(took) <= 30
    for kind in ("read", "request", "write"):
        assert [done for done in loop.done if str(done).startswith(kind)] == [f"{kind} {n}" for n in range(20)]
    assert [done for done in loop.done if isinstance(done, int)] == list(range(20))


def test_after_a_call_that_fails_while_several_are_read_what_waits_for_the_end_goes_on(loop: Loop) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        loop.turn.read_all([lambda: loop.done.append(loop.turn.after_reading(lambda: loop.done.append("end"))), broken])
    assert loop.done == [True, "end"]
    assert not loop.turn.after_reading(lambda: loop.done.append("never"))
