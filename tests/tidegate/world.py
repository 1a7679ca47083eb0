"""A conversation and the fake server's sessions as values: messages lie between them until a test moves them.

No clock, no thread, no wire: a test decides what arrives before a stream breaks.
"""

from collections import deque
from collections.abc import Iterable

import numpy as np

from tests.tidegate.fake_server import Behaviour, Session, Store, find
from tidegate.errors import ConnectionLost
from tidegate.inputs import InputLayout
from tidegate.model import Model
from tidegate.plain.steps import Request, message_of
from tidegate.protocol.budget import Budget
from tidegate.protocol.conversation import Conversation
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.in_flight import StepsPromise
from tidegate.protocol.opening import Claim, Opening, Order
from tidegate.protocol.promise import Promise
from tidegate.protocol.sequence_books import SequenceBooks
from tidegate.state import State
from tidegate.trace import Trace
from tidegate.v1 import sequence_pb2 as pb

INPUTS = InputLayout(Model.read(find("toy", 1)).inputs)


class World:
    """One client, one store, and one server after the other."""

    def __init__(self, budget: Budget | None = None, **behaviour: object) -> None:
        self.store = Store()
        self.behaviour = Behaviour(store=self.store, **behaviour)
        self.budget = budget or Budget()
        self.talk = Conversation(self.budget)
        self.session = Session(self.behaviour)
        self.up: deque[pb.StreamRequest] = deque()
        self.down: deque[pb.StreamResponse] = deque()
        self.busy: set[int] = set()  # handles whose move or rewind is not known to be over by the client

    # What is on its way.

    def say(self, requests: Iterable[Request]) -> None:
        if self.talk.broken is None:
            self.up.extend(map(message_of, requests))

    def serve(self, messages: int = 10**9) -> None:
        """The server takes so many requests."""
        while self.up and messages:
            request = self.up.popleft()
            for one in (request, *request.more):
                self._check_busy(one)
                self.down.extend(self.session.answer(one))
            messages -= 1

    def release(self) -> None:
        """The server tells of what others have taken over."""
        if self.talk.broken is None:
            self.down.extend(self.session.release_taken())

    def hear(self, messages: int = 10**9) -> None:
        """The client takes so many responses."""
        while self.down and messages:
            response = self.down.popleft()
            self._note_over(response)
            self.say(self.talk.receive(response))
            messages -= 1
            if self.talk.broken is not None:
                self._hang_up()

    def _check_busy(self, request: pb.StreamRequest) -> None:
        """A server takes nothing of a sequence that is being moved or rewound, but that it be parked."""
        kind = request.WhichOneof("request")
        if request.close.park:
            self.busy.discard(request.close.handle)
        elif kind not in {"open", "resume", "fleet"}:
            handle = getattr(request, kind).handle
            assert handle not in self.busy, f"{kind} came before the server answered what it has to answer first"
            if kind in {"move", "rewind"}:
                self.busy.add(handle)

    def _note_over(self, response: pb.StreamResponse) -> None:
        for kind in ("moved", "rewound"):
            if response.HasField(kind):
                self.busy.discard(getattr(response, kind).handle)
        if response.HasField("failure"):
            self.busy.difference_update(response.failure.handles)

    def settle(self) -> None:
        """Until nothing is on its way, on a new stream if there is none."""
        self.release()
        while self.up or self.down or self.talk.broken is not None:
            if self.talk.broken is not None:
                self.reconnect()
            self.serve()
            self.release()
            self.hear()

    def take_over(self, books: SequenceBooks | FleetBooks, member: int = 0) -> None:
        """Another client claims it, or a member of it."""
        claim = books.claim()
        ids, answered = claim.ids[member : member + 1], (int(claim.answered[member]),)
        resume = Claim(ids, claim.token, answered, claim.trace).request(0)
        list(Session(self.behaviour).answer(resume))

    # Losses.

    def cut(self) -> None:
        """The connection breaks; the server goes on, and parks what is open."""
        self._hang_up()
        self.talk.break_off(ConnectionLost("cut"))

    def kill(self) -> None:
        """The server dies, with what it has not written."""
        self.session.lives.clear()
        self.store.lose_the_unwritten()
        self.cut()

    def _hang_up(self) -> None:
        self.up.clear()
        self.down.clear()
        self.busy.clear()
        self.session.park()

    def reconnect(self) -> None:
        self.session = Session(self.behaviour)
        self.up.extend(self.talk.resume())

    # What is open.

    def opening(self, order: Order | Claim) -> Opening:
        if self.talk.lost is not None:  # nothing was left to be resumed: a client begins another conversation
            self.talk, self.session = Conversation(self.budget), Session(self.behaviour)
        promise, requests = self.talk.open(order)
        self.say(requests)
        self.settle()
        return Opening.read(order, promise.result(), INPUTS)

    def sequence(self, state: State | None = None, claim: Claim | None = None) -> SequenceBooks:
        order = claim or Order("toy", 0, 1, Trace(layers=[0], cell=False, gates=False), state)
        sequence_books = SequenceBooks(self.opening(order), self.budget)
        self.say(self.talk.enrol(sequence_books))
        return sequence_books

    def fleet(self, count: int) -> FleetBooks:
        sequence_books = FleetBooks(self.opening(Order("toy", 0, count, Trace())), self.budget)
        self.say(self.talk.enrol(sequence_books))
        return sequence_books

    def step(self, sequence_books: SequenceBooks, row: object) -> StepsPromise:
        return self.tell(sequence_books.send_step(row))

    def chunk(self, sequence_books: SequenceBooks, rows: object) -> StepsPromise:
        return self.tell(sequence_books.send_chunk(rows))

    def tell(self, said: tuple[Promise, list[pb.StreamRequest]]) -> Promise:
        self.say(said[1])
        return said[0]


def numbers(sequence_books: SequenceBooks, *promises: StepsPromise) -> np.ndarray:
    """What steps and chunks were answered, one after the other; each answer has its own step's number."""
    blocks = [sequence_books.answers(promise) for promise in promises]
    for block, promise in zip(blocks, promises, strict=True):
        assert len(block.output) == len(block.layer[0].hidden) == promise.count
    return np.concatenate([block.output[:, 0] for block in blocks])
