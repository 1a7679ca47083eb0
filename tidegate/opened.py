"""What is open on a server, a sequence or a fleet: its properties, and what it can be asked.

Written once for both clients. What waits is a coroutine: the client for asyncio has it as it is, that for threads has
it made `blocking`.
"""

import logging
from abc import ABC
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import Answer, Answers, FleetAnswers
from tidegate.errors import refused
from tidegate.inputs import InputLayout, Inputs
from tidegate.protocol.conversation import Requests
from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.in_flight import StepsPromise
from tidegate.protocol.opening import Claim, Order
from tidegate.protocol.promise import Promise
from tidegate.protocol.sequence_books import Sending, SequenceBooks
from tidegate.state import State
from tidegate.transport import calls
from tidegate.transport.deadline import NEVER, Deadline
from tidegate.transport.link import Link

log = logging.getLogger("tidegate")

WINDOW = 64  # steps that `stream` keeps in flight

P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B", SequenceBooks, FleetBooks)
AnySequence = TypeVar("AnySequence")  # a Sequence; with asyncio what is awaited for an AsyncSequence


def run(task: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a coroutine that blocks where it waits.

    It is made here: if it were interrupted between its making and its start, Python would warn of it.
    """
    try:
        task(*args, **kwargs).send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a coroutine of the client for threads was suspended")


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """The same method, with its signature and docstring, in a class whose coroutines block where they wait."""

    @wraps(method)
    def call(self: object, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method, self, *args, **kwargs)

    return call


@dataclass(frozen=True, slots=True)
class Source(Generic[AnySequence]):
    """A client, as what was opened by it needs it: its limit for a call, its name for the server's limits, its calls.

    `open` opens a sequence, `inputs` asks for what a version of a model takes; `begin` runs a coroutine that opens a
    sequence, or has it awaited.
    """

    timeout: float | None
    owner: str
    open: Callable[[Order | Claim, float | None], Awaitable[Any]]
    inputs: Callable[[str, int, float | None], Awaitable[InputLayout]]
    begin: Callable[[Callable[[], Coroutine[Any, Any, Any]]], AnySequence]


class Opened(ABC, Generic[B]):
    """What sequences and fleets have in common."""

    _books: B

    def __init__(self, source: Source[Any], connection: Link, books: B) -> None:
        self._source = source
        self._connection = connection
        self._books = books

    @property
    def model(self) -> str:
        """The model's name."""
        return self._books.opening.model

    @property
    def version(self) -> int:
        """The version of the model that it runs on, to its end or until it is moved."""
        return self._books.version

    @property
    def resume_token(self) -> str:
        """The secret that, with an id, lets a client continue after a loss; "" if the server keeps no checkpoints."""
        return self._books.opening.token

    async def _ask(
        self, build: Callable[..., tuple[Promise[T], Requests]], timeout: float | None, *values: object
    ) -> T:
        promise = self._connection.ask(build, self._books, *values)
        await self._connection.wait(promise, calls.limit(timeout, self._source.timeout))
        return promise.result()


class Closing(Opened[B]):
    """How sequences and fleets end in the client for asyncio."""

    async def close(self, timeout: float | None = None) -> None:
        """Ends it and waits until the server has done so. Leaving the context does not wait."""
        await self._ask(self._connection.talk.close, timeout)

    def leave(self) -> None:
        """Ends it without waiting for the server."""
        self._connection.leave(self._books)


class OpenSequence(Opened[SequenceBooks], Generic[AnySequence]):
    """What sequences of both clients have in common."""

    @property
    def id(self) -> str:
        """The server's name for it, unique across servers and restarts; "" if the server gave none.

        To keep it, read it again after each answer: a sequence of which the server had no checkpoint yet when a
        connection broke is opened anew and gets all of its inputs once more, under another id and token.
        """
        return next(iter(self._books.opening.ids), "")

    @property
    def next_step(self) -> int:
        """The number that the next step will have."""
        return self._books.next_step

    @property
    def answered(self) -> int:
        """How many steps are answered: the number of the first step without an answer."""
        return self._books.answered

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id or '?'} of {self.model} {self.version}, step {self.next_step} next>"

    def kept(self) -> tuple[int, dict[str, NDArray[Any]]]:
        """The inputs that a server may want again: the first step of them, and [K, ...row] by name.

        They begin at the last checkpoint but one, or where the sequence moved to a version with other inputs, and end
        with the last step that was sent. With `id`, `resume_token` and `answered` they are all that another process
        needs to go on; see `Client.resume`. For how long they do, once more steps are taken, is for `hold` to say.
        """
        return self._connection.look(self._books.kept)  # other threads send, and read

    def hold(self, answered: int) -> None:
        """Says that the caller has put so many answers in a safe place, and may have to go on from there.

        The server then keeps what that takes, until `hold` is called with more. Without it, every answer is taken to be
        safe as soon as it is here, and what was `kept` a while ago may not suffice any more.
        """
        self._books.held = answered

    def fork(self, timeout: float | None = None) -> AnySequence:
        """A new sequence of the same version that begins where this one stands. Raises as Client.sequence."""
        forked: AnySequence = self._source.begin(lambda: self._fork(timeout))
        return forked

    async def _fork(self, timeout: float | None) -> object:
        like = self._books.opening
        state = await self._state(timeout)
        order = Order(like.model, self.version, 1, like.order.trace, state, self._source.owner)
        return await self._source.open(order, timeout)

    async def _state(self, timeout: float | None) -> State:
        return State.read((await self._ask(self._connection.talk.read_state, timeout)).state.state)

    async def _send(self, build: Callable[[Inputs], Sending], values: Inputs, deadline: Deadline) -> StepsPromise:
        if not self._books.knows_inputs:  # it moved since the last step
            version = self._books.version
            self._books.takes(version, await self._source.inputs(self.model, version, deadline.left))
        return await self._connection.send(self._books, deadline, build, values)

    async def _answer(self, promise: StepsPromise, limit: float | None) -> Answer:
        await self._connection.wait(promise, limit)
        return self._books.answer(promise)

    async def _take(self, build: Callable[[Inputs], Sending], values: Inputs, timeout: float | None) -> StepsPromise:
        limit = calls.limit(timeout, self._source.timeout)
        deadline = NEVER if limit is None else Deadline(limit)
        books, connection = self._books, self._connection
        if books.knows_inputs:
            promise = await connection.send(books, deadline, build, values)
        else:
            promise = await self._send(build, values, deadline)
        left = None if limit is None else deadline.left
        if not await connection.settled(promise, left):
            raise connection.timed_out()
        return promise


