"""Fifty sequences of a surviving client over real streams: single steps, chunks and a fleet, and all their answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import numpy as np

from tests.raw_stream import RawStream
from tests.surviving_client import SurvivingClient, Survivor
from tidegate.v1.sequence_pb2 import StreamResponse

if TYPE_CHECKING:
    from collections.abc import Callable

SINGLE, CHUNKS, FLEET = 20, 15, 15
COUNT = SINGLE + CHUNKS + FLEET
GLANCE = 0.02  # seconds between two looks at what was refused for now
QUIET = 1.0  # seconds without a word, although some are owed, after which a connection is given up


class Traffic:
    """`rows` [COUNT, T, features] go through the model, to whatever server is at `address` when a stream is lost.

    `heard` is called after each message with the number of answers that there are.
    """

    def __init__(
        self,
        rows: np.ndarray,
        address: Callable[[], str],
        model: str = "recall",
        heard: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.client = SurvivingClient()
        self._rows, self._address, self._model, self._heard = rows, address, model, heard
        self.streams = 0

    @property
    def answers(self) -> list[list[bytes]]:
        return [one.answers for one in self.client.all]

    @property
    def count(self) -> int:
        return sum(len(one.answers) for one in self.client.all)

    async def run(self) -> None:
        """Until every step is answered."""
        self.client.open(SINGLE + CHUNKS, self._model)
        self.client.open(FLEET, self._model)
        self.client.lost()
        while not self._done:
            self.streams += 1
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionResetError):
                async with RawStream(self._address()) as stream:
                    await self._stream(stream)
            self.client.lost()
            await asyncio.sleep(GLANCE)

    async def _stream(self, stream: RawStream) -> None:
        """Until it is lost."""
        self.client.begin()
        reading = asyncio.ensure_future(stream.call.read())
        quiet = 0.0
        try:
            while not self._done:
                while self.client.out:
                    await stream.call.write(self.client.out.popleft().SerializeToString())
                done, _ = await asyncio.wait((reading,), timeout=GLANCE)
                if not done:
                    quiet += GLANCE
                    if quiet > QUIET:
                        return
                    self.client.begin()
                    continue
                quiet = 0.0
                response = reading.result()
                if not isinstance(response, StreamResponse):
                    return
                self.client.hear(response)
                self._heard(self.count)
                self._give()
                reading = asyncio.ensure_future(stream.call.read())
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await reading

    @property
    def _done(self) -> bool:
        lost = [one for one in self.client.all if one.gone]
        assert not lost, lost
        return self.count == self._rows.shape[0] * self._rows.shape[1]

    def _give(self) -> None:
        """Whoever has its answers gets its next steps."""
        for at, one in enumerate(self.client.all[: SINGLE + CHUNKS]):
            size = 1 if at < SINGLE else 1 + at % 9
            if self._may(one):
                self.client.give(one, self._rows[at, one.end : one.end + size])
        fleet = self.client.all[SINGLE + CHUNKS :]
        if all(self._may(one) for one in fleet):
            step = fleet[0].end
            self.client.give_fleet(fleet, self._rows[SINGLE + CHUNKS :, step])

    def _may(self, one: Survivor) -> bool:
        return one.ready and one.answered == one.end < self._rows.shape[1]
