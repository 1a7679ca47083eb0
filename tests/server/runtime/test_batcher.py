"""The loop goes on, whatever those do who hear from it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

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
