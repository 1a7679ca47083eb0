from __future__ import annotations

import pytest

from server.caller import Caller
from server.errors import OverLimit, Reason
from server.meter import Limits, Meter


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
