"""What is open on a server, for asyncio: a sequence, a fleet. They send, wait, and hand out what came."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import Answer, Answers, FleetAnswers
from tidegate.facts import FleetFacts, SequenceFacts
from tidegate.inputs import InputLayout, Inputs
from tidegate.protocol.conversation import Asked
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.in_flight import StepsPromise
from tidegate.protocol.opening import Opening
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.sequence import WINDOW
from tidegate.state import State
from tidegate.transport import calls
from tidegate.transport.aio import AsyncConnection
from tidegate.transport.awaited import Pending
from tidegate.transport.deadline import Deadline
from tidegate.v1 import sequence_pb2 as pb

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut


@dataclass(frozen=True, slots=True)
class AsyncSource:
    """Where a sequence comes from; see Source."""

    timeout: float | None
    open: Callable[[State, Opening, int, float | None], Awaitable["AsyncSequence"]]
    inputs: Callable[[str, int, float | None], Awaitable[InputLayout]]


class AsyncSequence(SequenceFacts):
    """A sequence that remembers: it lives on the server and ends with this context manager; see Sequence."""

    def __init__(self, source: AsyncSource, connection: AsyncConnection, sequence_books: SequenceBooks) -> None:
        self._source = source
        self._connection = connection
        self._sequence_books = sequence_books
        self._timeout = source.timeout

    async def step(self, values: Inputs, timeout: float | None = None) -> Answer:
        """One step in, one answer out; see Sequence.step."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = await self._send(deadline.left, self._sequence_books.send_step, values)
        await self._connection.wait(promise, deadline.left)
        return self._sequence_books.answer(promise)

    async def chunk(self, values: Inputs, timeout: float | None = None) -> Answers:
        """Many steps at once; see Sequence.chunk."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = await self._send(deadline.left, self._sequence_books.send_chunk, values)
        await self._connection.wait(promise, deadline.left)
        return self._sequence_books.answers(promise)

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
                sent.put_nowait(await self._send(limit, self._sequence_books.send_step, row))
        finally:
            sent.put_nowait(None)

    async def state(self, timeout: float | None = None) -> State:
        """Its state after the steps that were sent, as a value; see Sequence.state."""
        return State.read((await self._ask(self._connection.talk.read_state, timeout)).state.state)

    def fork(self, timeout: float | None = None) -> Pending["AsyncSequence"]:
        """A new sequence of the same version that begins where this one stands; see AsyncClient.sequence."""
        return Pending(lambda: self._fork(timeout))

    async def _fork(self, timeout: float | None) -> "AsyncSequence":
        return await self._source.open(await self.state(timeout), self._sequence_books.opening, self.version, timeout)

    async def rewind(self, step: int, timeout: float | None = None) -> int:
        """Goes back to the newest checkpoint at or before `step`; see Sequence.rewind."""
        return (await self._ask(self._connection.talk.rewind, timeout, step)).rewound.next_step

    async def move(self, version: int = 0, timeout: float | None = None) -> int:
        """Goes on with another version of the model; see Sequence.move."""
        return (await self._ask(self._connection.talk.move, timeout, version)).moved.next_step

    async def close(self, timeout: float | None = None) -> None:
        """Ends the sequence and waits until the server has done so. Leaving the context does not wait."""
        promise = self._connection.ask(self._connection.talk.close, self._sequence_books)
        await self._connection.wait(promise, calls.limit(timeout, self._timeout))
        promise.result()

    def leave(self) -> None:
        """Ends the sequence without waiting for the server's word."""
        self._connection.ask(self._connection.talk.close, self._sequence_books)

    async def _ask(self, build: Callable[..., Asked], timeout: float | None, *values: object) -> pb.StreamResponse:
        promise = self._connection.ask(build, self._sequence_books, *values)
        await self._connection.wait(promise, calls.limit(timeout, self._timeout))
        return promise.result()

    async def _send(
        self,
        limit: float | None,
        build: Callable[[Inputs], tuple[StepsPromise, list[pb.StreamRequest]]],
        values: Inputs,
    ) -> StepsPromise:
        if not self._sequence_books.knows_inputs:  # it moved since the last step
            version = self._sequence_books.version
            self._sequence_books.takes(version, await self._source.inputs(self.model, version, limit))
        return await self._connection.send(self._sequence_books, limit, build, values)

    async def _answer(self, promise: StepsPromise, timeout: float | None) -> Answer:
        await self._connection.wait(promise, calls.limit(timeout, self._timeout))
        return self._sequence_books.answer(promise)


class AsyncFleet(FleetFacts):
    """Many sequences of one model that take their steps together; its members are numbered from 0."""

    def __init__(self, connection: AsyncConnection, sequence_books: FleetBooks, timeout: float | None) -> None:
        self._connection = connection
        self._sequence_books = sequence_books
        self._timeout = timeout

    async def step(
        self, values: Inputs, members: Rows[int] | NDArray[np.integer[Any]] | None = None, timeout: float | None = None
    ) -> FleetAnswers:
        """One step of every member, or of `members`: values [N, ...row] in their order. See Fleet.step."""
        deadline = Deadline(calls.limit(timeout, self._timeout))
        promise = await self._connection.send(
            self._sequence_books, deadline.left, self._sequence_books.send, values, members
        )
        await self._connection.wait(promise, deadline.left)
        return self._sequence_books.answers(promise)

    async def close(self, timeout: float | None = None) -> None:
        """Ends all members and waits until the server has done so. Leaving the context does not wait."""
        promise = self._connection.ask(self._connection.talk.close, self._sequence_books)
        await self._connection.wait(promise, calls.limit(timeout, self._timeout))
        promise.result()

    def leave(self) -> None:
        """Ends all members without waiting for the server's word."""
        self._connection.ask(self._connection.talk.close, self._sequence_books)


async def _each(rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
