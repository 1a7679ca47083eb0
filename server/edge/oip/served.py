"""One sequence of the Open Inference Protocol: its requests in order on a stream of its own, and an answer to each."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from server.caller import Caller
from server.durability.sequence import Identity
from server.edge.backend import Backend
from server.edge.oip.requests import Asked, Place, Steps, steps_of
from server.edge.oip.responses import Made, wants_trace
from server.edge.pieces import PIECE
from server.errors import BadInput, OverLimit, Reason, SequenceGone, TidegateError, WrongState, WrongStep
from server.runtime.served_model import ServedModel
from server.runtime.state_value import LATEST
from server.streams.allowance import Allowance
from server.streams.events import Answered, Closed, Event, Failed, Opened, Released
from server.streams.stream import Stream
from server.streams.trace import Manner, Selection

log = logging.getLogger(__name__)

_OUTPUTS_ALONE, _WITH_TRACE = Manner(Selection(none=True)), Manner()

Result = Made | TidegateError
Done = Callable[[Result], None]


class User(Protocol):
    """Who sends requests of a sequence: a stream, or a connection."""

    @property
    def here(self) -> bool:
        """Whether it is still connected."""


class Life(StrEnum):
    """Where a sequence is in its life, as far as its requests are concerned."""

    COMING = "is being opened, or resumed"
    OPEN = "takes steps"
    PARKING = "leaves for the store"
    ENDING = "was ended by its client"
    GONE = "is not here any more"


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that is to be answered. From `first` on it is known once its steps are taken."""

    asked: Asked
    place: Place
    done: Done
    company: bool = False  # others came with it, so that it waits for a batch
    first: int = 0
    steps: int = 0
    axes: int = 0
    model: ServedModel | None = None
    answers: list[Answered] = field(default_factory=list)

    def made(self) -> Made:
        """The whole answer."""
        assert self.model is not None, "its steps were taken"
        names = self.answers[0].form.names
        outputs = {name: [answer.outputs[at] for answer in self.answers] for at, name in enumerate(names)}
        traces = [answer.trace for answer in self.answers if answer.trace is not None]
        return Made(self.model, outputs, traces or None, 1, self.steps, self.axes, self.first)


