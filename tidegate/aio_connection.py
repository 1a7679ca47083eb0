"""One stream, for asyncio: what a Conversation says goes out, what comes in goes to it.

One task reads and another writes, because leaving a read or a write of grpc.aio half-way ends the whole stream.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from tidegate.conversation import Conversation
from tidegate.errors import ConnectionLost, ProtocolError, TidegateError, TimedOut
from tidegate.fleet_ledger import FleetLedger
from tidegate.ledger import Ledger
from tidegate.opening import Order
from tidegate.status import explain
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from tidegate.v1.tidegate_pb2_grpc import TidegateAsyncStub  # a name that only type checkers know

K = TypeVar("K", bound=Ticket[Any])

_GOODBYE = 1.0  # seconds that a server may take to end a stream on which nothing is open


class AsyncConnection:
    """A stream that any number of tasks of one event loop share."""

    def __init__(self, stub: "TidegateAsyncStub", address: str) -> None:
        self._address = address
        self._talk = Conversation()
        self._outbox: asyncio.Queue[pb.StreamRequest | None] = asyncio.Queue()
        self._waiting: dict[Ticket[Any], asyncio.Future[None]] = {}
        self._call = stub.Stream(self._requests())
        self._reader = asyncio.create_task(self._read_on())

    @property
    def alive(self) -> bool:
        """Whether sequences can be opened on it."""
        return self._talk.lost is None and not self._call.done()

    def send(self, build: Callable[..., tuple[K, list[pb.StreamRequest]]], *values: object) -> K:
        """Builds messages and sends them. gRPC takes them from the outbox as the server reads."""
        ticket, requests = build(*values)
        for request in requests:
            self._outbox.put_nowait(request)
        return ticket

    def open(self, order: Order) -> Ticket[pb.Opened]:
        """Asks for new sequences."""
        return self.send(self._talk.open, order)

    def enrol(self, ledger: Ledger | FleetLedger) -> None:
        """Enters what was opened."""
        self._talk.enrol(ledger)

    def end(self, ledger: Ledger | FleetLedger) -> Ticket[pb.Closed]:
        """Asks to end sequences."""
        return self.send(self._talk.close, ledger)

    async def wait(self, ticket: Ticket[Any], timeout: float | None) -> None:  # noqa: ASYNC109 - our own error
        """Until the ticket is settled. Raises TimedOut after `timeout` seconds; the answer is then dropped."""
        if ticket.done:
            return
        settled = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        try:
            if timeout is None:
                await settled
            else:
                await asyncio.wait_for(settled, timeout)
        except TimeoutError:
            raise TimedOut(f"no answer from {self._address} in the given time") from None
        finally:
            self._waiting.pop(ticket, None)

    async def close(self) -> None:
        """Ends the stream: in peace if nothing is open on it, else by cancelling it. Whoever waits gets an error."""
        peaceful = self.alive and self._talk.idle
        self._outbox.put_nowait(None)
        if peaceful:
            await asyncio.wait({self._reader}, timeout=_GOODBYE)
        self._lose(ConnectionLost("this client was closed"))
        self._call.cancel()
        await asyncio.wait({self._reader})

    async def _requests(self) -> AsyncIterator[pb.StreamRequest]:
        while (request := await self._outbox.get()) is not None:
            yield request

    async def _read_on(self) -> None:
        self._lose(await self._read_all())
        self._call.cancel()

    async def _read_all(self) -> TidegateError:
        """Reads to the end, and says what the end was."""
        try:
            async for response in self._call:
                self._settle(self._talk.receive(response))
        except ProtocolError as error:
            return error
        except grpc.RpcError as error:
            return explain(error, self._address)
        except asyncio.CancelledError:
            return ConnectionLost(f"the stream of {self._address} was cancelled")
        return ConnectionLost(f"the server at {self._address} ended the stream")

    def _lose(self, error: TidegateError) -> None:
        for ticket in self._talk.lose(error):
            self._settle(ticket)
        self._outbox.put_nowait(None)

    def _settle(self, ticket: Ticket[Any] | None) -> None:
        waiting = None if ticket is None else self._waiting.get(ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
