"""One stream: takes requests, writes answers, waits while the client does not read, and ends when the server stops.

Knows no protocol: a `Dialect` translates between a client's messages and a `Stream`, or what it has instead.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from server.durability.keeper import AnyKeeper
from server.edge.admission import Leaving
from server.edge.exchanges.company import Company
from server.edge.exchanges.dialect import ANSWERS, Bundle, Call, Dialect, Outgoing, Request, Served, Single
from server.edge.exchanges.pace import Pace
from server.edge.exchanges.rounds import Rounds
from server.edge.exchanges.writing import Writing
from server.errors import Silent, TidegateError
from server.futures import settle
from server.streams.allowance import Allowance
from server.streams.events import Failed

log = logging.getLogger(__name__)


class Exchange:
    """Serves one stream from its first message to its last.

    Args:
        call: carries the messages.
        dialect: the protocol.
        make: makes what carries out the requests, and emits its events by the function that is given.
        keeper: keeps sequences beyond this stream.
        allowed: how many bytes of messages that carry no answer may wait to be written before no more is read.
        silence: seconds after which a stream without any message is ended.
        pace: says how long requests may be taken.
        rounds: takes requests together with those of other streams.
        note: is called with each request that was refused, and its stream.
    """

    def __init__(
        self,
        call: Call,
        dialect: Dialect,
        make: Callable[[Callable[[Any], None]], Served],
        keeper: AnyKeeper,
        allowed: Allowance,
        silence: float,
        pace: Pace,
        rounds: Rounds,
        note: Callable[[Failed, Any], None] = lambda _, __: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._call, self.dialect, self._keeper = call, dialect, keeper
        self._allowed, self._silence, self._pace, self._rounds, self._note = allowed, silence, pace, rounds, note
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._stream = make(self._emit)
        self._stream.when_free(self._queue)
        # reading
        self._silent: asyncio.TimerHandle | None = None  # ends a stream without a message
        self._last_was_read = self._reading = False  # the end of the call; requests are being taken
        self._stalled = self._queues = False  # no request is taken: see _stall; `_go_on` is to be called
        self._company = Company(dialect.at_once)  # what came together, and is not taken yet
        self._gathered = False  # messages came, which are taken once other streams have been read
        # writing
        self._writing = Writing(call, dialect, pace, self)
        self._parking: asyncio.Task[None] | None = None
        self._leaving = self._finishing = self._ends = False  # _ends: no further message is to be read

    async def serve(self, leaving: Leaving) -> None:
        """Runs until the client has sent its last message and has every answer, or is gone.

        Once `leaving` begins, the sequences are parked, and the client is told to go on elsewhere.
        """
        self._silent = self._loop.call_later(
            self._silence, self.fail, Silent(f"nothing was said on this stream for {self._silence:g} s")
        )
        leaving.add(self._leave)
        self._call.begin(self)
        try:
            await self._over
        finally:
            leaving.discard(self._leave)
            self._call.end()
            for waits in (self._silent, self._parking):
                if waits is not None:
                    waits.cancel()
            self._over = self._loop.create_future()  # an error in the one before refers to this frame
            self._over.cancel()
            self._writing.end()
            self._stream.abandon()
            del self._stream  # they refer to each other, and its tables may be large

    def fail(self, error: BaseException) -> None:
        """Ends the stream with an error."""
        self._writing.ended = True
        if not self._over.done():
            self._over.set_exception(error)

    def _leave(self) -> None:
        if not self._last_was_read:
            self._leaving = True
            self._parking = self._loop.create_task(self._park())

    async def _park(self) -> None:
        """Parks all sequences after the steps that were taken, writes their checkpoints, and then tells the client."""
        gone: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
        try:
            self._stream.leave(partial(settle, gone))
            handles = await gone
            await self._keeper.flush()
            self._stream.release(handles)
        except Exception as error:  # noqa: BLE001 # it is the stream's
            self.fail(error)
        self._ends = True
        self._check_end()

    def _check_end(self) -> None:
        if not self._finishing and self._stream.idle and not self._writing.waiting and not self._writing.unwritten:
            self._finishing = True
            self._stream.finish(partial(settle, self._over, None))

    # Reading ----------------------------------------------------------------------------------------------------------

    def came(self) -> None:
        """There are messages."""
        if not (self._stalled or self._last_was_read or self._reading or self._gathered):
            self._gathered = (account := self.dialect.joins) is not None and self._rounds.add(self, account)
            if not self._gathered:
                self._read()

    def single(self) -> Single | None:
        """The message that came, if it may be carried out together with those of other streams; else it waits here."""
        self._gathered, company, writing = False, self._company, self._writing
        if self._over.done() or self._stalled or self._leaving or self._silent is not None:
            return None
        if writing.waiting or writing.unwritten:
            return None
        if company.requests is not None or company.after is not None:
            return None
        try:
            company.after = self._call.take()
            if company.after is None or self._call.several or self._call.asks:
                return None
            single = self.dialect.single(company.after, self._stream)
        except Exception as error:  # noqa: BLE001 # it is the stream's
            self.fail(error)
            return None
        if single is not None:
            company.after = None
        return single

    def go_on(self, request: Request | None = None) -> None:
        """Takes what waits by itself, first of all the request that `single` gave away."""
        if request is not None:
            self._company.after = request
        if not (self._over.done() or self._stalled):
            self._read()

    def _read(self) -> None:
        """Takes requests, until there are none, or no more may be taken, or others are to get their turn."""
        self._stalled, self._reading = False, True
        ends, company = 0.0, self._company
        try:
            while self._take_next():  # one at least: a client that has only one waits for nobody
                more = company.requests is not None or company.after is not None or self._call.several
                if more and self._pace.clock() > (ends := ends or self._pace.ends()):
                    self._stall(again=True)
                    break
                if not (more or self._call.asks):
                    break
            self._reading = False
            if self._writing.waiting:
                self._writing.write()
            elif self._ends:
                self._check_end()
        except Exception as error:  # noqa: BLE001 # it is the stream's
            self._reading = False
            self.fail(error)

    def _take_next(self) -> bool:
        """Takes one request, and says whether more may be taken."""
        if self._over.done():
            return False
        if self._company.requests is not None:
            return self._take_from(self._company)
        if self._stream.full or self._writing.unwritten >= self._allowed.size:
            return self._stall()
        message, self._company.after = self._company.after, None
        message = self._call.take() if message is None else message
        return message is not None and self._take_message(message)

    def _take_from(self, company: Company) -> bool:
        if self._stream.working or self._writing.unwritten >= self._allowed.size:
            return self._stall()
        if self._leaving:
            company.clear()
        elif (those := company.several()) and self.dialect.together(those, self._stream):
            company.took(those)
        elif (request := company.next()) is not None:
            self._take(request, company=True)
        return True

    def _take_message(self, message: Request | Bundle) -> bool:
        if message is grpc.aio.EOF:
            self._last_was_read = self._ends = True
            return False
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None
        if self._leaving:
            return True  # the client sends it again where it goes on
        if isinstance(message, Bundle):
            self._company.unpack(message)
            return self._stall(again=True) if message.large else True
        several = self._call.several
        if not (several and self._company.gather(message, self._call)):
            self._take(message, several)
        return True

    def _stall(self, again: bool = False) -> bool:
        """Nothing is taken until something was written or the stream is free; `again`: until others had their turn."""
        self._stalled = True
        if again:
            self._queue()
        return False

    def _queue(self) -> None:
        if self._stalled and not self._queues:
            self._queues = True
            self._pace.wait(self._go_on)

    def _go_on(self) -> None:
        self._queues = False
        if self._stalled and not self._over.done():
            self._read()

    def _take(self, request: Request, company: bool) -> None:
        try:
            self.dialect.take(request, self._stream, company)
        except Exception as error:
            if not isinstance(error, TidegateError):
                log.exception("a request failed")
                error = TidegateError("the server failed; its log has the details")
            self._emit(self.dialect.refusal(request, self._stream, error))

    # Writing ----------------------------------------------------------------------------------------------------------

    def _emit(self, event: Any) -> None:  # noqa: ANN401 # of those that the dialect writes
        if self._over.done():
            return
        try:
            if answer := isinstance(event, ANSWERS):
                message: Outgoing = event
            else:
                if isinstance(event, Failed):
                    self._note(event, self._stream)
                message = self.dialect.write(event)  # at once: what waits is counted as what it takes
            writing = self._writing
            writing.put(message)
            if not self._reading:
                later = writing.will_write or not answer or self._stream.writes_later()
                (writing.write_later if later else writing.write)()
        except Exception as error:  # noqa: BLE001 # it is the stream's
            self.fail(error)

    def answer(self, message: bytes, size: int) -> None:
        """The answer to a request that was carried out together with those of other streams."""
        try:
            if not self._over.done():
                self._writing.answer(message, size)
        except Exception as error:  # noqa: BLE001 # it is the stream's
            self.fail(error)

    def writable(self) -> None:
        """See Listener."""
        self._writing.writable()

    def left(self, answers: int) -> None:
        """See Owner."""
        if answers:
            self._stream.written(answers)
        if self._stalled:
            self._queue()
        if self._ends:
            self._check_end()
