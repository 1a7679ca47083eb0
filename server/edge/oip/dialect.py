"""One `ModelStreamInfer`: requests of any sequences of one client, answered in the order in which they came.

What an exchange takes for a client's `Stream` is a `Visit` here: the sequences are not the stream's, and outlive it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Never, NoReturn

from server.caller import Caller
from server.edge.exchanges.dialect import Outgoing, Whole, Write
from server.edge.oip import responses
from server.edge.oip.inference import Inference, Prepared
from server.edge.oip.requests import Asked, Rejected
from server.edge.oip.responses import Made, Writer
from server.edge.oip.served import Done, Life, Result, ServedSequence
from server.edge.pieces import Message
from server.errors import TidegateError
from server.meter import Meter
from server.streams.allowance import Allowance
from server.streams.opening import stopping

log = logging.getLogger(__name__)


def _nothing() -> None:
    """Where nothing is to be given back."""


_EACH = 1_024  # bytes for which a request counts beside its inputs
_FEW = 64  # sequences that are gone and may still be listed


@dataclass(slots=True, eq=False)
class _Turn:
    """Of one request: its message, once it is answered, and the bytes for which it counts until that has left.

    `left` is called then.
    """

    size: int
    message: Message | None = None
    left: Callable[[], None] = _nothing


class Visit:
    """The requests of one stream, each of which is answered after those before it.

    Args:
        inference: answers them.
        writer: writes the answers.
        caller: the client.
        allowed: how many bytes of requests and answers may wait.
        emit: takes each message.
    """

    def __init__(
        self,
        inference: Inference,
        writer: Writer,
        caller: Caller,
        allowed: Allowance,
        emit: Callable[[Whole], None],
    ) -> None:
        self.here = True
        self._inference = inference
        self._writer = writer
        self._caller = caller
        self._allowed = allowed
        self._emit = emit
        self._turns = deque[_Turn]()  # of requests that are not answered, or wait for one before them
        self._sent = deque[_Turn]()  # whose messages have not left
        self._bytes = 0
        self._sequences: dict[ServedSequence, None] = {}  # that were asked for on this stream
        self._predictions = set[asyncio.Task[None]]()
        self._left: Callable[[tuple[int, ...]], None] | None = None

    @property
    def full(self) -> bool:
        """Whether nothing more should be read from the client for now."""
        return self._bytes >= self._allowed.size

    @property
    def working(self) -> bool:
        return False

    def when_free(self, call: Callable[[], None]) -> None:
        """It always is."""

    @property
    def idle(self) -> bool:
        """Whether every request is answered, and every answer has left."""
        return not self._turns and not self._sent

    def writes_later(self) -> bool:
        """See Served: an answer has left only after whoever gave it has set what is to be given back then."""
        return True

    def written(self, size: int) -> None:
        """See Served: the first message of those that were sent has left."""
        self._bytes -= size
        self._sent.popleft().left()

    def ask(self, asked: Asked, company: bool) -> None:
        """Carries out one request."""
        expected = self._inference.expected(asked)
        turn = self._turn(_EACH + asked.size + expected)
        done = self._inference.counted(asked, partial(self._answered, turn, asked))
        if asked.place is None:
            if (prepared := self._inference.prepared(self._caller, asked, done)) is None:
                return
            task = asyncio.get_running_loop().create_task(self._predict(turn, prepared, done))
            self._predictions.add(task)
            task.add_done_callback(self._predictions.discard)
            return
        sequences = self._inference.sequences
        try:
            turn.left = self._inference.reserve(self._caller, expected)
            sequence = sequences.ask(self._caller, asked, asked.place, self, done, company=company)
        except TidegateError as error:
            done(error)
            return
        self._sequences[sequence] = None
        if len(self._sequences) > 2 * len(sequences) + _FEW:
            self._sequences = {one: None for one in self._sequences if one.life is not Life.GONE}

    def reject(self, rejected: Rejected) -> None:
        """Answers what could not be read."""
        self._refuse(self._turn(_EACH), rejected.id, "", rejected.why)

    def _turn(self, size: int) -> _Turn:
        turn = _Turn(size)
        self._turns.append(turn)
        self._bytes += size
        return turn

    async def _predict(self, turn: _Turn, prepared: Prepared, done: Done) -> None:
        try:
            size = await self._inference.predict(self._caller, prepared, done)
        except Exception:
            log.exception("a request failed")
            done(TidegateError("the server failed; its log has the details"))
        else:
            turn.left = partial(self._inference.release, self._caller, size)
            if not self.here:
                turn.left()

    def _answered(self, turn: _Turn, asked: Asked, result: Result) -> None:
        if isinstance(result, Made):
            self._tell(turn, self._writer.answer(asked, result, streamed=True))
        else:
            self._refuse(turn, asked.id, asked.model, result)

    def _refuse(self, turn: _Turn, id_: str, model: str, error: TidegateError) -> None:
        self._inference.refused(self._caller, error)
        self._tell(turn, responses.error(id_, model, error))

    def _tell(self, turn: _Turn, message: Message) -> None:
        self._bytes += len(message) - turn.size
        turn.message, turn.size = message, len(message)
        while self._turns and (first := self._turns[0].message) is not None:
            sent = self._turns.popleft()
            sent.message = None
            if self.here:
                self._sent.append(sent)
                self._emit(Whole(first, sent.size))
            else:
                sent.left()
        if self._left is not None and not self._turns:
            self._left(())

    # The end ----------------------------------------------------------------------------------------------------------

    def leave(self, done: Callable[[tuple[int, ...]], None]) -> None:
        """The server stops: `done` is called once what was asked is answered. `Sequences` parks them."""
        self._left = done
        if not self._turns:
            done(())

    def release(self, _handles: tuple[int, ...]) -> NoReturn:
        """Ends the stream with a status: no message of the protocol says that a client is to go elsewhere."""
        raise stopping()

    def finish(self, done: Callable[[], None]) -> None:
        """The client has every answer. `done` is called once others may go on with its sequences, also elsewhere."""
        self.here = False
        sequences, self._sequences = self._sequences, {}  # which refer to this
        self._inference.sequences.let_go(self, sequences, done)

    def abandon(self) -> None:
        """The client is gone."""
        for task in self._predictions:
            task.cancel()
        while self._sent:
            self._sent.popleft().left()
        self.finish(lambda: None)


class OipDialect:
    """See Dialect."""

    at_once = 1
    joins: Meter | None = None

    def together(self, _those: Sequence[Asked | Rejected], _stream: Visit) -> bool:
        """See Dialect: each sequence has a stream of its own."""
        return False

    def single(self, _request: Asked | Rejected, _stream: Visit) -> None:
        """See Dialect: likewise."""

    def join(self, _singles: Sequence[Never], _write: Write) -> bool:
        """Never called."""
        return False

    def take(self, request: Asked | Rejected, stream: Visit, company: bool) -> None:
        """See Dialect. What cannot be read is answered in its turn."""
        if isinstance(request, Rejected):
            stream.reject(request)
        else:
            stream.ask(request, company)

    def refusal(self, _request: Asked | Rejected, _stream: Visit, error: TidegateError) -> NoReturn:
        raise error  # a fault of the server, which ends the stream

    def write(self, event: Never) -> Never:
        """Never called: all events are whole messages."""
        raise AssertionError(event)

    def bundle(self, events: Sequence[Outgoing]) -> tuple[Sequence[Message], int]:
        """See Dialect."""
        answer = events[0]
        assert isinstance(answer, Whole)
        return (answer.message,), 1
