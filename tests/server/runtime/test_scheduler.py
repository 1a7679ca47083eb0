from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.runtime.scheduler import Batch, Block, Scheduler

SLOTS = 8


class Sink:
    """Nobody listens: who calls the scheduler is told by its results."""

    def answered(self, part: object) -> None:
        raise NotImplementedError


def block(slots: list[int], steps: int, *, singles: bool = False, apart: bool = False) -> Block:
    given = {"inputs": {}, "trace": False, "sink": Sink(), "singles": singles, "apart": apart}
    return Block(slots=np.array(slots, np.intp), steps=steps, **given)  # type: ignore[arg-type] # as it has them


@dataclass
class Run:
    """A scheduler and a record of what it let run."""

    largest: int
    longest: int = 3
    taken: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by slot: (block, step), as they ran
    promised: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by slot, as they came
    marks: dict[int, set[tuple[int, int, int]]] = field(default_factory=dict)  # by block: what must run before it
    reached: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(SLOTS, self.largest, lambda _: self.longest)
        self.index: dict[int, int] = {}

    def add(self, slots: list[int], steps: int) -> Block:
        number = len(self.blocks)
        new = block(slots, steps, singles=number % 2 == 0, apart=number % 4 == 0 and len(slots) > 1)
        self.blocks.append(new)
        self.index[id(new)] = number
        if not steps:
            self.marks[number] = {(slot, *each) for slot in slots for each in self.promised.get(slot, [])}
        for slot in slots:
            self.promised.setdefault(slot, []).extend((number, step) for step in range(steps))
        if self.scheduler.add(new):
            assert not steps
            self._reach(new)
        return new

    def run(self, between: list[tuple[list[int], int]] | None = None, on: int = 0) -> Batch | None:
        """One batch, and up to `on` that follow without the scheduler; some blocks may come while the last one runs."""
        batch = self.scheduler.next()
        if batch is None:
            return None
        self._ran(batch)
        while on and (further := batch.further()) is not None:
            batch, on = further, on - 1
            self._ran(batch)
        for slots, steps in between or ():
            self.add(slots, steps)
        for mark in self.scheduler.finish(batch):
            self._reach(mark)
        return batch

    def drop(self, number: int) -> None:
        self.dropped.add(number)
        for mark in self.scheduler.drop([self.blocks[number]]):
            self._reach(mark)

    def finish(self) -> None:
        """Runs until nothing is ready, which is when nothing is left."""
        most = sum(map(len, self.promised.values()))
        for _ in range(most + 1):
            if self.run() is None:
                break
        else:
            pytest.fail("more batches than there are steps")
        for slot, promised in self.promised.items():
            assert self.taken.get(slot, []) == [each for each in promised if self._had_to_run(slot, each)]
            assert all(each in self.taken[slot] for each in promised if each[0] not in self.dropped)
        assert sorted(self.reached) == sorted(set(self.marks) - self.dropped)

    def _had_to_run(self, slot: int, each: tuple[int, int]) -> bool:
        return each[0] not in self.dropped or each in self.taken.get(slot, [])

    def _steps(self, batch: Batch) -> list[tuple[int, int, int]]:
        """(slot, block, step) of everything in a batch."""
        return [
            (slot, self.index[id(take.block)], (take.block.done if take.block.steps > 1 else 0) + step)
            for take in batch.takes
            for slot in take.block.slots[take.first : take.first + take.rows].tolist()
            for step in range(batch.steps)
        ]

    def _ran(self, batch: Batch) -> None:
        self._check(batch)
        for slot, number, step in self._steps(batch):
            self.taken.setdefault(slot, []).append((number, step))

    def _check(self, batch: Batch) -> None:
        slots = [s for take in batch.takes for s in take.block.slots[take.first : take.first + take.rows].tolist()]
        assert len(slots) == len(set(slots)) == batch.rows <= self.largest, "at most one step of a sequence at a time"
        assert batch.rows
        assert 1 <= batch.steps <= max(self.longest, 1)
        assert all(self.index[id(take.block)] not in self.dropped for take in batch.takes)
        for slot, number, step in self._steps(batch):
            assert (number, step) in self.promised[slot]

    def _reach(self, mark: Block) -> None:
        number = self.index[id(mark)]
        ran = {(slot, *each) for slot, steps in self.taken.items() for each in steps}
        assert {each for each in self.marks[number] if each[1] not in self.dropped} <= ran, "a mark before its steps"
        self.reached.append(number)


