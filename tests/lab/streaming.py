"""A surviving client over real streams: a new stream whenever one is lost, until there is nothing more to do."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from tests.raw_stream import RawStream
from tidegate.v1.sequence_pb2 import StreamRequest, StreamResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.surviving_client import SurvivingClient

GLANCE = 0.02  # seconds between two looks at what was refused for now
QUIET = 1.0  # seconds without a word, although some are owed, after which a connection is given up
LOST = (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionResetError)


class Streaming:
    """`act` is called after each message that was heard, and when none came for a glance; `bundle`: how many in one.

    `again`: seconds from the loss of a stream to the next one.
    """

    def __init__(
        self,
        client: SurvivingClient,
        address: Callable[[], str],
        *,
        done: Callable[[], bool],
        act: Callable[[], None],
        bundle: Callable[[], int] = lambda: 1,
        patience: float = QUIET,
        again: float = GLANCE,
    ) -> None:
        self._client, self._address, self._done, self._act, self._bundle = client, address, done, act, bundle
        self._patience, self._again = patience, again
        self.streams = 0
        self.story: deque[str] = deque(maxlen=40)  # what became of the last streams

    async def run(self) -> None:
        """Until it is done."""
        self._client.lost()
        while not self._done():
            self.streams += 1
            address, began, self._heard = self._address(), time.monotonic(), list[str]()
            try:
                async with RawStream(address) as stream:
                    end = await self._stream(stream)
            except (*LOST, TimeoutError) as error:
                end = _said(error)
            heard = f"{len(self._heard)} messages, the last {self._heard[-3:]}"
            self.story.append(f"{address}: {time.monotonic() - began:.1f} s, {heard}; {end}")
            if self._done():  # while it has the stream; without one its sequences are on their way again
                return
            self._client.lost()
            await asyncio.sleep(self._again)

    async def _stream(self, stream: RawStream) -> str:
        """Until it is lost; how it ended."""
        self._client.begin()
        reading = asyncio.ensure_future(stream.call.read())
        quiet = 0.0
        try:
            while not self._done() and quiet <= self._patience:
                await self._say(stream)
                done, _ = await asyncio.wait((reading,), timeout=GLANCE)
                quiet = 0.0 if done else quiet + GLANCE
                if done:
                    response = reading.result()
                    if not isinstance(response, StreamResponse):
                        return "the server ended it"
                    self._heard.append(_kind(response))
                    self._client.hear(response)
                    reading = asyncio.ensure_future(stream.call.read())
                else:
                    self._client.begin()
                self._act()
            return "nothing was heard any more" if quiet > self._patience else "all was done"
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, *LOST):
                await reading

    async def _say(self, stream: RawStream) -> None:
        out = self._client.out
        while out:  # a server that stands still takes no message
            message = StreamRequest()
            message.CopyFrom(out.popleft())
            for _ in range(min(len(out), self._bundle() - 1)):
                message.more.append(out.popleft())
            async with asyncio.timeout(self._patience):
                await stream.call.write(message.SerializeToString())


def _kind(response: StreamResponse) -> str:
    """What a message is, and why if it is a refusal."""
    if response.HasField("failure"):
        return f"failure {response.failure.error.reason}: {response.failure.error.message[:80]}"
    return response.WhichOneof("response") or ""


def _said(error: BaseException) -> str:
    return error.details() or "" if isinstance(error, grpc.aio.AioRpcError) else repr(error)
