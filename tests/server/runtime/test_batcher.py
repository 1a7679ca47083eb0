"""The loop goes on, whatever those do who hear from it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.runtime.answers import Answers
from server.runtime.loop_turn import LoopTurn
from server.runtime.scheduler import Block
from server.runtime.served_model import ServedModel
from server.settings import Settings
from stepgraph.loading import load
from tests.running_server import ROOT
from tests.shelf import MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from server.runtime.scheduler import Part

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
