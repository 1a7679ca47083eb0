"""Which checkpoints are written first, where there are more than one write takes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.watermarks import NONE, Watermarks

if TYPE_CHECKING:
    from random import Random

MOST = 40
accounts = st.lists(st.one_of(st.just(1), st.integers(1, 10**9)), min_size=2, max_size=MOST)


def of(seen: list[float]) -> tuple[Watermarks, np.ndarray]:
    """Sequences in every second slot, which have checkpoints."""
    marks, slots = Watermarks(2 * MOST), np.arange(0, 2 * len(seen), 2)
    marks.begin(slots, 0, 0, 0.0)
    marks.seen[slots] = seen
    return marks, slots


@given(accounts, st.randoms(), st.data())
def test_who_was_seen_longest_ago_is_written_then_accounts_in_turn_and_of_each_who_was_seen_longest_ago_first(
    accounts: list[int], random: Random, data: st.DataObject
) -> None:
    seen = [float(at) for at in range(len(accounts))]
    random.shuffle(seen)
    most, since = data.draw(st.integers(1, len(seen) - 1)), data.draw(st.integers(-1, len(seen)))
    marks, slots = of(seen)
    marks.written[slots[0]] = NONE  # it is due, however lately it was opened
    whose = np.zeros(2 * MOST, np.int64)
    whose[slots] = accounts
    turns = Counter[int]()  # of each account

    oldest_first = sorted(range(len(seen)), key=lambda at: seen[at])

    def order(at: int) -> tuple[bool, bool, int, float]:
        turns[accounts[at]] += 1
        return at not in oldest_first[: most // 4], seen[at] > since and at > 0, turns[accounts[at]], seen[at]

    expected = sorted(oldest_first, key=order)[:most]
    assert sorted(marks.first(slots, whose, most, since).tolist()) == sorted(2 * at for at in expected)


def test_who_has_one_is_written_whenever_it_is_due_beside_who_has_many_and_all_of_many_have_their_turn() -> None:
    marks, slots = of([0.0] * 31)
    whose, written = np.ones(2 * MOST, np.int64), np.zeros(2 * MOST, np.int64)
    whose[slots[-1]] = 2
    for now in range(10, 21):
        taken = marks.first(slots, whose, 3, now - 2.0)
        marks.seen[taken] = now
        written[taken] += 1
    assert written[slots[-1]] == 6, "every second time"
    assert set(written[slots[:-1]].tolist()) == {0, 1}
    assert written[slots[:-1]].sum() == 27


def test_where_more_accounts_are_due_than_one_write_takes_who_has_many_has_a_quarter_of_the_places() -> None:
    marks, slots = of([0.0] * MOST)
    whose, written = np.ones(2 * MOST, np.int64), np.zeros(2 * MOST, np.int64)
    whose[slots[: MOST // 2]] = np.arange(2, 2 + MOST // 2)
    for now in range(1, 15):
        taken = marks.first(slots, whose, 8, now)
        marks.seen[taken] = now
        written[taken] += 1
    assert written[slots].min() > 0
