from bench.figure import Figure
from bench.outcome import Outcome, find, messages
from bench.plan import Comparison, Wire
from bench.scenario import Scenario

A, B = Wire("tidegate", Scenario(32, 1)), Wire("echo", Scenario(32, 1))


def outcome(*rounds: tuple[float, float]) -> Outcome:
    figures = tuple((Figure(a, a), Figure(b, b)) for a, b in rounds)
    return Outcome(Comparison("single", "both", (A, B)), figures)


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_round_changes_nothing() -> None:
    assert outcome((50, 100), (5, 10), (60, 100)).ratio(A, B, messages) == 0.5


def test_a_figure_is_the_median_of_its_rounds() -> None:
    assert outcome((50, 1), (5, 1), (60, 1)).median(A, messages) == 50


def test_contestants_are_found_only_where_they_were_measured_side_by_side() -> None:
    both = outcome((1, 1))
    assert find([both], A, B) is both
    assert find([both], A, Wire("afternoon", Scenario(32, 1))) is None
