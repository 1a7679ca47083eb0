"""The loop goes on, whatever those do who hear from it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.runtime.answers import Answers
from server.runtime.loop_turn import LoopTurn
from server.runtime.scheduler import Block
from server.runtime.served_model import ServedModel
from server.settings import Settings
from stepgraph.errors import StepFailed
from stepgraph.loading import load
from tests.running_server import ROOT
from tests.shelf import MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from server.runtime.scheduler import Batch, Part
    from stepgraph.running.result import Result

FILE = Path(ROOT, "models", MODEL, "1", "model.onnx")
ROWS = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)


class Sink:
    """Hears of one block; `fails` with what it hears."""

    def __init__(self, *, fails: bool = False) -> None:
        self.steps = 0
        self.heard = asyncio.Event()
        self._fails = fails

    def answered(self, part: Part) -> None:
        self.steps += part.steps
        self._hear()

    def _hear(self) -> None:
        self.heard.set()
        if self._fails:
            raise asyncio.InvalidStateError("it was not there any more")


@pytest.fixture(params=[0.0, 1e9], ids=["in the engine's thread", "on the spot"])
async def model(request: pytest.FixtureRequest) -> AsyncIterator[ServedModel]:
    model = ServedModel(MODEL, 1, load(FILE, 8, 1e-3), Settings(max_sequences=8, spot_us=request.param))
    model.start()
    yield model
    model.stop()


def submit(model: ServedModel, slot: np.ndarray, steps: int, sink: Sink) -> None:
    name = model.graph.inputs[0].name
    model.batcher.submit(Block(slot, steps, {name: ROWS[:steps, np.newaxis]} if steps else {}, False, sink))


async def hears(sink: Sink) -> None:
    async with asyncio.timeout(120):
        await sink.heard.wait()


async def test_one_who_fails_at_hearing_an_answer_a_mark_a_pause_or_a_reminder_keeps_nobody_from_theirs(
    model: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise asyncio.InvalidStateError("nobody is there to be reminded")

    one, other = model.slots.reserve(1), model.slots.reserve(1)
    model.batcher.remind(1, fail)
    deaf, mark, listener = Sink(fails=True), Sink(fails=True), Sink()
    submit(model, one, 20, deaf)
    submit(model, one, 0, mark)
    model.batcher.pause(fail)
    submit(model, other, 20, listener)
    for sink in (deaf, mark, listener):
        await hears(sink)
    assert "what waited for a step failed" in caplog.text
    again = Sink()
    submit(model, one, 20, again)
    await hears(again)
    paused = asyncio.Event()
    model.batcher.pause(paused.set)
    async with asyncio.timeout(120):
        await paused.wait()


async def test_a_mark_is_reached_after_the_answers_before_it_and_no_later_step_overtakes_answers_that_wait(
    model: ServedModel,
) -> None:
    loop, batcher = asyncio.get_running_loop(), model.batcher
    turn = LoopTurn(loop.call_soon, 1e-9)  # one answer in each turn
    batcher._answers = Answers(turn)
    slots = [model.slots.reserve(1) for _ in range(6)]
    told = list[str]()

    class Named(Sink):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def answered(self, part: Part) -> None:
            told.append(self.name)
            super().answered(part)

    steps = [Named(f"step of {n}") for n in range(6)]
    marks = [Named(f"mark of {n}") for n in range(6)]
    for slot, step, mark in zip(slots, steps, marks, strict=True):
        submit(model, slot, 1, step)
        submit(model, slot, 0, mark)
    name, beside = model.graph.inputs[0].name, list[bool]()
    while not all(mark.heard.is_set() for mark in marks):
        if batcher._answers:  # a step by itself would be answered before those
            beside.append(batcher.at_once(slots[-1].item(0), {name: ROWS[:1, np.newaxis]}, False) is None)
        await asyncio.sleep(0)
    assert beside
    assert all(beside)
    for n in range(6):
        assert told.index(f"step of {n}") < told.index(f"mark of {n}")
    assert len(told) == 12


class Halting:
    """Stands in for the engine's way to compute one step: halts in the step of this number until told to go on."""

    def __init__(self, model: ServedModel, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self._run, self._left = model.loaded.engine.run_once, number
        self.halted, self.go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(model.loaded.engine, "run_once", self._run_once)

    def _run_once(self, *given: Any) -> Result:  # noqa: ANN401 - what the engine is given
        self._left -= 1
        if not self._left:
            self.halted.set()
            assert self.go_on.wait(120)
        return self._run(*given)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.halted.wait, 120)