blocks = st.one_of(
    st.tuples(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=1), st.integers(0, 7)),  # steps, chunks, marks
    st.tuples(st.lists(st.integers(0, SLOTS - 1), min_size=2, max_size=SLOTS, unique=True), st.integers(0, 1)),
)
moves = st.lists(st.one_of(blocks, st.just("run"), st.integers(0, 30)), max_size=40)


@settings(max_examples=300)
@given(moves, st.integers(1, 10), st.integers(1, 5), st.lists(blocks, max_size=2), st.integers(0, 3))
def test_every_step_runs_once_in_order_and_never_beside_another_of_its_sequence(
    moves: list[object], largest: int, longest: int, between: list[tuple[list[int], int]], on: int
) -> None:
    run = Run(largest, longest)
    for move in moves:
        if isinstance(move, tuple):
            run.add(*move)
        elif move == "run":
            run.run(between, on)
        elif isinstance(move, int) and move < len(run.blocks) and run.blocks[move].steps:
            run.drop(move)
    run.finish()


@settings(max_examples=100)
@given(st.lists(blocks, min_size=1, max_size=12), st.data())
def test_what_is_dropped_while_it_runs_runs_no_further(
    given_blocks: list[tuple[list[int], int]], data: st.DataObject
) -> None:
    run = Run(largest=3, longest=2)
    for slots, steps in given_blocks:
        run.add(slots, steps)
    batch = run.scheduler.next()
    if batch is None:
        return
    steps = run._steps(batch)
    chosen = data.draw(st.sampled_from(sorted({number for _, number, _ in steps})))
    run.drop(chosen)
    for slot, number, step in steps:
        run.taken.setdefault(slot, []).append((number, step))
    for mark in run.scheduler.finish(batch):
        run._reach(mark)
    run.finish()


def test_sequences_that_are_ready_run_together() -> None:
    run = Run(largest=5)
    for slot in range(5):
        run.add([slot], 1)
    batch = run.run()
    assert batch is not None
    assert batch.rows == 5
    assert run.run() is None


def test_sequences_of_unequal_length_do_not_wait_for_each_other() -> None:
    run = Run(largest=8, longest=100)
    run.add([0], 50)
    run.add([1], 1)
    first = run.run()
    assert first is not None
    assert (first.rows, first.steps) == (2, 1), "as many steps as all of them have"
    second = run.run()
    assert second is not None
    assert (second.rows, second.steps) == (1, 49)


def test_a_chunk_is_cut_so_that_a_newcomer_need_not_wait() -> None:
    run = Run(largest=8, longest=10)
    run.add([0], 100)
    assert run.run([([1], 1)]).steps == 10
    assert {take.block.slots[0] for take in run.run().takes} == {0, 1}
    run.finish()


def test_a_fleet_waits_for_earlier_steps_of_its_sequences() -> None:
    run = Run(largest=8, longest=1)
    run.add([3], 4)
    run.add([2, 3, 4], 1)
    run.add([2], 1)
    assert [run.run().rows for _ in range(4)] == [1, 1, 1, 1]
    assert run.run().rows == 3
    assert run.run().rows == 1
    assert run.run() is None


def test_a_fleet_larger_than_a_batch_takes_several() -> None:
    run = Run(largest=3)
    run.add(list(range(8)), 1)
    assert [run.run().rows for _ in range(3)] == [3, 3, 2]
    run.finish()


def test_only_what_is_alone_goes_on_without_the_scheduler() -> None:
    run = Run(largest=3, longest=2)
    run.add([0], 5)
    batch = run.run(on=9)
    assert batch is not None
    assert len(run.taken[0]) == 5, "a chunk"
    run.add([1, 2, 3, 4, 5], 1)
    run.run(on=9)
    assert all(len(run.taken[slot]) == 1 for slot in (1, 2, 3, 4, 5)), "a fleet"
    run.add([6], 5)
    run.add([7], 1)
    batch = run.run(on=9)
    assert batch is not None
    assert len(run.taken[6]) == len(run.taken[7]) == 1, "a chunk with a step beside it"
    run.finish()


def test_rows_that_are_answered_as_they_run_do_not_wait_for_those_after_them() -> None:
    run = Run(largest=2)
    run.add([0, 1, 2, 3, 4], 1).apart = True
    run.run(on=9)
    assert sorted(run.taken) == [0, 1]
    run.finish()


def test_a_chunk_that_is_dropped_does_not_go_on() -> None:
    run = Run(largest=3, longest=2)
    run.add([0], 5)
    batch = run.scheduler.next()
    assert batch is not None
    run.drop(0)
    assert batch.further() is None


def test_a_mark_with_nothing_before_it_is_done_at_once() -> None:
    run = Run(largest=3)
    run.add([0, 1], 0)
    assert run.reached == [0]


