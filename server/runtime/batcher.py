"""The loop: the scheduler decides, the engine computes, the answers go out.

The engine has a thread of its own, so that the event loop does not wait for onnxruntime; everything else here runs in
the event loop's thread. While a batch computes, the next one gathers. A batch that is known to take no longer than a
hand-over costs is computed in the event loop. With what is left of a chunk or fleet the engine goes on by itself, batch
by batch, until something else has come.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from server.runtime.answers import Answers
from server.runtime.computation import Computation
from server.runtime.counters import Counters
from server.runtime.loop_turn import LoopTurn
from server.runtime.scheduler import MANY, Batch, Block, Part, Scheduler, reached
from server.runtime.slots import SlotTable
from stepgraph.errors import StepFailed
from stepgraph.running.result import Result

if TYPE_CHECKING:
    from stepgraph.running.engine import Engine

log = logging.getLogger(__name__)

# batches that the engine goes on with before it tells of them: where other processes want the processors, too, a thread
# that works for long at a time waits for longer
_AHEAD = 3


class Batcher:
    """Runs the blocks of one model.

    Args:
        engine: computes; warmed up.
        slots: the states of the sequences.
        capacity: how many slots there are.
        patience: the longest that a newcomer may have to wait for a batch that has begun, in seconds, where a batch
            could also be cut shorter.
        on_the_spot: how long a batch may take to be computed in the event loop's own thread, in seconds.
        counters: of the model.
        turn: of the event loop, which answers share with whatever else there is.
    """

    def __init__(
        self,
        engine: Engine,
        slots: SlotTable,
        capacity: int,
        patience: float,
        on_the_spot: float,
        counters: Counters,
        turn: LoopTurn,
    ) -> None:
        self._engine, self._slots, self._on_the_spot = engine, slots, on_the_spot
        self._quick = engine.seconds(1) <= on_the_spot  # whether a step of one sequence is computed on the spot
        self._counters, self._turn, self._answers = counters, turn, Answers(turn)
        self._scheduler = Scheduler(
            capacity, engine.largest, lambda rows: max(1, int(patience / max(engine.seconds(rows), 1e-6)))
        )
        self.has_run = self._scheduler.is_free  # whether no step of these slots is to be computed
        self._latest = MANY  # the slot of the block that came last
        self._computation = Computation(engine, slots, counters)
        self._work: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._busy = False  # a batch is with the engine, or about to be chosen
        self._wanted = False  # something else has come, so that the engine is to tell of what it has computed
        self._pauses: list[Callable[[], None]] = []  # what waits for the engine to stand still
        self._rounds = 0  # the most steps that a sequence may have taken so far
        self._due = sys.maxsize  # the round at which `_remind` is called
        self._remind: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Starts the engine's thread; answers come in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Lets the engine finish its batch and ends the thread. What waits is not run."""
        self._wanted = True
        self._work.put(None)
        self._thread.join()

    def submit(self, block: Block) -> None:
        """Takes in a block; its sink is called with the answers."""
        alone, self._latest = block.slot == self._latest != MANY, block.slot  # then there is no other to wait for
        block.came = perf_counter()
        if self._scheduler.add(block):
            self._announce([block])
        elif self._busy:
            self._wanted |= not block.waits_for
        else:
            self._busy = True
            if alone:
                self._dispatch()
            else:
                self._loop.call_soon(self._dispatch)  # after the messages that came together with this one

    def at_once(self, slot: int, inputs: Mapping[str, np.ndarray], trace: bool) -> Result | None:
        """One step of the sequence in a slot, if no other step could share a batch with it.

        `inputs[name]` is [1, 1, ...row]. None if the step has to be submitted as a block: because other steps came
        meanwhile, because it takes too long to be computed here, or because it fails.
        """
        if self._busy or not self._quick or self._answers or slot != self._latest:
            return None
        began = perf_counter()
        try:
            result = self._engine.run_once(inputs, self._slots.row(slot), trace)
        except StepFailed:
            return None
        self._slots.put(slot, result.state)
        self._counters.ran_alone(perf_counter() - began)
        self._rounds += 1
        if self._rounds >= self._due:
            self._count(0)
        return result

    def is_free(self, slots: np.ndarray) -> bool:
        """Whether no step of these is under way, and no answer at all."""
        return not self._answers and self.has_run(slots)

    def remind(self, rounds: int, call: Callable[[], None]) -> None:
        """Calls once a sequence may have taken so many steps from now on; replaces an earlier call."""
        self._due, self._remind = self._rounds + rounds, call

    def pause(self, call: Callable[[], None]) -> None:
        """Calls between two batches: every row then holds the state after as many steps as its count says."""
        if self._busy:
            self._wanted = True
            self._pauses.append(call)
        else:
            call()

    def drop(self, blocks: Iterable[Block]) -> None:
        self._announce(self._scheduler.drop(blocks))

    def _count(self, steps: int) -> None:
        self._rounds += steps
        if self._rounds >= self._due:
            self._due = sys.maxsize
            _tell(self._remind)

    def _dispatch(self) -> None:
        if self._answers:  # a mark among them is of the state before any later step
            self._answers.put((), self._dispatch)
        elif (batch := self._hand_over()) is not None:
            self._compute_here(batch)

    def _hand_over(self) -> Batch | None:
        """Gives the next batch to the engine's thread, or returns it if it is to be computed here."""
        while self._pauses:
            _tell(self._turn.counted, self._pauses.pop())
        batch = self._scheduler.next()
        self._busy = batch is not None
        if batch is not None:
            self._count(batch.steps)
            self._note_waiting(batch)
        if batch is None or self._engine.seconds(batch.rows) * batch.length <= self._on_the_spot:
            return batch
        self._wanted = False
        self._work.put(batch)
        return None

    def _note_waiting(self, batch: Batch) -> None:
        now = perf_counter()
        self._counters.waiting.add_all([now - take.block.came for take in batch.takes if not take.block.done])

    def _compute_here(self, batch: Batch) -> None:
        parts = self._turn.counted(self._computation.of, batch)
        self._settle(batch, parts, partial(self._dispatch_after, batch))

    def _dispatch_after(self, batch: Batch) -> None:
        if not (self._scheduler.has_more or self._pauses):
            self._busy = False
        elif len(batch.takes) == 1 and batch.takes[0].block.left:  # of a fleet or chunk; no answer of others waits
            self._loop.call_soon(self._dispatch)
        else:
            self._loop.call_soon(self._loop.call_soon, self._dispatch)  # once the answers have left

    def _serve(self) -> None:
        for batch in iter(self._work.get, None):
            self._loop.call_soon_threadsafe(self._deliver, *self._computed(batch, self._due - self._rounds))
            del batch  # it is not kept while the next one is waited for

    def _computed(self, batch: Batch, rounds: int) -> tuple[Batch, list[Part], int]:
        """The last batch that was computed, the results of all, and the steps of those after the first.

        A change of threads takes as long as several rows. `rounds`: steps until a reminder is due.
        """
        parts, steps = self._computation.of(batch), 0
        for _ in range(_AHEAD):
            if self._wanted or steps >= rounds or any(part.error is not None for part in parts):
                break
            if (further := batch.further()) is None:
                break
            batch = further
            steps += batch.steps
            parts += self._computation.of(batch)
        return batch, parts, steps

    def _deliver(self, batch: Batch, parts: list[Part], further: int) -> None:
        """Gives the engine its next batch before the answers go out, if those of the batch before have.

        A mark goes out between two batches: at that moment the state is the one after the steps before it.
        """
        self._count(further)
        if self._answers or any(part.error is not None for part in parts):
            self._settle(batch, parts, self._dispatch)
        elif marks := self._scheduler.finish(batch):
            self._answers.put([*parts, *map(reached, marks)], self._dispatch)
        else:
            nearby = self._hand_over()
            self._answers.put(parts)
            if nearby is not None:  # only now, or its answers would overtake these
                self._compute_here(nearby)

    def _settle(self, batch: Batch, parts: Iterable[Part], then: Callable[[], None]) -> None:
        if any(part.error is not None for part in parts):
            for part in parts:  # a failure stops later steps of the same sequence
                _truncate(part)
                self._answers.put_all([part])
            parts = ()
        self._answers.put([*parts, *map(reached, self._scheduler.finish(batch))], then)

    def _announce(self, marks: Iterable[Block]) -> None:
        """After the answers of the steps before them."""
        if parts := [reached(mark) for mark in marks]:
            self._answers.put(parts)


def _tell(call: Callable[..., None], *given: object) -> None:
    """Calls a function; an exception is logged, and the loop goes on."""
    try:
        call(*given)
    except Exception:
        log.exception("what waited for a step failed")


def _truncate(part: Part) -> None:
    """A chunk ends at the step that failed."""
    block = part.take.block
    if part.error is not None and block.slot != MANY:
        block.steps = max(part.step, 1)
        block.done = block.steps
