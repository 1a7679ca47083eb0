"""Results leave by one door: an observer sees each step once, whether it ran alone, in a chunk or in a fleet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.caller import Caller
from server.durability.null_keeper import NullKeeper
from server.settings import Settings
from server.streams.allowance import Allowance
from server.streams.events import Answered, FleetAnswered, Opened
from server.streams.stream import Stream
from server.streams.trace import Manner, Selection
from tests.server.world import versions
from tests.shelf import MODEL, Shelf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from server.runtime.observer import Results
    from server.streams.events import Event

ROWS = np.random.default_rng(5).normal(size=(9, 3)).astype(np.float32)


class Watcher:
    def __init__(self) -> None:
        self.seen: list[Results] = []
        self.fails = False

    def answered(self, results: Results) -> None:
        self.seen.append(results)
        if self.fails:
            raise ValueError("it cannot look")


class Client:
    def __init__(self, shelf: Shelf) -> None:
        self.told: list[Event] = []
        self.stream = Stream(
            shelf, NullKeeper(), 4, Allowance(2**20), self.told.append, Caller("ipv4:10.0.0.1"), "route"
        )
        self.stream.open(0, 2, MODEL, 1, Manner(Selection(every=2)))

    async def take_all_kinds(self) -> None:
        """Two single steps that run alone, a chunk, and a fleet."""
        for step in range(2):
            self.stream.steps(0, step, [("", ROWS[step])])
            await self._answers(step + 1)
        self.stream.steps(0, 2, [("", ROWS[2:7])])
        self.stream.steps(1, 0, [("", ROWS[:7])])
        await self._answers(4)
        self.stream.fleet(np.array([1, 0]), np.array([7, 7]), [("", ROWS[7:9])])
        await self._answers(5)

    async def _answers(self, count: int) -> None:
        async with asyncio.timeout(120):
            while len(self.answers) < count:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0)

    @property
    def answers(self) -> list[Answered | FleetAnswered]:
        return [event for event in self.told if isinstance(event, Answered | FleetAnswered)]


@pytest.fixture
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    shelf = Shelf(versions(tmp_path_factory.getbasetemp()), Settings(max_sequences=12, spot_us=1e9))
    shelf.start()
    yield shelf
    shelf.stop()


async def test_an_observer_sees_every_result_that_leaves(shelf: Shelf) -> None:
    watcher = shelf.models[1].observer = Watcher()
    client = Client(shelf)
    await client.take_all_kinds()
    opened = client.told[0]
    assert isinstance(opened, Opened)
    one, two = opened.ids
    seen = [(each.sequences, each.first_steps.tolist(), each.steps) for each in watcher.seen]
    assert sorted(seen) == sorted(
        [((one,), [0], 1), ((one,), [1], 1), ((one,), [2], 5), ((two,), [0], 7), ((two, one), [7, 7], 1)]
    )
    for results, answer in zip(watcher.seen, client.answers, strict=True):
        assert list(results.outputs) == list(answer.form.names)
        assert all(a is b for a, b in zip(results.outputs.values(), answer.outputs, strict=True))
        assert results.trace is answer.trace


async def test_an_observer_that_fails_keeps_no_answer_from_its_client(shelf: Shelf) -> None:
    watcher = shelf.models[1].observer = Watcher()
    watcher.fails = True
    client = Client(shelf)
    await client.take_all_kinds()
    assert len(watcher.seen) == len(client.answers) == 5
