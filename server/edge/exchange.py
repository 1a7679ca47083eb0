"""The loop of one stream: reads, writes, waits while the client does not read, and ends when the server stops.

Knows no protocol: a `Dialect` translates between a client's messages and a `Stream`, which does the work.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import grpc

from server.durability.keeper import AnyKeeper
from server.errors import Silent, TidegateError
from server.streams.allowance import Allowance
from server.streams.events import Answered, Event, Failed, FleetAnswered
from server.streams.stream import Stream

log = logging.getLogger(__name__)

_ANSWERS = Answered, FleetAnswered
_TURN = 0.003  # seconds of one client's requests after which the others get their turn


Request = Any  # what the dialect's deserialiser makes of a client's message


@dataclass(frozen=True, eq=False)
class Bundle:
    """A message of several requests, each of which may be parsed only when it is taken out.

    `large`: others get a turn before the first is, because the message took long to come in.
    """

    requests: Iterable[Request]
    large: bool = False


@dataclass(frozen=True, eq=False)
class Large:
    """A message of about `size` bytes that takes long to make: `make` does it in pieces, when its turn has come."""

    size: int
    make: Callable[[], Awaitable[bytes]]


Outgoing = Answered | FleetAnswered | bytes | Large  # the last two carry no answer


class Call(Protocol):
    """The part of gRPC's context that the loop uses."""

    async def read(self) -> Request | Bundle:
        """The next message, or grpc.aio.EOF."""

    async def write(self, message: bytes, /) -> None:
        """Returns once the next message may be written."""


class Dialect(Protocol):
    """Translates between the messages of a protocol and the calls and events of one `Stream`."""

    def take(self, request: Request, stream: Stream, company: bool) -> None:
        """Carries out one request. `company`: others came in the same message. Raises TidegateError."""

    def refusal(self, request: Request, stream: Stream, error: TidegateError) -> Failed:
        """The event for a request that was refused."""

    def write(self, event: Event) -> bytes | Large:
        """The message for one event."""

    def bundle(self, events: Sequence[Outgoing]) -> tuple[bytes, int]:
        """The next message, and how many of these, in their order, are in it; bytes are whole messages.

        The first is not Large.
        """


class Exchange:
    """Serves one stream from its first message to its last.

    Args:
        call: gRPC's context of the stream.
        dialect: the protocol.
        make: makes the stream, which emits its events by the function that is given.
        keeper: keeps sequences beyond this stream.
        allowed: how many bytes of messages that carry no answer may wait to be written before no more is read.
        silence: seconds after which a stream without any message is ended.
    """

    def __init__(
        self,
        call: Call,
        dialect: Dialect,
        make: Callable[[Callable[[Event], None]], Stream],
        keeper: AnyKeeper,
        allowed: Allowance,
        silence: float,
    ) -> None:
        # fixed
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._dialect = dialect
        self._keeper = keeper
        self._allowed = allowed
        self._silence = silence
        self._stream = make(self._emit)
        # what goes on
        self._heard = False
        self._leaving = False
        self._outgoing: deque[Outgoing] = deque()
        self._unwritten = 0  # the bytes of those that carry no answer
        self._asleep: asyncio.Future[None] | None = None  # done when something is outgoing
        self._room = asyncio.Event()  # set when something was written, while `_waits_for_room`, and by the writer's end
        self._waits_for_room = False
        self._writer: asyncio.Task[None]

    async def serve(self, leave: asyncio.Event) -> None:
        """Runs until the client has sent its last message and has every answer, or is gone.

        Once `leave` is set, the sequences are parked, and the client is told to go on elsewhere.
        """
        writer = self._writer = asyncio.create_task(self._write())
        writer.add_done_callback(lambda _: self._room.set())
        reader = asyncio.create_task(self._read())
        leaving = asyncio.create_task(leave.wait())
        try:
            done, _ = await asyncio.wait((reader, leaving), timeout=self._silence, return_when=asyncio.FIRST_COMPLETED)
            if not done and not self._heard:
                raise Silent(f"nothing was said on this stream for {self._silence:g} s")
            await asyncio.wait((reader, leaving), return_when=asyncio.FIRST_COMPLETED)
            await (reader if reader.done() else self._leave())
            while not (self._stream.idle and not self._outgoing and not self._unwritten) and not writer.done():
                await self._wait_for_room()
            if writer.done():
                writer.result()
        finally:
            for task in (writer, reader, leaving):
                task.cancel()
            self._stream.abandon()

    async def _leave(self) -> None:
        """Parks all sequences after the steps that were taken, writes their checkpoints, and then tells the client."""
        self._leaving = True
        gone: asyncio.Future[tuple[int, ...]] = self._loop.create_future()

        def left(handles: tuple[int, ...]) -> None:
            if not gone.done():  # the stream can be cut meanwhile
                gone.set_result(handles)

        self._stream.leave(left)
        handles = await gone
        await self._keeper.flush()
        self._stream.release(handles)

    # Reading ----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            while (self._stream.full or self._unwritten >= self._allowed.size) and not self._writer.done():
                await self._wait_for_room()
            message = await self._call.read()
            if message is grpc.aio.EOF or self._writer.done():
                return
            self._heard = True
            if self._leaving:
                pass  # the client sends it again where it goes on
            elif isinstance(message, Bundle):
                if message.large:
                    await asyncio.sleep(0)
                await self._take_all(message.requests)
            else:
                self._take(message, company=False)
            del message  # it is not kept while the next one is waited for

    async def _wait_for_room(self) -> None:
        self._room.clear()
        self._waits_for_room = True
        await self._room.wait()
        self._waits_for_room = False

    async def _take_all(self, requests: Iterable[Request]) -> None:
        turn = perf_counter() + _TURN
        for request in requests:
            self._take(request, company=True)
            if perf_counter() > turn:
                await asyncio.sleep(0)
                turn = perf_counter() + _TURN
            while (self._stream.working or self._unwritten >= self._allowed.size) and not self._writer.done():
                await self._wait_for_room()
            if self._leaving:
                return

    def _take(self, request: Request, company: bool) -> None:
        try:
            self._dialect.take(request, self._stream, company)
        except TidegateError as error:
            self._emit(self._dialect.refusal(request, self._stream, error))
        except Exception:
            log.exception("a request failed")
            fault = TidegateError("the server failed; its log has the details")
            self._emit(self._dialect.refusal(request, self._stream, fault))

    # Writing ----------------------------------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        if isinstance(event, _ANSWERS):
            self._outgoing.append(event)
        else:
            message = self._dialect.write(event)  # at once: what waits is counted as what it takes
            self._outgoing.append(message)
            self._unwritten += message.size if isinstance(message, Large) else len(message)
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    async def _write(self) -> None:
        while True:
            while self._outgoing:
                if isinstance(large := self._outgoing[0], Large):
                    made = self._outgoing[0] = await large.make()
                    self._unwritten += len(made) - large.size
                message, count = self._dialect.bundle(self._outgoing)
                answers = others = 0  # bytes
                for _ in range(count):  # the arrays are freed now: they are in the message
                    sent = self._outgoing.popleft()
                    if isinstance(sent, bytes):
                        others += len(sent)
                    else:
                        answers += sent.size
                    del sent
                await self._call.write(message)
                self._unwritten -= others  # only now: until then the stream is not at its end
                if answers:
                    self._stream.written(answers)
                if self._waits_for_room:
                    self._room.set()
            self._asleep = self._loop.create_future()
            await self._asleep
