"""The window of one stream: sequences wait side by side, and a client that does not read has no more steps run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.errors import TidegateError
from server.runtime.scheduler import Block
from server.streams.allowance import Allowance
from server.streams.events import Failed
from server.streams.replies import Chunk
from server.streams.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.streams.events import Event

ROW = 100
PIECE = Chunk(None, SimpleNamespace(row_bytes=ROW), 0, 0, 3).size  # type: ignore[arg-type] # only its size is asked for


class Batcher:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.dropped: list[Block] = []

    def submit(self, block: Block) -> None:
        self.blocks.append(block)

    def drop(self, blocks: list[Block]) -> None:
        self.dropped += blocks


class Bench:
    """A window of two pieces over a batcher that computes nothing by itself."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.batcher = Batcher()
        handles = SimpleNamespace(next=np.full(10, 99), slots=np.arange(10))
        self.window = Window(handles, Allowance(2 * PIECE), self.events.append)  # type: ignore[arg-type]
        self.group: Any = SimpleNamespace(row_bytes=ROW, model=SimpleNamespace(batcher=self.batcher))
        self.made = 0

    def chunk(self, handle: int, pieces: int, first: int = 0) -> None:
        blocks = self._blocks(handle, pieces, first)
        inputs = {"x": np.zeros((3 * pieces, 1, 3), np.float32)}
        self.window.enqueue(self.group, (handle,), next(blocks), blocks, inputs)

    def _blocks(self, handle: int, pieces: int, first: int) -> Iterator[Block]:
        for at in range(first, first + 3 * pieces, 3):
            self.made += 1
            reply = Chunk(self.window, self.group, handle, at, 3)
            yield Block(np.array([handle]), 3, {"x": np.zeros((3, 1, 3), np.float32)}, False, reply)

    def write(self) -> None:
        """The oldest answer leaves."""
        block = next(iter(self.window._blocks))
        self.window.done(block)
        self.window.written(block.sink.size)

    @property
    def ran(self) -> list[tuple[int, int]]:
        """What went to the batcher: handles and first steps."""
        return [(b.sink.handles.item(), b.sink.first_step) for b in self.batcher.blocks]  # type: ignore[attr-defined]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_sequences_take_turns_and_each_keeps_its_order(bench: Bench) -> None:
    bench.chunk(0, 5)
    bench.chunk(1, 2)
    bench.chunk(1, 1, first=6)
    bench.chunk(2, 1)
    for _ in range(7):
        bench.write()
    assert bench.ran == [(0, 0), (0, 3), (0, 6), (1, 0), (2, 0), (0, 9), (1, 3), (0, 12), (1, 6)]


def test_a_chunk_is_cut_as_it_runs_and_not_before(bench: Bench) -> None:
    bench.chunk(0, 100_000)
    assert bench.made <= 4


def test_a_client_is_read_on_while_a_chunk_waits_but_not_without_a_bound(bench: Bench) -> None:
    bench.window = Window(bench.window._handles, Allowance(10_000), bench.events.append)
    bench.window.outstanding = 9_999
    bench.chunk(0, 2)
    assert not bench.window.full
    for handle in range(1, 10):
        bench.chunk(handle, 1)
    assert bench.window.full


def test_a_long_chunk_that_waits_is_counted_whole(bench: Bench) -> None:
    bench.window.outstanding = 2 * PIECE - 1
    assert not bench.window.full
    bench.chunk(0, 1_000)
    assert bench.window.full


def test_who_waits_for_the_end_of_a_sequence_does_not_wait_for_others(bench: Bench) -> None:
    bench.chunk(0, 5)
    called: list[int] = []
    bench.window.after(bench.group, np.array([1]), lambda: called.append(1))
    assert bench.batcher.blocks[-1].steps == 0
    bench.window.after(bench.group, np.array([0, 1]), lambda: called.append(0))
    assert [block.steps for block in bench.batcher.blocks] == [3, 3, 0]
    for _ in range(5):
        bench.write()
    assert [block.steps for block in bench.batcher.blocks] == [3, 3, 0, 3, 3, 3, 0]


def test_a_step_that_fails_has_all_that_was_sent_after_it_refused_once_and_nothing_stands_still(bench: Bench) -> None:
    bench.chunk(0, 4)
    bench.chunk(0, 1, first=12)
    bench.chunk(1, 1)
    failing, later = bench.batcher.blocks
    bench.window.failed(failing, 0, 1, TidegateError("no"), failing.sink.size)
    bench.window.done(failing)
    failures = [(e.handles, e.first_step, e.expected) for e in bench.events if isinstance(e, Failed)]
    assert failures == [((0,), 1, (1,)), ((0,), 3, (1,)), ((0,), 6, (1,)), ((0,), 12, (1,))]
    assert bench.batcher.dropped == [later]
    assert bench.ran[-1] == (1, 0)
    bench.write()
    assert bench.window.idle


def test_when_the_client_is_gone_only_those_who_wait_for_an_end_are_left(bench: Bench) -> None:
    bench.chunk(0, 5)
    bench.window.after(bench.group, np.array([0]), lambda: None)
    running = list(bench.batcher.blocks)
    bench.window.abandon()
    assert bench.batcher.dropped == running
    assert [block.steps for block in bench.batcher.blocks] == [3, 3, 0]
