"""What is open on a server, for asyncio: a sequence, a fleet."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from tidegate.answers import Answer
from tidegate.inputs import Inputs
from tidegate.opened import WINDOW, Closing, FleetCalls, SequenceCalls
from tidegate.protocol.in_flight import StepsPromise
from tidegate.transport import calls
from tidegate.transport.deadline import Deadline

S = TypeVar("S", bound=Closing[Any])


class Pending(Generic[S]):
    """What `opening` will open; it begins with the `await` or the `async with`."""

    def __init__(self, opening: Callable[[], Awaitable[S]]) -> None:
        self._opening = opening

    def __await__(self) -> Generator[Any, None, S]:
        return self._opening().__await__()

    async def __aenter__(self) -> S:
        self._opened = await self._opening()
        return self._opened

    async def __aexit__(self, *_: object) -> None:
        self._opened.leave()


class AsyncSequence(SequenceCalls[Pending["AsyncSequence"]]):
    """A sequence that remembers: it lives on the server and ends with this context manager; see Sequence."""

    async def stream(
        self, rows: Iterable[Inputs] | AsyncIterable[Inputs], window: int = WINDOW, timeout: float | None = None
    ) -> AsyncIterator[Answer]:
        """Steps from any iterable or async iterable, up to `window` of them in flight; their answers in order.

        Each answer is handed out as it comes, also while `rows` is waiting for its next row. See Sequence.stream.
        """
        calls.check_window(window)
        sent: asyncio.Queue[StepsPromise | None] = asyncio.Queue()
        room = asyncio.Semaphore(window)
        limit = calls.limit(timeout, self._source.timeout)

        async def send_all() -> None:
            try:
                async for row in _each(rows):
                    await room.acquire()
                    sent.put_nowait(await self._send(self._books.send_step, row, Deadline(limit)))
            finally:
                sent.put_nowait(None)

        sender = asyncio.create_task(send_all())
        try:
            while (promise := await sent.get()) is not None:
                answer = await self._answer(promise, limit)
                room.release()
                yield answer
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)


class AsyncFleet(FleetCalls):
    """Many sequences of one model that take their steps together; its members are numbered from 0. See Fleet."""


async def _each(rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