class SequenceCalls(OpenSequence[AnySequence], Closing[SequenceBooks]):
    """The coroutines of a sequence."""

    async def step(self, values: Inputs, timeout: float | None = None) -> Answer:
        """One step in, one answer out.

        `values` is one row, or a mapping of input names to rows. Raises BadInput or another Refused (the sequence is as
        it was and can go on), ConnectionLost, TimedOut (the step may have been taken), SequenceEnded.
        """
        return self._books.answer(await self._take(self._books.send_step, values, timeout))

    async def chunk(self, values: Inputs, timeout: float | None = None) -> Answers:
        """Many steps at once, [T, ...row] for each input; all of them, or none if refused. Raises as `step`.

        A long chunk goes in several messages, each sent as those before are answered, so that steps of other sequences
        of this client do not wait for it. Only if the model itself fails in the midst (STEP_FAILED) are the steps
        before taken: see `next_step`.
        """
        return self._books.answers(await self._take(self._books.send_chunk, values, timeout))

    async def state(self, timeout: float | None = None) -> State:
        """Its state after the steps that were sent, as a value. Raises as `step`."""
        return await self._state(timeout)

    async def rewind(self, step: int, timeout: float | None = None) -> int:
        """Goes back to the newest checkpoint at or before `step`; returns the number of the step it takes next.

        What came after is forgotten, except a move: it stays on its version. Raises Refused (CHECKPOINT_GONE) if no
        such checkpoint is kept.
        """
        return (await self._ask(self._connection.talk.rewind, timeout, step)).rewound.next_step

    async def move(self, version: int = 0, timeout: float | None = None) -> int:
        """Goes on with another version of the model (0: the newest that is ready); returns the first step on it.

        Raises Refused (WRONG_STATE) if its states have other names or shapes; then nothing changed.
        """
        return (await self._ask(self._connection.talk.move, timeout, version)).moved.next_step


class OpenFleet(Opened[FleetBooks]):
    """What fleets of both clients have in common."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The server's names for the members, in their order; see Sequence.id."""
        return self._books.opening.ids

    @property
    def next_steps(self) -> NDArray[np.uint64]:
        """The number that the next step of each member will have, [members]."""
        return self._books.next_step.copy()

    @property
    def answered(self) -> NDArray[np.uint64]:
        """How many steps of each member are answered, [members]."""
        return self._books.answered.copy()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} sequences of {self.model} {self.version}>"

    def __len__(self) -> int:
        return self._books.count


class FleetCalls(OpenFleet, Closing[FleetBooks]):
    """The coroutines of a fleet."""

    async def step(
        self, values: Inputs, members: Rows[int] | NDArray[np.integer[Any]] | None = None, timeout: float | None = None
    ) -> FleetAnswers:
        """One step of every member, or of `members`: values [N, ...row] in their order. Raises as Sequence.chunk."""
        deadline = Deadline(calls.limit(timeout, self._source.timeout))
        promise = await self._connection.send(self._books, deadline, self._books.send, values, members)
        await self._connection.wait(promise, deadline.left)
        return self._books.answers(promise)


def again(books: SequenceBooks, answered: int, inputs: Callable[[int], Inputs] | None) -> Inputs | None:
    """What a sequence that was resumed has to be sent once more before it stands at `answered`; None: nothing.

    `inputs` gives the rows [T, ...row] from a step to `answered`. Without it, the log says what is left to the caller.
    Raises BadInput if it gives another number of them.
    """
    first = books.next_step
    if first >= answered:
        return None
    if inputs is None:
        log.warning("sequence %s goes on at step %d: send its inputs from there on again", *books.opening.ids, first)
        return None
    rows = inputs(first)
    counts = [len(array) for array in (rows.values() if isinstance(rows, Mapping) else [rows])]
    if any(count != answered - first for count in counts):
        wanted = f"the inputs of steps {first} to {answered - 1} are wanted again"
        raise refused("WRONG_SHAPE", f"{wanted}: {answered - first} rows, and {counts[0]} were given")
    return rows
