"""One stream's talk, without the stream: which messages to send, and to whom each message that comes belongs.

Any number of sequences and fleets share it. Pure: a shell puts the requests on a wire, hands in what comes, and waits
for tickets in its own way, with threads or with asyncio. Not thread-safe by itself.
"""

from copy import copy
from typing import Any

from tidegate.errors import ConnectionLost, ProtocolError, SequenceEnded, TidegateError, reason_name, refused
from tidegate.fleet_ledger import FleetLedger
from tidegate.handles import Handles
from tidegate.ledger import Ledger
from tidegate.opening import Order
from tidegate.ticket import Ticket
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.error_pb2 import REASON_HANDLE_IN_USE

AnyTicket = Ticket[Any]


class Conversation:
    """The bookkeeping of one stream."""

    def __init__(self) -> None:
        self.lost: TidegateError | None = None
        self._handles = Handles()
        self._opening: dict[int, tuple[Order, Ticket[pb.Opened]]] = {}
        self._sequences: dict[int, Ledger] = {}
        self._fleets: dict[int, FleetLedger] = {}
        self._closing: dict[int, Ticket[pb.Closed]] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is open on it, but for what is already being closed."""
        return not self._opening and {*self._sequences, *self._fleets} <= self._closing.keys()

    # Sending.

    def open(self, order: Order) -> tuple[Ticket[pb.Opened], list[pb.StreamRequest]]:
        """Asks for new sequences."""
        if self.lost is not None:
            raise copy(self.lost)
        handle = self._handles.take(order.count)
        ticket: Ticket[pb.Opened] = Ticket()
        self._opening[handle] = (order, ticket)
        return ticket, [order.request(handle)]

    def enrol(self, ledger: Ledger | FleetLedger) -> None:
        """Enters the books of what was opened; from now on its answers go there."""
        if isinstance(ledger, FleetLedger):
            self._fleets[ledger.handle] = ledger
        else:
            self._sequences[ledger.handle] = ledger
        if self.lost is not None:
            ledger.abandon(self.lost)

    def close(self, ledger: Ledger | FleetLedger) -> tuple[Ticket[pb.Closed], list[pb.StreamRequest]]:
        """Asks to end sequences after their last answer. No more steps can be sent."""
        ticket: Ticket[pb.Closed] = Ticket()
        ledger.end(SequenceEnded("this sequence was closed"))
        if self.lost is not None:
            ticket.fail(self.lost)
        else:
            self._closing[ledger.handle] = ticket
        close = pb.Close(handle=ledger.handle, count=ledger.opening.count)
        return ticket, [pb.StreamRequest(close=close)]

    # Receiving.

    def receive(self, response: pb.StreamResponse) -> AnyTicket | None:
        """Enters a message; the ticket that it settles, if any. Raises ProtocolError for one that makes no sense."""
        match response.WhichOneof("response"):
            case "answers":
                return self._answered(response.answers)
            case "fleet":
                return self._fleet_answered(response.fleet)
            case "opened":
                return self._opened(response.opened)
            case "closed":
                return self._closed(response.closed)
            case "failure":
                return self._refused(response.failure)
            case _:
                return None  # a message newer than this client

    def lose(self, error: TidegateError) -> list[AnyTicket]:
        """The stream is gone: everything that waits fails with this error, and so does whatever comes after."""
        if self.lost is not None:
            return []
        self.lost = error if isinstance(error, ConnectionLost) else ConnectionLost(f"the stream is gone: {error}")
        tickets: list[AnyTicket] = [ticket for _, ticket in self._opening.values()]
        tickets += self._closing.values()
        for ticket in tickets:
            ticket.fail(error)
        books: list[Ledger | FleetLedger] = [*self._sequences.values(), *self._fleets.values()]
        for ledger in books:
            ledger.end(self.lost)
            tickets += ledger.abandon(error)
        self._opening.clear()
        self._closing.clear()
        return tickets

    def _answered(self, answers: pb.Answers) -> AnyTicket | None:
        ledger = self._sequences.get(answers.handle)
        if ledger is None:
            raise ProtocolError(f"the server answered handle {answers.handle}, which is not open")
        return ledger.answered(answers)

    def _fleet_answered(self, answers: pb.FleetAnswers) -> AnyTicket | None:
        ledger = self._books(int.from_bytes(answers.handles[:4], "little"))
        if not isinstance(ledger, FleetLedger):
            raise ProtocolError("the server answered a fleet that is not open")
        return ledger.answered(answers)

    def _opened(self, opened: pb.Opened) -> AnyTicket:
        if opened.handle not in self._opening:
            raise ProtocolError(f"the server opened handle {opened.handle}, which nobody asked for")
        _, ticket = self._opening.pop(opened.handle)
        ticket.resolve(opened)
        return ticket

    def _closed(self, closed: pb.Closed) -> AnyTicket | None:
        ledger = self._sequences.pop(closed.handle, None) or self._fleets.pop(closed.handle, None)
        if ledger is not None:
            ledger.abandon(SequenceEnded("the server closed this sequence"))
        ticket = self._closing.pop(closed.handle, None)
        if ticket is not None:
            self._handles.give(closed.handle, closed.count or 1)
            ticket.resolve(closed)
        return ticket

    def _refused(self, failure: pb.Failure) -> AnyTicket | None:
        if not failure.handles:  # a message of ours, and nobody would ever hear of it
            raise ProtocolError(f"the server could not tell whose message it refused: {failure.error.message}")
        handle = failure.handles[0]
        if handle in self._opening:
            return self._open_refused(handle, failure)
        ledger = self._books(handle)
        ticket = ledger.refused(failure) if ledger is not None else None
        if ticket is None and handle in self._closing:
            return _failed(self._closing.pop(handle), failure)
        return ticket

    def _open_refused(self, handle: int, failure: pb.Failure) -> AnyTicket:
        order, ticket = self._opening.pop(handle)
        if failure.error.reason != REASON_HANDLE_IN_USE:
            self._handles.give(handle, order.count)
        return _failed(ticket, failure)

    def _books(self, handle: int) -> Ledger | FleetLedger | None:
        ledger = self._sequences.get(handle)
        if ledger is not None:
            return ledger
        return next((fleet for fleet in self._fleets.values() if fleet.owns(handle)), None)


def _failed(ticket: AnyTicket, failure: pb.Failure) -> AnyTicket:
    ticket.fail(refused(reason_name(failure.error.reason), failure.error.message))
    return ticket
