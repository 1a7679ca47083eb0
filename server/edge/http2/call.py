"""One call as a handler of gRPC sees it, and the task that runs it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from server.edge.http2 import compression
from server.edge.http2.large import LargeMessage, Unread
from server.edge.http2.life import State
from server.edge.pieces import Message, Pieces
from tidegate.http2.frames import Code

if TYPE_CHECKING:
    from server.edge.exchanges.dialect import Listener
    from server.edge.fields import Buffer
    from server.edge.http2.connection import Connection
    from server.edge.http2.fields import Metadata, Request
    from server.edge.http2.stream import CallStream

log = logging.getLogger(__name__)
Handler = Any  # grpc.RpcMethodHandler: grpc gives its attributes no types
_CODE, _BEGINS = grpc.StatusCode, 0.0003  # _BEGINS: seconds that a handler works before it waits for something


class Call:
    """Runs a handler in a task of its own, which is cancelled when the client ends the call.

    For it this is what `grpc.aio.ServicerContext` is, as far as services use that.

    Args:
        connection: that the call came on.
        stream: carries its messages.
        request: its first header fields.
        handler: of its method.
    """

    def __init__(self, connection: Connection, stream: CallStream, request: Request, handler: Handler) -> None:
        self.client = connection
        self.auth_context = connection.auth_context
        self._stream = stream
        self._request = request
        self._handler = handler
        self._parse = handler.request_deserializer or bytes
        self._loop = connection.server.loop
        self._messages: list[tuple[Buffer, bool]] = []  # few enough, in a window of 64 KiB, to take the first of a list
        self._half_closed = self._asked = False  # the last has come; one is asked for that is not here
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._large: LargeMessage | None = None  # that has begun to come
        self._decompressing = compression.Decompressing()
        self._listener: Listener | None = None
        self._done: list[Callable[[Call], None]] = []
        self._begun = False  # the handler runs; a task that is cancelled at once never does
        self._served = False  # the handler has ended; its last messages may wait for the client
        self._trailing: Metadata = ()
        self._timer = self._loop.call_later(request.timeout, self._late) if request.timeout is not None else None
        self.task: asyncio.Task[None] | None = None  # runs the handler, once it is started

    def start(self) -> bool:
        """Runs the handler, unless the call has ended."""
        if lives := self._stream.state is not State.CLOSED:
            self.task = self._loop.create_task(self._serve())
        return lives

    # What a handler uses ----------------------------------------------------------------------------------------------

    def peer(self) -> str:
        return self.client.peer

    def invocation_metadata(self) -> Metadata:
        return self._request.metadata

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self._trailing = tuple(metadata)

    def add_done_callback(self, callback: Callable[[Call], None]) -> None:
        """Called once the call has ended, however it did."""
        self._done.append(callback)

    async def read(self) -> Any:  # noqa: ANN401 # what the handler's deserialiser makes
        """The next message, or grpc.aio.EOF."""
        while (message := self.take()) is None:
            self._reader = self._loop.create_future()
            await self._reader
        return message

    async def begun(self) -> None:
        """See Watched."""
        while not self._messages and self._large is None and not self._half_closed:
            self._reader = self._loop.create_future()
            await self._reader

    @property
    def small(self) -> bool:
        """See Watched."""
        return bool(self._messages) and not self._messages[0][1]

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 # likewise
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def write(self, message: Any) -> None:  # noqa: ANN401 # what the handler's serialiser takes
        """Returns once the next message may be written."""
        if self._stream.state is State.CLOSED:
            raise grpc.aio.UsageError("the call has ended")
        self._send(message)
        while self.full:
            self._writer = self._loop.create_future()
            await self._writer

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """Ends the call with a status, and the handler with grpc.aio.AbortError."""
        self._finish(code, details, tuple(trailing_metadata) or self._trailing)
        raise grpc.aio.AbortError(details)

    # Without coroutines -----------------------------------------------------------------------------------------------

    def begin(self, listener: Listener) -> None:
        """From now on the listener is told of messages, and nothing uses `read` and `write`."""
        self._listener = listener
        self._loop.call_soon(self.came)  # some may be here already

    def end(self) -> None:
        """The listener is told nothing any more."""
        self._listener = None

    def take(self) -> Any:  # noqa: ANN401 # what the handler's deserialiser makes
        """The next message; grpc.aio.EOF after the last; None: there is none yet."""
        if not self._messages and not (self._stream.part and self._stream.cut(lambda *one: self._messages.append(one))):
            self._asked = True
            if self._large is not None:
                self._large.ask()
            return grpc.aio.EOF if self._half_closed else None
        data, compressed = self._messages[0]
        message = self._decompressed(data) if compressed else data
        if message is None:
            return None
        self._asked = False
        del self._messages[0]
        self._stream.took(len(data))
        return self._parse(message)

    @property
    def several(self) -> bool:
        """Whether further messages are here."""
        return bool(self._messages)

    @property
    def asks(self) -> bool:
        """See dialect.Call."""
        return self._half_closed or self._large is not None or bool(self._stream.part)

    def send(self, message: Message) -> None:
        self._stream.send(message)

    @property
    def full(self) -> bool:
        """Whether something that was sent is still here, because the client does not read."""
        return self._stream.waiting is not None or self.client.full

    def came(self) -> None:
        """Messages that were in one read of the connection, or the end of the request."""
        if self._listener is not None:
            self._listener.came()
        elif self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # The handler ------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._begun = True
        self.client.server.turn.spend(_BEGINS)
        try:
            if not compression.knows(self._request.encoding):
                self._trailing = (("grpc-accept-encoding", compression.ACCEPTED),)
                await self.abort(_CODE.UNIMPLEMENTED, f"messages come as {self._request.encoding[:64]!r}")
            handler = self._handler
            work = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
            answer = work(self if handler.request_streaming else await self._only_message(), self)
            if inspect.isasyncgen(answer):
                async for message in answer:
                    await self.write(message)
            elif handler.response_streaming:
                await answer
            else:
                self._send(await answer)
            self._finish(_CODE.OK, "", self._trailing)
        except grpc.aio.AbortError:
            pass  # finished with its status
        except asyncio.CancelledError:
            self._finish(_CODE.UNAVAILABLE, "the server is stopping", ())
        except Exception:
            if self._stream.state is not State.CLOSED:
                log.exception("a call failed")
            self._finish(_CODE.UNKNOWN, "the server failed; its log has the details", ())
        finally:
            self._served = True
            if self._stream.state is State.CLOSED:
                self._end()
            else:
                self._done.append(Unread(self.client, self._stream).end)

    async def _only_message(self) -> Any:  # noqa: ANN401 # what the handler's deserialiser makes
        message = await self.read()
        if message is grpc.aio.EOF:
            await self.abort(_CODE.INTERNAL, "a call came without a message")
        return message

    def _send(self, message: Any) -> None:  # noqa: ANN401 # what the handler's serialiser takes
        serialise = self._handler.response_serializer
        self._stream.send(message if serialise is None or isinstance(message, Pieces) else serialise(message))

    def _finish(self, code: grpc.StatusCode, details: str, metadata: Metadata = ()) -> None:
        self._stream.finish(code.value[0], details, metadata)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end_large()
        for callback in self._done:
            try:
                callback(self)
            except Exception:
                log.exception("what follows a call failed")
        self._done.clear()
        self.task = None  # one that never ran keeps its error, which refers to this call
        self.client.server.ended(self)

    def _late(self) -> None:
        if self._stream.waiting is not None:  # a status would come after messages that the client does not read
            self._stream.refuse(Code.CANCEL)
        else:
            self._finish(_CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", ())

    # Large and compressed messages ------------------------------------------------------------------------------------

    def large(self, size: int) -> None:
        """See Receiver."""
        self._large = LargeMessage(self.client, self._stream, size, partial(self._finish, _CODE.UNAVAILABLE))
        if self._asked:
            self._large.ask()
        self.came()

    def _end_large(self) -> None:
        if self._large is not None:
            self._large.end()
            self._large = None

    def _decompressed(self, message: Buffer) -> bytes | None:
        """None until it is done, and then `came` is called."""
        aside = partial(self._loop.run_in_executor, None)
        read = self._decompressing.read(message, self._request.encoding, self._stream.most, aside, self.came)
        if isinstance(read, compression.Unreadable):
            self._finish(_CODE.RESOURCE_EXHAUSTED if read.too_large else _CODE.INTERNAL, read.why)
            raise grpc.aio.AbortError(read.why)
        return read

    # What the stream tells --------------------------------------------------------------------------------------------

    def message(self, data: Buffer, compressed: bool) -> None:
        """See Receiver."""
        if self._large is not None:
            self._end_large()
        if not self._messages:
            self.client.hearing.append(self)
        self._messages.append((data, compressed))

    def half_closed(self) -> None:
        """See Receiver."""
        self._half_closed = True
        self.client.hearing.append(self)

    def writable(self) -> None:
        """See Receiver; likewise when the connection takes more."""
        if self._listener is not None:
            self._listener.writable()
        elif self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def gone(self) -> None:
        """See Receiver."""
        self.client.left()
        if self.task is not None and asyncio.current_task(self._loop) is not self.task:
            self.client.server.gate.take(self.task.cancel)
        if self._served or not self._begun:
            self._end()