def test_a_mark_comes_after_everything_before_it_and_before_nothing_after_it() -> None:
    run = Run(largest=8, longest=1)
    run.add([0], 2)
    run.add([1], 1)
    run.add([0, 1], 0)
    run.add([0], 1)
    run.run()
    assert run.reached == []
    run.run()
    assert run.reached == [2]
    run.finish()


def test_dropping_what_waits_reaches_the_marks_behind_it() -> None:
    run = Run(largest=8, longest=1)
    run.add([0], 5)
    run.add([0], 0)
    run.run()
    run.drop(0)
    assert run.reached == [1]


def test_a_single_step_does_not_wait_for_fleets() -> None:
    scheduler = Scheduler(10_000, 64, lambda _: 1)
    for fleet in range(3):
        scheduler.add(block(list(range(1_000 * fleet, 1_000 * (fleet + 1))), 1))
    for slot in range(5_000, 5_020):
        running = scheduler.next()
        assert running is not None
        single = block([slot], 1)
        scheduler.add(single)
        scheduler.finish(running)
        after = scheduler.next()
        assert after is not None
        assert any(take.block is single for take in after.takes)
        scheduler.finish(after)


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 64])
def test_a_fleet_does_not_wait_for_singles_that_never_end(largest: int) -> None:
    scheduler = Scheduler(1_000, largest, lambda _: 1)
    fleet = block(list(range(100)), 1)
    scheduler.add(fleet)
    for slot in range(100, 100 + 2 * largest):
        scheduler.add(block([slot], 1_000_000))
    for _ in range(1_000):
        batch = scheduler.next()
        assert batch is not None
        scheduler.finish(batch)
        if not fleet.left:
            return
    pytest.fail(f"{fleet.left} rows of the fleet still wait")


def test_more_singles_than_a_batch_takes_have_their_turns_alike() -> None:
    scheduler = Scheduler(1_000, 10, lambda _: 1)
    blocks = [block([slot], 100) for slot in range(35)]
    for each in blocks:
        scheduler.add(each)
    for _ in range(70):
        batch = scheduler.next()
        assert batch is not None
        scheduler.finish(batch)
    assert {each.done for each in blocks} == {20}


def test_a_row_that_is_answered_for_itself_is_free_before_the_others_of_its_block_have_run() -> None:
    scheduler = Scheduler(10, 4, lambda _: 1)
    both = block(list(range(6)), 1, singles=True, apart=True)
    scheduler.add(both)
    batch = scheduler.next()
    assert batch is not None
    assert not scheduler.is_free(np.arange(4))
    scheduler.finish(batch)
    assert scheduler.is_free(np.arange(4))
    assert not scheduler.is_free(np.arange(4, 6))
    again, behind = block([0], 1), block([5], 1)
    scheduler.add(again)
    scheduler.add(behind)
    batch = scheduler.next()
    assert batch is not None
    assert [take.block for take in batch.takes] == [both, again]
    scheduler.finish(batch)
    batch = scheduler.next()
    assert batch is not None
    assert [take.block for take in batch.takes] == [behind]


@pytest.mark.parametrize("singles", [False, True])
def test_a_row_of_a_block_that_is_answered_as_a_whole_is_not_free_before_all_have_run(singles: bool) -> None:
    scheduler = Scheduler(10, 4, lambda _: 1)
    whole = block(list(range(6)), 1, singles=singles)
    scheduler.add(whole)
    for free in (False, True):
        batch = scheduler.next()
        assert batch is not None
        scheduler.finish(batch)
        assert scheduler.is_free(np.arange(4)) is free


def test_single_steps_that_came_together_go_before_a_fleet_as_those_that_came_alone() -> None:
    scheduler = Scheduler(1_000, 8, lambda _: 1)
    fleet, both = block(list(range(100, 900)), 1), block(list(range(6)), 1, singles=True)
    scheduler.add(fleet)
    scheduler.add(both)
    batch = scheduler.next()
    assert batch is not None
    assert [(take.block, take.rows) for take in batch.takes] == [(both, 6), (fleet, 2)]


def test_a_long_row_of_dropped_blocks_is_closed_at_once() -> None:
    scheduler = Scheduler(1, 1, lambda _: 1)
    row = [block([0], 1) for _ in range(5_000)]
    for each in row:
        scheduler.add(each)
    batch = scheduler.next()
    assert batch is not None
    scheduler.drop(row)
    mark = block([0], 0)
    assert not scheduler.add(mark)
    assert scheduler.finish(batch) == [mark]
    assert scheduler.next() is None
