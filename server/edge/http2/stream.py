"""One stream of a connection: the messages of a call, in and out under flow control, and its end. Without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from server.edge.http2 import fields, messages
from server.edge.http2.life import NEXT, Event, State
from server.edge.http2.messages import PREFIX
from server.edge.http2.receiver import NOBODY, Receiver
from server.edge.pieces import PIECE, Message, Pieces
from tidegate.http2 import frames
from tidegate.http2.frames import DATA, END_HEADERS, END_STREAM, HEAD_AND_PREFIX, HEADERS, U32, Code

if TYPE_CHECKING:
    from server.edge.http2.blocks import Block
    from server.edge.http2.codec import Codec
    from server.edge.http2.fields import Metadata

ROOM = frames.WINDOW  # bytes of a stream that may be unread at this side
LOW = ROOM // 2  # so little room is left to the client that it is told of more
_COPIED = 2**14  # bytes of a message that are sent in a frame with its prefix, where they have to wait
_RESOURCE_EXHAUSTED, _INTERNAL = 8, 13


class CallStream:
    """A call, from the moment that its header fields are read."""

    __slots__ = (
        "_body",
        "_codec",
        "_filled",
        "_large",
        "_responded",
        "_trailers",
        "id",
        "most",
        "part",
        "receiver",
        "room",
        "send_room",
        "sent",
        "state",
        "unread",
        "waiting",
    )

    def __init__(self, codec: Codec, number: int, send_room: int, most: int) -> None:
        self.id = number
        self.state = State.OPEN
        self.receiver: Receiver = NOBODY
        # inwards
        self.most = most  # bytes of a message
        self.room = ROOM  # bytes that the client may send
        self.unread = 0  # bytes that came and nobody has taken
        self.part = bytearray()  # of a message
        self._body: memoryview | None = None  # of one that is larger than the window, and how much of it has come
        self._filled = 0
        self._large = False  # the receiver knows that it needs room
        # outwards
        self.send_room = send_room
        self.sent = 0  # bytes of what had to wait
        # what the client's windows, or this turn, have no room for; the first of it is made
        self.waiting: deque[memoryview | Iterator[bytes]] | None = None
        self._codec = codec
        self._responded = False
        self._trailers: bytes | None = None  # to be sent after what is waiting

    # Inwards ----------------------------------------------------------------------------------------------------------

    def data(self, data: bytes, size: int, ends: bool) -> None:
        """Bytes of messages, cut anywhere; with padding they were `size`. `ends`: nothing further comes."""
        self.room -= size
        if self.state is not State.OPEN:
            self.refuse(Code.STREAM_CLOSED)
        elif self.room < 0:
            self.refuse(Code.FLOW_CONTROL_ERROR)
        else:
            self._came(data)
            if ends:
                self.client_ends()
            elif self.room < LOW:
                self.replenish()

    def trailers(self, block: Block) -> None:
        """Header fields at the end of a request; nothing is made of them."""
        if self.state is not State.OPEN:
            self.refuse(Code.STREAM_CLOSED)
        elif not block.ends or any(name[:1] == b":" for name, _ in block.fields):
            self.refuse(Code.PROTOCOL_ERROR)
        else:
            self.client_ends()

    def _came(self, data: bytes) -> None:
        self.unread += len(data)
        if self._body is not None:
            data = self._fill(self._body, data)
        behind = bool(self.part) and messages.begins_whole(self.part)
        self.part += data
        if not behind:
            self.cut(self.receiver.message)

    def cut(self, hand_on: Callable[[bytes, bool], None]) -> bool:
        """Hands on messages that came, a part of them where they are thousands; False: there is none."""
        if self._body is not None:
            return False
        those, fault = messages.cut(part := self.part, self.most)
        for message, compressed in those:
            self._large = False
            hand_on(message, compressed)
        if fault:
            self.finish(_INTERNAL if part[0] > 1 else _RESOURCE_EXHAUSTED, fault)
        elif self.state is State.HALF_CLOSED:
            self._breaks_off()
        elif part and (size := messages.size_of(part)) > self.room + len(part) and not self._large:
            self._large = True
            self.receiver.large(size - PREFIX)
        return bool(those)

    def _fill(self, body: memoryview, data: bytes) -> bytes:
        """Takes what belongs to the message, which is handed on once it is whole; returns what comes after it."""
        more = data[: len(body) - self._filled]
        body[self._filled : self._filled + len(more)] = more
        self._filled += len(more)
        if self._filled == len(body):
            compressed = bool(self.part[0])
            self._body, self._filled, self._large = None, 0, False
            self.part.clear()
            self.receiver.message(body, compressed)
        return data[len(more) :]

    @property
    def came(self) -> int:
        """How many bytes are here of a message that is not whole."""
        return len(self.part) + self._filled

    def took(self, size: int) -> None:
        """A message of so many bytes was taken by its reader."""
        self.unread -= size + PREFIX
        if self.room < LOW:
            self.replenish()

    def replenish(self) -> None:
        """Lets the client send as much as is allowed to be unread."""
        free = ROOM - self.unread - self.room
        if free > 0 and self.state is State.OPEN:
            self.room += free
            self._codec.put(frames.credit(self.id, free))

    def make_room(self, size: int) -> None:
        """Lets the client send the rest of a message of so many bytes that has come in part.

        What comes of it is put where it stays. Its prefix is kept.
        """
        if self.state is State.OPEN and self._body is None:
            self._body = memoryview(np.empty(size, np.uint8))  # type: ignore[arg-type] # it is a buffer
            came = bytes(self.part[PREFIX:])
            del self.part[PREFIX:]
            self._fill(self._body, came)
        free = size + PREFIX - self.came - self.room
        if free > 0 and self.state is State.OPEN:
            self.room += free
            self._codec.put(frames.credit(self.id, free))

    def client_ends(self) -> None:
        if self.state is State.OPEN:
            self.state = NEXT[self.state, Event.CLIENT_ENDS]
            if not self._breaks_off():
                self.receiver.half_closed()

    def _breaks_off(self) -> bool:
        """Whether the last message has no end, which ends the call."""
        if breaks_off := bool(self.part) and not messages.begins_whole(self.part):
            self.finish(_INTERNAL, f"the call ended after {self.came} bytes of a message that has more")
        return breaks_off

    def was_reset(self) -> None:
        """By the client, or with its connection."""
        self._end(Event.RESET)

    # Outwards ---------------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """One message. What there is no room for waits: see `waiting`. Large ones leave in turns of the loop."""
        codec, size = self._codec, len(message)
        whole = size + PREFIX
        if (
            self.waiting is not None
            or whole > self.send_room
            or whole > codec.send_room
            or whole > codec.most_frame
            or not self._responded
            or not isinstance(message, bytes)
        ):
            return self._send_slowly(message)
        self.send_room -= whole
        codec.send_room -= whole
        codec.put(HEAD_AND_PREFIX.pack(whole >> 16, whole & 0xFFFF, DATA, 0, self.id, 0, size) + message)
        return None

    def _send_slowly(self, message: Message) -> None:
        if self.state is State.CLOSED:
            return
        self.respond()
        if self.waiting is None:
            self.waiting = deque()
        prefix = b"\0" + U32.pack(len(message))
        if isinstance(message, Pieces):
            self.waiting += (memoryview(prefix), iter(message))
        elif len(message) < _COPIED:
            self.waiting.append(memoryview(prefix + message))
        else:  # as it is: the same list of models waits for many
            self.waiting += (memoryview(prefix), memoryview(message))
        if len(message) > PIECE:
            self._codec.blocked.add(self)
        else:
            self._drain()

    def respond(self) -> None:
        """Sends the header fields of the answer, once."""
        if not self._responded and self.state is not State.CLOSED:
            self._responded = True
            self._codec.put(frames.frame(HEADERS, END_HEADERS, self.id, fields.RESPONSE))

    def drain(self) -> None:
        """There is more room: sends of what waits as much as it takes."""
        if self.waiting is None or not self._drain():
            return
        if self._trailers is not None:
            self._finish(self._trailers)
        else:
            self.receiver.writable()

    def _drain(self) -> bool:
        """Whether all has left."""
        codec, blocked, waiting = self._codec, self._codec.blocked, self.waiting
        while waiting:
            head = waiting[0]
            if not isinstance(head, memoryview):
                if piece := next(head, None):
                    waiting.appendleft(memoryview(piece))
                else:
                    waiting.popleft()
                continue
            size = min(len(head), self.send_room, codec.send_room, codec.most_frame, blocked.room)
            if size <= 0 < len(head):
                if self.send_room > 0:  # else credit of its own is what it waits for
                    blocked.add(self)
                return False
            codec.put(frames.frame(DATA, 0, self.id, bytes(head[:size])))
            self.send_room -= size
            self.sent += size
            codec.send_room -= size
            blocked.room -= size
            if size == len(head):
                waiting.popleft()
            else:
                waiting[0] = head[size:]
        self.waiting = None
        return True

    def finish(self, status: int, details: str = "", metadata: Metadata = ()) -> None:
        """Ends the call with a status of gRPC, after what waits was sent."""
        block = fields.trailers(status, details, metadata)
        if self.waiting is None:
            self._finish(block)
        elif self._trailers is None:
            self._trailers = block

    def _finish(self, block: bytes) -> None:
        if self.state is State.CLOSED:
            return
        codec = self._codec
        block = block if self._responded else fields.RESPONSE + block
        codec.put(frames.header_frames(self.id, block, END_STREAM, codec.most_frame))
        if self.state is State.OPEN:
            codec.account.owe()  # who has this side reset streams pays as for resets of its own (CVE-2025-8671)
            codec.put(frames.reset(self.id, Code.NO_ERROR))
        self._end(Event.SERVER_ENDS)

    def refuse(self, code: Code) -> None:
        """Ends the stream without a status."""
        if self.state is not State.CLOSED:
            self._codec.account.owe()
            self._codec.put(frames.reset(self.id, code))
            self._end(Event.RESET)

    def _end(self, event: Event) -> None:
        if self.state is not State.CLOSED:
            self.state = NEXT[self.state, event]
            self.waiting = None
            self.send_room = 0  # so that `send` takes its slow way, which sees that the stream has ended
            self.part, self._body = bytearray(), None
            self._codec.forget(self.id)
            receiver, self.receiver = self.receiver, NOBODY  # they refer to each other
            receiver.gone()
