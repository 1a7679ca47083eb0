from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.meter import SEVERAL, Limits, Meter
from server.runtime.scheduler import Block
from server.runtime.shares import BRIEF, LATELY, Shares, Take

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NOBODY: Any = None


class Ready:
    """Accounts with work, by number; each sequence that ran is ready again if `again`."""

    def __init__(self, *weights: float) -> None:
        self.accounts = [Meter(Limits(weight=weight)) for weight in weights]
        self.shares = Shares()

    def put(self, of: int, *sizes: int) -> list[Block]:
        """Blocks of an account: of one sequence each, or of many."""
        slots = [np.arange(size) for size in sizes]
        blocks = [Block(each, 1, {}, False, None, self.accounts[of]) for each in slots]  # type: ignore[arg-type]
        for block in blocks:
            self.shares.put(block)
        return blocks

    def take(self, room: int) -> list[int]:
        """How many rows of each account are in a batch."""
        takes = self.shares.take(room)
        self.back(takes)
        rows = Counter[int]()
        for take in takes:
            rows[self.accounts.index(take.block.account)] += take.rows
        return [rows[of] for of in range(len(self.accounts))]

    def back(self, takes: Sequence[Take]) -> None:
        for take in takes:
            take.block.done += take.rows
            if take.block.left:
                self.shares.put(take.block)


def test_who_has_ten_thousand_ready_steps_keeps_nobody_from_a_batch_who_has_one() -> None:
    ready = Ready(*[1.0] * 51)
    ready.put(0, *[1] * 10_000)
    for of in range(1, 51):
        ready.put(of, 1)
    assert ready.take(256) == [BRIEF] + [1] * 50
    assert ready.take(256)[0] == BRIEF, "they may come again soon"
    for _ in range(LATELY):
        ready.take(256)
    assert ready.take(256)[0] == 256


@pytest.mark.parametrize("size", [1, 64, 500])
@pytest.mark.parametrize("singles", [True, False])
def test_of_an_account_streams_take_turns_so_that_who_has_little_does_not_wait_for_ten_thousand_ready_steps(
    size: int, singles: bool
) -> None:
    ready = Ready(1.0)
    many = [
        Block(np.arange(size), 1, {}, False, NOBODY, ready.accounts[0], "many", singles=singles)
        for _ in range(10_000 // size)
    ]
    few = [
        Block(np.arange(rows), 1, {}, False, NOBODY, ready.accounts[0], f"few {rows}", singles=singles)
        for rows in (1, 16)
    ]
    for block in [*many, *few]:
        ready.shares.put(block)
    assert [ready.take(256), ready.take(256)] == [[256]] * 2
    assert [block.left for block in few] == [0, 0]


def test_blocks_of_a_stream_run_in_their_order_and_fill_a_batch_where_no_other_has_more() -> None:
    ready = Ready(1.0)
    blocks = [Block(np.arange(100), 1, {}, False, NOBODY, ready.accounts[0], stream) for stream in "aab"]
    for block in blocks:
        ready.shares.put(block)
    ready.take(240)
    assert [block.left for block in blocks] == [0, 60, 0]


def test_a_batch_is_divided_by_weight_where_all_have_more_than_their_part() -> None:
    ready = Ready(1, 3)
    for of in range(2):
        ready.put(of, *[1] * 100)
    assert ready.take(16) == [4, 12]


def test_a_fleet_is_no_more_than_a_part_of_a_batch_beside_others() -> None:
    ready = Ready(1, 1)
    ready.put(0, 1_000)
    ready.put(1, *[1] * 5)
    assert ready.take(16) == [11, 5]
    assert ready.take(16) == [16, 0]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (1, 2, 0.5, 1, 1)])
def test_of_more_accounts_than_rows_each_gets_its_part_over_time(weights: tuple[float, ...]) -> None:
    ready = Ready(*weights)
    for of in range(5):
        ready.put(of, *[1] * 2_000)
    taken = np.sum([ready.take(3) for _ in range(500)], 0)
    assert np.abs(taken - 1_500 * np.array(weights) / sum(weights)).max() <= 2


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=30),
    st.lists(st.integers(1, 12), min_size=1, max_size=10),
)
def test_a_batch_is_as_full_as_it_can_be_and_every_row_runs_once(put: list[tuple[int, int]], rooms: list[int]) -> None:
    ready = Ready(1, 2, 0.3, 1)
    left = 0
    for of, size in put:
        ready.put(of, size + BRIEF)
        left += size + BRIEF
    for room in rooms:
        rows = sum(ready.take(room))
        assert rows == min(room, left)
        left -= rows
    while rows := sum(ready.take(7)):
        left -= rows
    assert left == 0


def test_what_is_removed_does_not_run() -> None:
    ready = Ready(1, 1)
    first, second = ready.put(0, 1, 1)
    ready.put(1, 1)
    ready.shares.remove(first)
    assert ready.take(5) == [1, 1]
    assert ready.take(5) == [0, 0]
    assert (first.done, second.done) == (0, 1)


def test_accounts_that_come_and_go_take_no_memory_without_bound() -> None:
    shares = Shares()
    for _ in range(10_000):
        shares.put(Block(np.arange(1), 1, {}, False, None, Meter()))  # type: ignore[arg-type]
        assert len(shares.take(5)) == 1
    assert len(shares._lines) <= 4_096
    assert not shares._busy


def test_the_rows_that_are_ready_are_counted_however_they_come_and_leave() -> None:
    ready = Ready(1)
    one, five, seven = ready.put(0, 1, 5, 7)
    line = next(iter(ready.shares._lines.values()))
    assert line.rows == 13
    ready.shares.remove(five)
    assert line.rows == 8
    ready.take(4)
    assert line.rows == one.left + seven.left == 4
    ready.shares.remove(seven)
    assert line.rows == 0
    assert ready.shares.take(4) == []


def test_steps_of_several_accounts_in_one_block_have_the_part_of_as_many_accounts() -> None:
    ready = Ready(1)
    ready.put(0, *[1] * 1_000)
    mixed = Block(np.arange(60), 1, {}, False, None, SEVERAL, singles=True)  # type: ignore[arg-type]
    ready.shares.put(mixed)
    (first, *others) = sorted(ready.shares.take(256), key=lambda take: -take.rows)
    assert (first.block, first.rows) == (mixed, 60)
    assert len(others) == BRIEF, "those with much get a few rows at a time where another has little"
