"""A client of its own that streams all the while, and afterwards has the bits of an undisturbed run."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np

from tests.raw_stream import PATIENCE, RawStream, open_

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Bystander:
    """Takes one step after the other of a sequence of the model `lstm`, traced."""

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream
        self._random = np.random.default_rng(0)
        self._rows: list[np.ndarray] = []
        self._heard: list[bytes] = []
        self._news = asyncio.Condition()

    @property
    def answered(self) -> int:
        """How many answers it has heard."""
        return len(self._heard)

    async def more(self, count: int) -> None:
        """Waits until it has heard `count` more answers."""
        enough = len(self._heard) + count
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self._heard) >= enough)

    async def _go_on(self) -> None:
        while True:
            self._rows.append(self._random.normal(size=3).astype(np.float32))
            self._heard.extend(await self._stream.run(0, len(self._heard), np.stack(self._rows[-1:])))
            async with self._news:
                self._news.notify_all()

    async def verify(self, address: str) -> None:
        """What was heard is what a sequence alone gets."""
        async with RawStream(address) as stream:
            await stream.ask(open_())
            assert await stream.chunk(0, 0, np.stack(self._rows[: len(self._heard)])) == self._heard


@asynccontextmanager
async def bystander(address: str) -> AsyncIterator[Bystander]:
    """Goes on from before what happens in the context until after it."""
    async with RawStream(address) as stream:
        await stream.ask(open_())
        watching = Bystander(stream)
        task = asyncio.create_task(watching._go_on())
        waiting = asyncio.create_task(watching.more(3))
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        yield watching
        await asyncio.wait((task, asyncio.create_task(watching.more(3))), return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), task.exception()
        task.cancel()
    await watching.verify(address)
