"""What is open on a server, for asyncio: a sequence, a fleet. They send, wait, and hand out what came."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from collections.abc import Sequence as Rows
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import Answer, Answers, FleetAnswers
from tidegate.facts import Facts, FleetFacts, SequenceFacts
from tidegate.inputs import InputLayout, Inputs
from tidegate.protocol.conversation import Requests
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.in_flight import StepsPromise
from tidegate.protocol.promise import Promise
from tidegate.protocol.sequence_books import Sending, SequenceBooks
from tidegate.sequence import WINDOW, B, Source, T
from tidegate.state import State
from tidegate.transport import calls
from tidegate.transport.aio import AsyncConnection
from tidegate.transport.deadline import Deadline

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut


AsyncSource = Source[Awaitable["AsyncSequence"], Awaitable[InputLayout]]


class _AsyncOpen(Facts[B]):
    """What is open: it can be asked for more than answers, closed, and left."""

    def __init__(self, connection: AsyncConnection, books: B, timeout: float | None) -> None:
        self._connection = connection
        self._books = books
        self._timeout = timeout

    async def close(self, timeout: float | None = None) -> None:
        """Ends it and waits until the server has done so. Leaving the context does not wait."""
        await self._ask(self._connection.talk.close, timeout)

    def leave(self) -> None:
        """Ends it without waiting for the server's word."""
        self._connection.ask(self._connection.talk.close, self._books)

    async def _ask(
        self, build: Callable[..., tuple[Promise[T], Requests]], timeout: float | None, *values: object
    ) -> T:
        promise = self._connection.ask(build, self._books, *values)
        await self._connection.wait(promise, calls.limit(timeout, self._timeout))
        return promise.result()


S = TypeVar("S", bound=_AsyncOpen[Any])


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


class AsyncSequence(SequenceFacts, _AsyncOpen[SequenceBooks]):
    """A sequence that remembers: it lives on the server and ends with this context manager; see Sequence."""

    def __init__(self, source: AsyncSource, connection: AsyncConnection, books: SequenceBooks) -> None:
        super().__init__(connection, books, source.timeout)
        self._source = source

    async def step(self, values: Inputs, timeout: float | None = None) -> Answer:
        """One step in, one answer out; see Sequence.step."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = await self._send(deadline.left, self._books.send_step, values)
        await self._connection.wait(promise, deadline.left)
        return self._books.answer(promise)

    async def chunk(self, values: Inputs, timeout: float | None = None) -> Answers:
        """Many steps at once; see Sequence.chunk."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = await self._send(deadline.left, self._books.send_chunk, values)
        await self._connection.wait(promise, deadline.left)
        return self._books.answers(promise)

    async def stream(
        self, rows: Iterable[Inputs] | AsyncIterable[Inputs], window: int = WINDOW, timeout: float | None = None
    ) -> AsyncIterator[Answer]:
        """Steps from any iterable or async iterable, up to `window` of them in flight; their answers in order.

        Each answer is handed out as it comes, also while `rows` is waiting for its next row. See Sequence.stream.
        """
        calls.check_window(window)
        sent: asyncio.Queue[StepsPromise | None] = asyncio.Queue()
        room = asyncio.Semaphore(window)
        limit = calls.limit(timeout, self._timeout)
        sender = asyncio.create_task(self._send_all(rows, sent, room, limit))
        try:
            while (promise := await sent.get()) is not None:
                answer = await self._answer(promise, timeout)
                room.release()
                yield answer
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send_all(
        self,
        rows: Iterable[Inputs] | AsyncIterable[Inputs],
        sent: asyncio.Queue[StepsPromise | None],
        room: asyncio.Semaphore,
        limit: float | None,
    ) -> None:
        try:
            async for row in _each(rows):
                await room.acquire()
                sent.put_nowait(await self._send(limit, self._books.send_step, row))
        finally:
            sent.put_nowait(None)

    async def state(self, timeout: float | None = None) -> State:
        """Its state after the steps that were sent, as a value; see Sequence.state."""
        return State.read((await self._ask(self._connection.talk.read_state, timeout)).state.state)

    def fork(self, timeout: float | None = None) -> Pending["AsyncSequence"]:
        """A new sequence of the same version that begins where this one stands; see AsyncClient.sequence."""
        return Pending(lambda: self._fork(timeout))

    async def _fork(self, timeout: float | None) -> "AsyncSequence":
        return await self._source.open(await self.state(timeout), self._books.opening, self.version, timeout)

    async def rewind(self, step: int, timeout: float | None = None) -> int:
        """Goes back to the newest checkpoint at or before `step`; see Sequence.rewind."""
        return (await self._ask(self._connection.talk.rewind, timeout, step)).rewound.next_step

    async def move(self, version: int = 0, timeout: float | None = None) -> int:
        """Goes on with another version of the model; see Sequence.move."""
        return (await self._ask(self._connection.talk.move, timeout, version)).moved.next_step

    async def _send(self, limit: float | None, build: Callable[[Inputs], Sending], values: Inputs) -> StepsPromise:
        if not self._books.knows_inputs:  # it moved since the last step
            version = self._books.version
            self._books.takes(version, await self._source.inputs(self.model, version, limit))
        return await self._connection.send(self._books, limit, build, values)

    async def _answer(self, promise: StepsPromise, timeout: float | None) -> Answer:
        await self._connection.wait(promise, calls.limit(timeout, self._timeout))
        return self._books.answer(promise)


class AsyncFleet(FleetFacts, _AsyncOpen[FleetBooks]):
    """Many sequences of one model that take their steps together; its members are numbered from 0."""

    async def step(
        self, values: Inputs, members: Rows[int] | NDArray[np.integer[Any]] | None = None, timeout: float | None = None
    ) -> FleetAnswers:
        """One step of every member, or of `members`: values [N, ...row] in their order. See Fleet.step."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = await self._connection.send(self._books, deadline.left, self._books.send, values, members)
        await self._connection.wait(promise, deadline.left)
        return self._books.answers(promise)


async def _each(rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
