"""What is open on a server, for asyncio: a sequence, a fleet. They send, wait, and hand out what came."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate import calls
from tidegate.aio_connection import AsyncConnection
from tidegate.answers import Answer, Answers, FleetAnswers
from tidegate.facts import FleetFacts, SequenceFacts
from tidegate.fleet_ledger import FleetLedger
from tidegate.inputs import Inputs
from tidegate.ledger import Ledger, StepsTicket
from tidegate.sequence import WINDOW

# ruff: noqa: ASYNC109 - `timeout` has the same name and meaning in both clients, and raises our own TimedOut


class AsyncSequence(SequenceFacts):
    """A sequence that remembers: it lives on the server and ends with this context manager."""

    def __init__(self, connection: AsyncConnection, ledger: Ledger, timeout: float | None) -> None:
        self._connection = connection
        self._ledger = ledger
        self._timeout = timeout

    async def step(self, values: Inputs, timeout: float | None = None) -> Answer:
        """One step in, one answer out; see Sequence.step."""
        return await self._answer(self._connection.send(self._ledger.send_step, values), timeout)

    async def chunk(self, values: Inputs, timeout: float | None = None) -> Answers:
        """Many steps at once; see Sequence.chunk."""
        ticket = self._connection.send(self._ledger.send_chunk, values)
        await self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return self._ledger.answers(ticket)

    async def stream(
        self, rows: Iterable[Inputs] | AsyncIterable[Inputs], window: int = WINDOW, timeout: float | None = None
    ) -> AsyncIterator[Answer]:
        """Steps from any iterable or async iterable, up to `window` of them in flight; their answers in order.

        Each answer is handed out as it comes, also while `rows` is waiting for its next row. See Sequence.stream.
        """
        sent: asyncio.Queue[StepsTicket | None] = asyncio.Queue()
        room = asyncio.Semaphore(window)
        sender = asyncio.create_task(self._send_all(rows, sent, room))
        try:
            while (ticket := await sent.get()) is not None:
                answer = await self._answer(ticket, timeout)
                room.release()
                yield answer
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send_all(
        self,
        rows: Iterable[Inputs] | AsyncIterable[Inputs],
        sent: asyncio.Queue[StepsTicket | None],
        room: asyncio.Semaphore,
    ) -> None:
        try:
            async for row in _each(rows):
                await room.acquire()
                sent.put_nowait(self._connection.send(self._ledger.send_step, row))
        finally:
            sent.put_nowait(None)

    async def close(self, timeout: float | None = None) -> None:
        """Ends the sequence and waits until the server has done so. Leaving the context does not wait."""
        ticket = self._connection.end(self._ledger)
        await self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        ticket.result()

    def leave(self) -> None:
        """Ends the sequence without waiting for the server's word."""
        self._connection.end(self._ledger)

    async def _answer(self, ticket: StepsTicket, timeout: float | None) -> Answer:
        await self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return self._ledger.answer(ticket)


class AsyncFleet(FleetFacts):
    """Many sequences of one model that take their steps together; its members are numbered from 0."""

    def __init__(self, connection: AsyncConnection, ledger: FleetLedger, timeout: float | None) -> None:
        self._connection = connection
        self._ledger = ledger
        self._timeout = timeout

    async def step(
        self, values: Inputs, members: Rows[int] | NDArray[np.integer[Any]] | None = None, timeout: float | None = None
    ) -> FleetAnswers:
        """One step of every member, or of `members`: values [N, ...row] in their order. See Fleet.step."""
        ticket = self._connection.send(self._ledger.send, values, members)
        await self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        return self._ledger.answers(ticket)

    async def close(self, timeout: float | None = None) -> None:
        """Ends all members and waits until the server has done so. Leaving the context does not wait."""
        ticket = self._connection.end(self._ledger)
        await self._connection.wait(ticket, calls.limit(timeout, self._timeout))
        ticket.result()

    def leave(self) -> None:
        """Ends all members without waiting for the server's word."""
        self._connection.end(self._ledger)


async def _each(rows: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
