"""When a hold is over and when servers are killed, what it counts as what, and when it says that memory is flat."""

from __future__ import annotations

import time

import pytest

from tests.hold.cluster import KINDS
from tests.hold.goal import AHEAD, CAP, Goal
from tests.hold.tally import ATTACKS, SLACK, Tally, markdown


def goal(lasted: float) -> Goal:
    """Of an hour, of which so many minutes are over."""
    return Goal(60, time.monotonic() - 60 * lasted)


@pytest.mark.parametrize(
    ("lasted", "kills", "fuzzed", "over"),
    [
        (59, 2_000, 2_000_000, False),
        (61, 1_000, 1_000_000, True),
        (61, 999, 1_000_000, False),
        (61, 1_000, 999_999, False),
        (60 * CAP + 1, 0, 0, True),
    ],
)
def test_a_hold_is_over_when_its_time_is_up_and_its_counts_are_reached_or_at_the_cap(
    lasted: float, kills: int, fuzzed: int, over: bool
) -> None:
    assert goal(lasted).over(Tally(kills=kills, fuzzed=fuzzed)) == over


def test_the_kills_of_all_servers_are_due_within_the_time_each_in_its_own_span() -> None:
    assert sum(kind.share * kind.replicas for kind in KINDS) == pytest.approx(1)
    for kind in KINDS:
        count = round(goal(0).kills * kind.share)
        spans = [(goal(0).due(number, kind.share, 0), goal(0).due(number, kind.share, 1)) for number in range(count)]
        assert [end for _, end in spans[:-1]] == pytest.approx([begin for begin, _ in spans[1:]], abs=1)
        assert (spans[0][0], spans[-1][1]) == pytest.approx((0, 3600 * AHEAD), abs=1)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("another answer the second time: 3", "changed"),
        ("x: the answer to step 3 differs", "changed"),
        ("an answer to step 3 instead of 2", "doubled"),
        ("x is lost: UNKNOWN_SEQUENCE", "lost"),
        ("a server has ended by itself", "lost"),
    ],
)
def test_every_fault_is_counted_as_one_kind_and_none_is_well(said: str, kind: str) -> None:
    tally = Tally(steps=1)
    assert tally.well
    tally.fault(said)
    assert (tally.lost + tally.doubled + tally.changed, getattr(tally, kind)) == (1, 1)
    assert not tally.well


def test_memory_is_flat_if_the_last_third_is_no_larger_than_the_second_and_a_short_run_is_not_judged() -> None:
    level, grown = [100.0] * 20, [105.0 + SLACK + 1] * 10
    assert Tally(memory=[*level, *level[:10]], attacks=3 * ATTACKS).flat
    assert not Tally(memory=[*level, *grown], attacks=3 * ATTACKS).flat
    assert "| memory flat | NO |" in markdown(Tally(memory=[*level, *grown], attacks=3 * ATTACKS), 60)
    assert "| memory flat | too short a run to say |" in markdown(Tally(memory=[*level, *grown]), 5)