@pytest.fixture
async def impatient() -> AsyncIterator[ServedModel]:
    """Its batches are of one step each."""
    model = ServedModel(MODEL, 1, load(FILE, 8, 1e-3), Settings(max_sequences=8, spot_us=0.0, patience_ms=1e-6))
    model.start()
    yield model
    model.stop()


async def test_the_engine_goes_on_with_a_chunk_and_tells_of_many_batches_at_once(
    impatient: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, deliver = list[int](), impatient.batcher._deliver

    def note(batch: Batch, parts: list[Part], further: int) -> None:
        told.append(len(parts))
        deliver(batch, parts, further)

    monkeypatch.setattr(impatient.batcher, "_deliver", note)
    sink = Sink()
    submit(impatient, impatient.slots.reserve(1), 4, sink)
    await hears(sink)
    assert sink.steps == 4
    assert told == [4]


async def test_who_comes_while_the_engine_goes_on_with_a_chunk_is_computed_after_the_batch_that_runs(
    impatient: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, chunk, newcomer = Halting(impatient, monkeypatch, 5), Sink(), Sink()
    one, other = impatient.slots.reserve(1), impatient.slots.reserve(1)
    submit(impatient, one, 30, chunk)
    await engine.reached()
    submit(impatient, other, 1, newcomer)
    engine.go_on.set()
    await hears(newcomer)
    assert chunk.steps <= 6
    while chunk.steps < 30:
        chunk.heard.clear()
        await hears(chunk)


async def test_a_pause_comes_after_the_batch_that_runs_while_the_engine_goes_on_with_a_chunk(
    impatient: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, chunk, slot = Halting(impatient, monkeypatch, 5), Sink(), impatient.slots.reserve(1)
    submit(impatient, slot, 30, chunk)
    await engine.reached()
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    impatient.batcher.pause(lambda: done.set_result(impatient.slots.done.item(slot.item())))
    engine.go_on.set()
    async with asyncio.timeout(120):
        assert await done == 5


async def test_a_reminder_comes_in_time_while_the_engine_goes_on_with_a_chunk(impatient: ServedModel) -> None:
    chunk, slot = Sink(), impatient.slots.reserve(1)
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    impatient.batcher.remind(7, lambda: done.set_result(impatient.slots.done.item(slot.item())))
    submit(impatient, slot, 30, chunk)
    async with asyncio.timeout(120):
        assert await done <= 8


async def test_a_chunk_fails_at_the_step_that_cannot_be_computed_although_the_engine_went_on_by_itself(
    impatient: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, left = impatient.loaded.engine.run_once, iter(range(30))

    def fails(*given: Any) -> Result:  # noqa: ANN401 - what the engine is given
        if next(left) >= 9:
            raise StepFailed("the tenth")
        return run(*given)

    parts: list[Part] = []

    class Listener(Sink):
        def answered(self, part: Part) -> None:
            parts.append(part)
            super().answered(part)

    monkeypatch.setattr(impatient.loaded.engine, "run_once", fails)
    sink = Listener()
    slot = impatient.slots.reserve(1)
    submit(impatient, slot, 30, sink)
    while not parts or parts[-1].error is None:
        sink.heard.clear()
        await hears(sink)
    assert [(part.step, part.steps) for part in parts] == [*((n, 1) for n in range(9)), (9, 0)]
    assert impatient.slots.done.item(slot.item()) == 9
    assert impatient.batcher.is_free(slot)


@pytest.mark.parametrize("model", [1e9], ids=["on the spot"], indirect=True)
async def test_of_sequences_that_step_in_the_same_turn_of_the_loop_none_is_computed_by_itself(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is tried alone first, as a stream does it; and again once the batcher has had nothing to do."""
    rows, computed = [], model.batcher._computation.of

    def noting(batch: Batch) -> list[Part]:
        rows.append(batch.rows)
        return computed(batch)

    monkeypatch.setattr(model.batcher._computation, "of", noting)
    name, slots = model.graph.inputs[0].name, [model.slots.reserve(1) for _ in range(4)]
    for _ in range(3):
        sinks = [Sink() for _ in slots]
        for slot, sink in zip(slots, sinks, strict=True):
            assert model.batcher.at_once(slot.item(), {name: ROWS[:1, np.newaxis]}, False) is None
            submit(model, slot, 1, sink)
        for sink in sinks:
            await hears(sink)
    assert rows == [4] * 3
    one = slots[2].item()
    submit(model, slots[2], 1, sink := Sink())
    await hears(sink)
    assert model.batcher.at_once(one, {name: ROWS[:1, np.newaxis]}, False) is not None
