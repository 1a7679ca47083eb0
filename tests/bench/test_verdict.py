import pytest

from bench import plan
from bench.figure import Figure
from bench.outcome import Outcome
from bench.plan import Comparison
from bench.verdict import LIMITS, Limit, Verdict, alone, batched, decide, needed


def side_by_side(limit: Limit, over: Figure, under: Figure) -> Outcome:
    return Outcome(Comparison("single", "both", (limit.over, limit.under)), ((over, under),))


@pytest.mark.parametrize(("over", "met"), [(300.0, True), (299.0, False)])
def test_a_rate_must_reach_its_limit(over: float, met: bool) -> None:
    outcome = side_by_side(batched(), Figure(over, over), Figure(100, 100))
    assert decide([outcome])[0].met is met


@pytest.mark.parametrize(("over", "met"), [(0.001, True), (0.0011, False)])
def test_a_latency_must_stay_below_its_limit(over: float, met: bool) -> None:
    outcome = side_by_side(alone(32), Figure(1, 1, median=over), Figure(1, 1, median=0.001))
    assert Verdict(alone(32), outcome.ratio(alone(32).over, alone(32).under, alone(32).measure)).met is met


def test_the_margin_is_positive_on_the_good_side_of_either_kind_of_limit() -> None:
    assert Verdict(batched(), 3.3).margin == pytest.approx(0.1)
    assert Verdict(alone(32), 0.9).margin == pytest.approx(0.1)


def test_what_was_not_measured_is_not_met() -> None:
    assert not any(verdict.met for verdict in decide([]))


def test_the_full_plan_measures_both_sides_of_every_limit_side_by_side() -> None:
    comparisons = plan.full()
    assert all(any({limit.over, limit.under} <= set(c.contestants) for c in comparisons) for limit in LIMITS)


def test_the_quick_plan_keeps_only_what_a_limit_needs() -> None:
    kept = {contestant for comparison in needed(plan.full()) for contestant in comparison.contestants}
    assert kept == {contestant for limit in LIMITS for contestant in (limit.over, limit.under)}