class ServedSequence:
    """A sequence that is here, or comes or leaves.

    Args:
        backend: the server's.
        caller: whose it is.
        identity: how it is known below.
        user: the stream or connection that sends its requests now.
        left: is called once it is gone.
    """

    def __init__(
        self,
        backend: Backend,
        caller: Caller,
        identity: Identity,
        user: User,
        left: Callable[["ServedSequence"], None],
    ) -> None:
        self.user = user
        self.used = backend.keeper.monotonic()
        self.life = Life.COMING
        self._left = left
        self._identity = identity
        self._clock = backend.keeper.monotonic
        self._most = backend.settings.window_bytes
        window = Allowance(backend.settings.window_bytes)
        self._stream = Stream(backend.admission, backend.keeper, 1, window, self._take, caller, turns=backend.turns)
        self._next = 0  # the step that the next request begins with
        self._manner = _OUTPUTS_ALONE
        self._waiting = deque[Ticket]()  # until it is open
        self._sent = deque[Ticket]()  # whose steps are under way
        self._after = list[Callable[[], None]]()

    @property
    def quiet(self) -> bool:
        """Whether no request is under way."""
        return not self._sent and not self._waiting

    # Beginning and end ------------------------------------------------------------------------------------------------

    def start(self, ticket: Ticket) -> None:
        """Opens it, and sends its first request."""
        self._waiting.appendleft(ticket)
        asked = ticket.asked
        self._try(lambda: self._stream.open(0, 1, asked.model, asked.version, self._manner, identity=self._identity))

    def resume(self, ticket: Ticket) -> None:
        """Resumes it from the store, and sends the request."""
        self._waiting.appendleft(ticket)
        step, names = ticket.place.step, [self._identity.id]
        answered = [LATEST if step is None else step]
        self._try(
            lambda: self._stream.opening.resume(0, names, self._identity.token, answered, self._manner, step is None)
        )

    def _try(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except TidegateError as error:
            self._gone(error)

    def end(self) -> None:
        """Its steps are answered, and then it is gone."""
        self._leave(Life.ENDING, self._stream.close)

    def park(self) -> None:
        """Likewise, and it stays in the store."""
        if self.life is Life.OPEN:
            self._leave(Life.PARKING, self._stream.park)

    def _leave(self, life: Life, leave: Callable[[int, int], None]) -> None:
        was, self.life = self.life, life
        if was is Life.OPEN:
            leave(0, 1)

    def after(self, call: Callable[[], None]) -> None:
        """Calls once it is gone, or now."""
        if self.life is Life.GONE:  # it has ended at once: the store did not know it yet
            call()
        else:
            self._after.append(call)

    def _gone(self, error: TidegateError) -> None:
        """Refuses what is not answered, and makes room for others under its id."""
        self.life = Life.GONE
        unanswered = [*self._sent, *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        self._stream.abandon()
        for ticket in unanswered:
            ticket.done(error)
        self._left(self)
        after, self._after = self._after, []
        for call in after:
            call()

    # Requests ---------------------------------------------------------------------------------------------------------

    def ask(self, ticket: Ticket) -> None:
        """Takes its next request."""
        self.used = self._clock()
        if self.life is Life.COMING:
            self._waiting.append(ticket)
        else:
            self._send(ticket)

    def _send(self, ticket: Ticket) -> None:
        try:
            self._step(ticket)
        except TidegateError as error:
            ticket.done(error)
            if ticket.place.start and not self._next and self.life is Life.OPEN:  # nothing has begun
                self.end()
            return
        except Exception:
            log.exception("a request failed")
            ticket.done(TidegateError("the server failed; its log has the details"))
            return
        if ticket.place.end:
            self.end()

    def _step(self, ticket: Ticket) -> None:
        if self.life is not Life.OPEN:
            raise self._ended()
        asked, model = ticket.asked, self._stream.model(0)
        if asked.version not in (0, model.version):
            raise WrongState(f"the sequence is of version {model.version}, and version {asked.version} was asked for")
        steps = steps_of(asked.inputs, model.graph.inputs)
        if steps.batch != 1:
            raise BadInput(
                f"a batch of {steps.batch} came; a request of a sequence has one row. Several steps go into the axis "
                "after it",
                Reason.WRONG_SHAPE,
            )
        if wants_trace(asked.outputs, model.graph) and self._manner is _OUTPUTS_ALONE:
            self._manner = _WITH_TRACE  # from now on; answers leave out what is not asked for
            self._stream.answer_as(0, self._manner)
        if ticket.place.step not in (None, self._next):
            raise WrongStep(f"step {ticket.place.step} came; the sequence takes step {self._next} next")
        ticket.model = model
        self._submit(ticket, steps)

    def _submit(self, ticket: Ticket, steps: Steps) -> None:
        inputs = [(name, x[0]) for name, x in steps.inputs]
        count = len(inputs[0][1]) if inputs else 1
        if count > 1 and (size := self._stream.measure(0, inputs)[1]) > self._most:
            raise OverLimit(f"the answer to {count} steps would take {size} bytes; {self._most} is the limit")
        ticket.first, ticket.steps, ticket.axes = self._next, count, steps.axes
        self._sent.append(ticket)
        self._next += count
        try:
            self._stream.steps(0, ticket.first, inputs, answered=ticket.first, company=ticket.company)
        except BaseException:
            self._next = ticket.first
            self._sent.remove(ticket)
            raise

    def _ended(self) -> SequenceGone:
        return SequenceGone(f"sequence '{self._identity.id}' {self.life}", Reason.SEQUENCE_ENDED)

    # What the stream tells --------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case Answered():
                self._answered(event)
            case Failed() if event.request in ("open", "resume"):
                self._gone(event.error)
            case Failed():
                self._failed(event)
            case Opened():
                self._opened(event)
            case Closed():
                self._gone(self._ended())
            case Released():
                self._gone(event.error)

    def _opened(self, event: Opened) -> None:
        self._next = next(iter(event.steps), 0)
        leaving, self.life = self.life, Life.OPEN
        while self._waiting:
            self._send(self._waiting.popleft())
        if leaving is Life.ENDING:  # it was to give way before it was here
            self.end()

    def _answered(self, event: Answered) -> None:
        ticket = self._sent[0]
        ticket.answers.append(event if event.size <= PIECE else event.kept())
        if event.first_step + len(event.outputs[0]) == ticket.first + ticket.steps:
            self._sent.popleft()
            ticket.done(ticket.made())
        self._stream.written(event.size)

    def _failed(self, event: Failed) -> None:
        """One request is refused. Those that were sent after it are refused by events of their own."""
        self._next = min(self._next, *map(int, event.expected), event.first_step)
        ticket = next((t for t in self._sent if t.first <= event.first_step < t.first + t.steps), None)
        if ticket is not None:
            self._sent.remove(ticket)
            ticket.done(event.error)
