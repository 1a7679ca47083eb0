"""What `versions.toml` says, as a value."""

from __future__ import annotations

import pytest

from server.repository.placement import Placement
from server.repository.rules import REST, Rules, moved, parsed, written

WHOLE = """
pin = 2
load = [1]
unload = [5]
alias.stable = 2
canary.version = 4
canary.share = 12.5
move.3 = 2
move.rest = 2
"""


def test_a_file_is_read_and_written_without_loss() -> None:
    rules = parsed(WHOLE)
    assert rules == Rules(2, frozenset({1}), frozenset({5}), False, {"stable": 2}, 4, 12.5, {3: 2, REST: 2})
    assert parsed(written(rules)) == rules
    assert parsed(written(Rules(unloaded=True))) == Rules(unloaded=True)
    assert parsed("") == Rules()


def test_versions_that_the_rules_name_are_served_and_withdrawn_ones_are_not() -> None:
    rules = parsed(WHOLE)
    assert rules.wanted == {1, 2, 4}
    assert [version for version in range(1, 7) if rules.withdraws(version)] == [3, 5]


def test_sequences_of_a_withdrawn_version_follow_the_moves_to_their_end() -> None:
    rules = parsed("unload = [7]\nmove.4 = 3\nmove.3 = 2\nmove.rest = 1")
    assert [rules.destination(version, False) for version in (4, 3, 2, 7, 6)] == [2, 2, 0, 1, 0]
    assert rules.destination(6, gone=True) == 1
    assert rules.destination(1, gone=True) == 0


def test_a_rollback_withdraws_the_version_with_all_that_names_it_and_can_be_taken_back() -> None:
    before = Rules(pin=3, load=frozenset({3}), alias={"stable": 3}, canary=3, share=5.0)
    back = moved(before, 3, 2)
    assert back == Rules(pin=2, alias={"stable": 2}, move={3: 2})
    assert moved(back, 2, 3) == Rules(pin=3, alias={"stable": 3}, move={2: 3})
    assert moved(back, 3, 0).move == {}


def test_rules_that_lead_to_a_version_that_is_gone_are_named_and_their_sequences_are_stranded() -> None:
    rules = parsed(WHOLE)
    assert list(rules.missing({2})) == []
    assert list(rules.missing({1, 3})) == ["alias.stable = 2", "move.3 = 2", "move.rest = 2", "pin = 2"]
    assert list(parsed("move.3 = 2\nmove.2 = 1").missing({1})) == []
    for here, missing in (({1, 2}, set[tuple[str, str]]()), ({1}, {("m", "move.3 = 2")})):
        placement = Placement({"m": parsed("move.3 = 2")}, {("m", version) for version in here}, frozenset(), True)
        assert placement.missing() == missing
        assert placement.strands("m", 3) == bool(missing)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pin = 'x'", "pin is 'x'; expected a version"),
        ("pins = 1", "'pins' means nothing; expected alias, canary"),
        ("load = 3", "load is 3; expected a list"),
        ("unload = [true]", "unload is True; expected a version"),
        ("alias.7 = 1", "the alias '7' is no name"),
        ("canary.share = 101", "canary.share is 101; expected percent"),
        ("move.3 = 2\nmove.2 = 3", "lead in a circle"),
        ("move.x = 2", "move is 'x'"),
        ("pin = 3\nunload = [3]", "version 3 is pinned and withdrawn"),
        ("pin = ", "Invalid value"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("[", r"\[")):
        parsed(text)
