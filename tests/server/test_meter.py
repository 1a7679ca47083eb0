from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.caller import Caller
from server.errors import OverLimit, Reason
from server.meter import Limits, Meter, Places


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_after_a_pause_a_seconds_steps_may_come_at_once_and_then_at_the_rate() -> None:
    clock = Clock()
    meter = Meter(Limits(steps_per_second=10), clock)
    taken = 0
    while not meter.wait():
        meter.charge(1)
        taken += 1
    assert taken == 11
    for _ in range(100):
        clock.now += meter.wait()
        meter.charge(1)
    assert clock.now == pytest.approx(110.0)
    clock.now += 1_000
    assert meter.wait() == 0


def test_many_steps_at_once_are_waited_for_afterwards() -> None:
    meter = Meter(Limits(steps_per_second=10), Clock())
    meter.charge(1_000)
    assert meter.wait() == pytest.approx(99.0)


def test_without_a_limit_nothing_waits() -> None:
    meter = Meter()
    meter.charge(10**9)
    assert meter.wait() == 0


def test_who_comes_too_fast_is_told_when_to_come_again() -> None:
    meter = Meter(Limits(steps_per_second=10, message_bytes=100), Clock())
    caller = Caller(token="mill", meter=meter)
    caller.check_pace()
    caller.check_message(100)
    meter.charge(30)
    with pytest.raises(OverLimit, match="token 'mill' takes 10 steps a second") as refused:
        caller.check_pace()
    assert (refused.value.reason, refused.value.retry_after) == (Reason.TOO_FAST, pytest.approx(2.0))
    with pytest.raises(OverLimit, match="101 bytes came; 100 is the limit of token 'mill'"):
        caller.check_message(101)


def test_two_with_many_leave_places_for_those_with_few_and_have_theirs_again_when_these_have_come() -> None:
    places = Places(1_280, 1_120)  # 160 are kept, and 10 are few
    assert places.take("a", 1_000)
    assert places.take("b", places.room("b"))
    assert not places.room("a")
    assert places.room("c") == 10
    assert all(places.take(f"few {n}", 10) for n in range(15))
    assert (places.count, places.room("late")) == (1_280, 0)
    places.give_back("a", 500)
    assert not places.take("a", 501)
    assert places.take("a", 500)
    places.give_back("b")
    assert places.take("late"), "what is free is for who has few"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 40)), max_size=40), st.sampled_from([8, 64, 300]))
def test_places_are_counted_whatever_is_taken_and_given_back(moves: list[tuple[str, int]], of_one: int) -> None:
    places, has = Places(300, of_one), Counter[str]()
    for account, count in moves:
        room = places.room(account)
        if count >= 0:
            assert places.take(account, count) is (count <= room)
            has[account] += count if count <= room else 0
        elif back := min(-count, has[account]):
            places.give_back(account, back)
            has[account] -= back
        assert places.of == +has
        assert places.count == has.total() <= 300
        assert max(has.values(), default=0) <= of_one
        assert sum(max(0, one - 2) for one in has.values()) <= (300 if of_one == 300 else 300 - 37 - 2)
    for account, count in (+has).items():
        places.give_back(account, count)
    assert (places.count, places.room("a")) == (0, min(of_one, 300 if of_one == 300 else 300 - 37))
