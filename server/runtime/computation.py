"""Computes batches: the states of their rows from the slots, one run of the engine, the new states back.

Runs in the engine's thread, or in the event loop's, never in both at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from server import errors
from server.errors import TidegateError
from server.runtime.counters import Counters
from server.runtime.scheduler import Batch, Part
from server.runtime.shares import Take
from server.runtime.slots import SlotTable
from stepgraph.errors import StepFailed
from stepgraph.running.result import Result

if TYPE_CHECKING:
    from stepgraph.running.engine import Engine

log = logging.getLogger(__name__)


class Computation:
    """Of the batches of one model."""

    def __init__(self, engine: Engine, slots: SlotTable, counters: Counters) -> None:
        self._engine, self._slots, self._counters = engine, slots, counters

    def of(self, batch: Batch) -> list[Part]:
        """The results of its takes, in their order. An error stands for what could not be computed."""
        try:
            return list(self._together(batch))
        except StepFailed:
            rows = [
                Take(take.block, row, 1) for take in batch.takes for row in range(take.first, take.first + take.rows)
            ]
            return [part for row in rows for part in self._row(row, batch.steps)]
        except Exception:
            log.exception("the engine failed")
            failure = TidegateError("the server failed to compute this step; its log has the details")
            return [Part(take, take.block.done, error=failure) for take in batch.takes]

    def _together(self, batch: Batch) -> Iterator[Part]:
        """The whole batch in one run."""
        takes, blocks = batch.takes, [take.block for take in batch.takes]
        if batch.whole:
            slots = _join([block.slots for block in blocks], 0)
            inputs = {name: _join([block.inputs[name] for block in blocks], 1) for name in blocks[0].inputs}
        else:
            slots = _join([_slots(take) for take in takes], 0)
            inputs = {name: _join([_cut(take, name, batch.steps) for take in takes], 1) for name in blocks[0].inputs}
        trace = True in [block.trace for block in blocks]
        result = self._run(slots, inputs, trace, batch.steps)
        start = 0
        for take in batch.takes:
            yield Part(take, take.block.done if take.block.steps > 1 else 0, batch.steps, result, start)
            start += take.rows

    def _row(self, take: Take, steps: int) -> Iterator[Part]:
        """One row, step by step, to find out which of them cannot be computed."""
        chunk = take.block.steps > 1
        slots = take.block.slots[take.first : take.first + 1]
        for step in range(take.block.done, take.block.done + steps) if chunk else [0]:
            inputs = {name: x[step : step + 1, take.first : take.first + 1] for name, x in take.block.inputs.items()}
            try:
                result = self._run(slots, inputs, take.block.trace, 1)
            except StepFailed as error:
                yield Part(take, step, error=errors.StepFailed(str(error)))
                return
            yield Part(take, step, 1, result)

    def _run(self, slots: np.ndarray, inputs: Mapping[str, np.ndarray], trace: bool, steps: int) -> Result:
        began = perf_counter()
        run = self._engine.run_once if steps == 1 else self._engine.run
        result = run(inputs, self._slots.gather(slots), trace)
        self._slots.scatter(slots, result.state, steps)
        self._counters.ran(len(slots), steps, perf_counter() - began)
        return result


def _slots(take: Take) -> np.ndarray:
    slots = take.block.slots
    return slots if len(slots) == 1 else slots[take.first : take.first + take.rows]


def _cut(take: Take, name: str, steps: int) -> np.ndarray:
    """An input of a take, [steps, rows, ...row]."""
    block = take.block
    x = block.inputs[name]
    if len(block.slots) > 1:
        return x[:, take.first : take.first + take.rows]
    return x if len(x) == steps else x[block.done : block.done + steps]


def _join(arrays: list[np.ndarray], axis: int) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
