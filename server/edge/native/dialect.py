"""One gRPC stream: reads requests, writes answers, and stops reading while the client does not read.

Translates between messages and a `Stream`, which does the work and has never heard of gRPC.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.caller import Caller
from server.durability.keeper import AnyKeeper
from server.edge.native import messages
from server.errors import BadInput, Draining, OverLimit, Reason, Refusal, TidegateError
from server.settings import Settings
from server.streams.events import Answered, Event, Failed, FleetAnswered
from server.streams.stream import Catalogue, Stream
from tidegate.v1 import sequence_pb2

log = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext: its type parameters differ between releases
_ROUTE = "tidegate-sequence"  # the header by which a client, and whoever resumes its sequences, is led here
_MOST = 1_024  # requests of a bundle
_BACKLOG = 1_024  # messages that carry no answer (openings, refusals) that may wait to be written


def reader(limit: int) -> Callable[[bytes], "sequence_pb2.StreamRequest | Refusal"]:
    """A deserialiser that answers a message it cannot take with the refusal instead of ending the stream."""

    def read(data: bytes) -> sequence_pb2.StreamRequest | Refusal:
        if len(data) > limit:
            return OverLimit(
                f"a message of {len(data)} bytes came; {limit} is the limit. Send smaller chunks or fleets"
            )
        try:
            return sequence_pb2.StreamRequest.FromString(data)
        except DecodeError:
            return Refusal("a message came that is no StreamRequest")

    return read


class Conversation:
    """Serves one stream from its first message to its last."""

    def __init__(self, catalogue: Catalogue, keeper: AnyKeeper, settings: Settings, context: Context) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._keeper = keeper
        route = dict(context.invocation_metadata()).get(_ROUTE, "")
        caller = Caller(host(context.peer()))
        self._stream = Stream(
            catalogue, keeper, settings.max_sequences, settings.window_bytes, self._emit, caller, route
        )
        self._leaving = False
        self._writer = messages.Writer(settings.max_message_bytes)
        self._outbox: deque[Event] = deque()
        self._asleep: asyncio.Future[None] | None = None  # what the writer waits on while the outbox is empty
        self._room = asyncio.Event()  # set when an answer has left, while somebody waits for it
        self._waits_for_room = False

    async def serve(self, leave: asyncio.Event) -> None:
        """Runs until the client has said its last word and has every answer, or is gone.

        Once `leave` is set, the sequences are let go of if somebody keeps them; the client hears that it has to move.
        """
        writer = asyncio.create_task(self._write())
        reader = asyncio.create_task(self._read(writer))
        leaving = asyncio.create_task(leave.wait())
        try:
            await asyncio.wait((reader, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                await self._leave()
            else:
                await reader
            while not (self._stream.idle and not self._outbox) and not writer.done():
                await self._wait_for_room(writer)
            if writer.done():
                writer.result()
        finally:
            for task in (writer, reader, leaving):
                task.cancel()
            self._stream.abandon()

    async def _leave(self) -> None:
        """Lets go of every sequence: what was taken is answered, and what was answered is written before it is told."""
        self._leaving = True
        gone: asyncio.Future[tuple[int, ...]] = self._loop.create_future()

        def left(handles: tuple[int, ...]) -> None:
            if not gone.done():  # the stream can be cut meanwhile
                gone.set_result(handles)

        self._stream.leave(left)
        handles = await gone
        await self._keeper.flush()
        self._stream.release(handles, Draining("this server is stopping; resume at another, or here in a while"))

    async def _read(self, writer: "asyncio.Task[None]") -> None:
        while True:
            while (self._stream.full or len(self._outbox) > _BACKLOG) and not writer.done():
                await self._wait_for_room(writer)
            request = await self._context.read()
            if request is grpc.aio.EOF or writer.done():
                return
            if self._leaving:
                continue  # the client will send it again where it goes on
            self._take(request)

    async def _wait_for_room(self, writer: "asyncio.Task[None]") -> None:
        self._room.clear()
        self._waits_for_room = True
        waiting = asyncio.ensure_future(self._room.wait())
        await asyncio.wait((waiting, writer), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._waits_for_room = False

    async def _write(self) -> None:
        while True:
            while self._outbox:
                message, events = self._writer.bundle(self._outbox)
                await self._context.write(message)
                for _ in range(events):
                    event = self._outbox.popleft()  # only now: while it is written, the stream is not at its end
                    if isinstance(event, Answered | FleetAnswered):
                        self._stream.written(event.size)
                if self._waits_for_room:
                    self._room.set()
            self._asleep = self._loop.create_future()
            await self._asleep

    def _emit(self, event: Event) -> None:
        self._outbox.append(event)
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    def _take(self, request: "sequence_pb2.StreamRequest | Refusal") -> None:
        if isinstance(request, Refusal):
            self._emit(Failed(request))
            return
        more = request.more
        if not more:
            self._take_one(request)
            return
        if len(more) >= _MOST:
            self._emit(self._failure(request, OverLimit(f"a bundle of {len(more) + 1} requests came; {_MOST} may")))
            return
        if any(further.more for further in more):
            self._emit(self._failure(request, BadInput("a bundle came in a bundle", Reason.MALFORMED)))
            return
        self._take_one(request, company=True)
        for further in more:
            self._take_one(further, company=True)

    def _take_one(self, request: sequence_pb2.StreamRequest, company: bool = False) -> None:
        try:
            if request.HasField("steps"):
                steps = request.steps
                inputs = messages.named_inputs(steps.inputs)
                self._stream.steps(steps.handle, steps.first_step, inputs, steps.answered, company)
            elif request.HasField("fleet"):
                self._fleet(request.fleet)
            else:
                self._take_rare(request)
        except TidegateError as error:
            self._emit(self._failure(request, error))
        except Exception:
            log.exception("a request failed")
            self._emit(self._failure(request, TidegateError("the server failed; its log has the details")))

    def _take_rare(self, request: sequence_pb2.StreamRequest) -> None:
        match request.WhichOneof("request"):
            case "open":
                self._open(request.open)
            case "close" if request.close.park:
                self._stream.park(request.close.handle, request.close.count)
            case "close":
                self._stream.close(request.close.handle, request.close.count)
            case "resume":
                self._resume(request.resume)
            case "read_state":
                self._stream.read_state(request.read_state.handle)
            case "rewind":
                self._stream.rewind(request.rewind.handle, request.rewind.step)
            case "move":
                self._stream.move(request.move.handle, request.move.version)
            case _:
                self._emit(Failed(Refusal("an empty message came; expected open, steps, fleet, close or another")))

    def _open(self, message: sequence_pb2.Open) -> None:
        self._stream.open(
            message.handle,
            message.count or 1,
            message.model,
            message.version,
            messages.manner(message),
            messages.beginning(message.state) if message.HasField("state") else None,
            message.owner,
        )

    def _resume(self, message: sequence_pb2.Resume) -> None:
        self._stream.resume(
            message.handle, message.sequence_ids, message.resume_token, message.answered, messages.manner(message)
        )

    def _fleet(self, message: sequence_pb2.FleetSteps) -> None:
        handles = messages.numbers(message.handles, "<u4", "the handles of a fleet")
        steps = messages.numbers(message.steps, "<u8", "the steps of a fleet")
        answered = messages.numbers(message.answered, "<u8", "the answers of a fleet") if message.answered else None
        self._stream.fleet(handles, steps, messages.named_inputs(message.inputs), answered)

    def _failure(self, request: sequence_pb2.StreamRequest, error: TidegateError) -> Failed:
        handles, first_step = messages.concerned(request)
        return Failed(error, handles, first_step, self._stream.expected(handles), request.WhichOneof("request") or "")


def host(peer: str) -> str:
    """Who connects, without the port: gRPC says ipv4:HOST:PORT, ipv6:[HOST]:PORT or unix:PATH."""
    return peer.rpartition(":")[0] if peer.startswith("ip") else peer[:128]  # as long as an owner may be
