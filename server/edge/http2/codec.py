"""The server's side of one HTTP/2 connection, without I/O: bytes come in by `receive`, and go out by `put`.

Nearly all that a busy client sends are messages that are whole in one frame: these have a short way through `receive`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from server.edge.http2 import control, fields
from server.edge.http2.blocked import Blocked
from server.edge.http2.blocks import Block, Blocks
from server.edge.http2.fields import Malformed
from server.edge.http2.life import State
from server.edge.http2.limits import Account, Limits
from server.edge.http2.receiver import Acceptor
from server.edge.http2.stream import LOW, ROOM, CallStream
from server.edge.pieces import PIECE
from tidegate.http2 import frames
from tidegate.http2.frames import ACK, END_HEADERS, END_STREAM, FRAME_SIZE, MOST_WINDOW, Code, ConnectionFault

_ROOM = 4 * 2**20  # bytes of all streams that may be on their way to this side
_MOST_FRAME = PIECE  # bytes that this side puts into one frame, if the client takes frames of any size
_HEAD = frames.HEAD.size
_SHORTEST = frames.HEAD_AND_PREFIX.size
_FEW = 100  # pings and credits, that are counted together
_STREAMS_A_FRAME = 4  # to change the windows of so many costs as much as another frame does


class Codec:
    """One connection.

    Args:
        acceptor: takes the calls.
        limits: of this connection.
        put: takes bytes that are to be sent, in their order.
        clock: seconds.
    """

    def __init__(
        self, acceptor: Acceptor, limits: Limits, put: Callable[[bytes], None], clock: Callable[[], float]
    ) -> None:
        self.put = put
        self.streams: dict[int, CallStream] = {}
        self.blocked = Blocked(acceptor.write_later)
        self.send_room = frames.WINDOW
        self.most_frame = FRAME_SIZE
        self.ready = False  # the client has shown that it speaks HTTP/2: its preface and settings came
        self.leaving = False  # no further stream is begun
        self._left = False  # and the client was told which was the last
        self._acceptor = acceptor
        self._limits = limits
        self.account = Account(limits, clock)
        self._light_frames = 0  # not counted yet
        self._blocks = Blocks(limits)
        self._tail = b""  # bytes of a frame that is not whole
        self._begun = False
        self._room = _ROOM
        self._first_send_room = frames.WINDOW  # of a new stream
        self._last = 0  # the highest stream that was begun

    def begin(self) -> None:
        """Sends this side's settings."""
        values = {
            frames.MAX_STREAMS: self._limits.streams,
            frames.INITIAL_WINDOW: ROOM,
            frames.MAX_HEADER_LIST: self._limits.header_list,
        }
        self.put(frames.settings(values) + frames.credit(0, _ROOM - frames.WINDOW))

    def retire(self, why: str) -> None:
        """The client is to begin nothing further: that is refused, stream by stream. What is under way goes on."""
        self.leaving = True
        self.put(frames.go_away(MOST_WINDOW, Code.NO_ERROR, why))

    def leave(self, code: Code = Code.NO_ERROR, why: str = "") -> None:
        """Likewise, and says which stream was the last that was seen: nothing is read any more."""
        if not self._left:
            self.leaving = self._left = True
            self.put(frames.go_away(self._last, code, why))

    def forget(self, stream: int) -> None:
        """A stream has ended."""
        self.streams.pop(stream, None)
        self.blocked.pop(stream, None)

    # Reading ----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, blocks: float = inf) -> int:
        """Takes bytes up to so many blocks of fields; returns how many bytes are left then. Raises ConnectionFault."""
        self._blocks.left = blocks
        if self._tail:
            data = self._tail + data
            self._tail = b""
        at = 0
        if not self._begun:
            if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the connection does not begin with HTTP/2's preface")
            if len(data) < len(frames.PREFACE):
                self._tail = data
                return 0
            self._begun, at = True, len(frames.PREFACE)
        at = self._frames(data, at)
        left = len(data) - at
        if left and self._blocks.left > 0:
            self._tail, left = data[at:], 0
        if self._light_frames > _FEW:
            self.account.charge_light(self._light_frames)
            self._light_frames = 0
        if self._room < _ROOM // 2:
            self.put(frames.credit(0, _ROOM - self._room))
            self._room = _ROOM
        return left

    def _frames(self, data: bytes, at: int) -> int:
        """Takes whole frames from `at` on, and returns where the first one begins that is not whole, or is too much."""
        head, streams, blocks, size_of_data = frames.HEAD_AND_PREFIX.unpack_from, self.streams, self._blocks, len(data)
        most = self._limits.message
        while size_of_data - at >= _SHORTEST:
            upper, length, kind, flags, number, compressed, size = head(data, at)
            end = at + _HEAD + length
            if (
                size + 5 == length
                and not (kind or flags or upper or compressed)
                and end <= size_of_data
                and length <= FRAME_SIZE
                and size <= most
                and (stream := streams.get(number)) is not None
                and stream.state is State.OPEN
                and not stream.part
                and not blocks.unfinished
            ):  # a message that is whole
                self._room -= length
                stream.room -= length
                if stream.room < 0 or self._room < 0:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more data came than the window allows")
                stream.unread += length
                stream.receiver.message(data[at + _SHORTEST : end], False)
                if stream.room < LOW:
                    stream.replenish()
                at = end
            elif (after := self._frame(data, at, upper << 16 | length, kind, flags, number)) == at:
                return at
            else:
                at = after
                if blocks.left <= 0:
                    return at
        while size_of_data - at >= _HEAD:  # the last frame may have less than five bytes
            upper, length, kind, flags, number = frames.HEAD.unpack_from(data, at)
            if (after := self._frame(data, at, upper << 16 | length, kind, flags, number)) == at:
                return at
            at = after
        return at

    def _frame(self, data: bytes, at: int, length: int, kind: int, flags: int, number: int) -> int:
        """Takes the frame at `at`, if it is whole, and returns where the next one begins."""
        if length > FRAME_SIZE:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame has {length} bytes; at most {FRAME_SIZE} may come")
        start, end = at + _HEAD, at + _HEAD + length
        if end > len(data):
            return at
        self._take(kind, flags, number & MOST_WINDOW, data[start:end])  # the highest bit means nothing
        return end

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if not self.ready and kind != frames.SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the connection does not begin with settings")
        if self._blocks.unfinished and kind != frames.CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a block of header fields is not continued")
        if kind == frames.WINDOW_UPDATE:  # by far the most frequent: some clients send two for each message
            self._light_frames += 1
            self._window_update(number, control.window_update(payload))
        elif kind == frames.DATA:
            self._data(flags, number, payload)
        elif kind == frames.HEADERS:
            self._fields(self._blocks.begin(flags, number, payload))
        elif kind == frames.PING:
            self._ping(flags, number, payload)
        else:
            self.account.charge()
            self._take_rare(kind, flags, number, payload)

    def _take_rare(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        match kind:  # of others, which are extensions, nothing is made
            case frames.CONTINUATION:
                self._fields(self._blocks.go_on(flags, number, payload))
            case frames.SETTINGS:
                self._settings(flags, number, payload)
            case frames.RST_STREAM:
                control.check_reset(number, payload, self._last)
                if (stream := self.streams.get(number)) is not None:
                    stream.was_reset()
            case frames.PRIORITY:
                control.check_priority(number, payload)
            case frames.GOAWAY:
                control.check_go_away(number, payload)
            case frames.PUSH_PROMISE:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a client may not push")

    def _window_update(self, number: int, more: int) -> None:
        if not number:
            self.send_room += more
            if not more or self.send_room > MOST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR, "no such window")
            self.blocked.drain(self)
        elif (stream := self.streams.get(number)) is None:
            self._after_the_end(number)
        else:
            stream.send_room += more
            if not more or stream.send_room > MOST_WINDOW:
                stream.refuse(Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR)
            else:
                stream.drain()

    def _after_the_end(self, number: int) -> None:
        """A frame of a stream that is no more: it was on its way then, or the client does not keep to the rules."""
        if not number & 1 or number > self._last:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a frame came for stream {number}, which has not begun")
        self.account.charge()

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self._room -= len(payload)
        if self._room < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more data came than the connection's window allows")
        data = frames.unpadded(flags, payload)
        if not data:
            self.account.charge()
        if (stream := self.streams.get(number)) is None:
            self._after_the_end(number)
        else:
            stream.data(data, len(payload), bool(flags & END_STREAM))

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        """Clients in Go and Java send one about every round trip."""
        self._light_frames += 1
        control.check_ping(number, payload)
        if flags & ACK:
            self._acceptor.answered_ping()
        else:
            self.put(frames.frame(frames.PING, ACK, 0, payload))

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        for key, value in control.settings(flags, number, payload, self._limits.settings):
            if key == frames.INITIAL_WINDOW:
                self._resize(value)
            elif key == frames.MAX_FRAME:
                self.most_frame = min(value, _MOST_FRAME)
        if not flags & ACK:
            self.ready = True
            self.put(frames.frame(frames.SETTINGS, ACK, 0))

    def _resize(self, first_send_room: int) -> None:
        self.account.charge(len(self.streams) // _STREAMS_A_FRAME)
        change, self._first_send_room = first_send_room - self._first_send_room, first_send_room
        for stream in list(self.streams.values()):
            stream.send_room += change
            if stream.send_room > MOST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the window of a stream is too large")
            if change > 0:
                stream.drain()

    # Calls ------------------------------------------------------------------------------------------------------------

    def _fields(self, block: Block | None) -> None:
        if block is None:
            return
        if (stream := self.streams.get(block.number)) is not None:
            stream.trailers(block)
        elif block.number <= self._last:
            self._after_the_end(block.number)
        else:
            self._last = block.number
            self.account.charge(0)
            self._call(block)

    def _call(self, block: Block) -> None:
        try:
            request = fields.request(block.fields)
        except Malformed:
            return self._refuse(block.number, Code.PROTOCOL_ERROR)
        if self.leaving or len(self.streams) >= self._limits.streams:
            return self._refuse(block.number, Code.REFUSED_STREAM)
        if not request.is_grpc:
            self.put(frames.frame(frames.HEADERS, END_HEADERS | END_STREAM, block.number, fields.NOT_GRPC))
            return self._refuse(block.number, Code.NO_ERROR)
        stream = CallStream(self, block.number, self._first_send_room, self._limits.message)
        self.streams[block.number] = stream
        if (refusal := self._acceptor.begin(stream, request)) is not None:
            return stream.finish(*refusal)
        if block.ends:
            stream.client_ends()
        return None

    def _refuse(self, number: int, code: Code) -> None:
        self.account.charge()
        self.put(frames.reset(number, code))
