"""A client's side of one call of gRPC over an HTTP/2 connection of its own, without I/O.

What is received is given as bytes, what is to be sent comes as bytes. Sources: RFC 9113; gRPC's PROTOCOL-HTTP2.md.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import NoReturn

from hpack import Decoder, Encoder, HPACKError

from tidegate.http2 import call_fields, frames
from tidegate.http2.call_fields import Ended
from tidegate.http2.frames import HEAD, HEAD_AND_PREFIX, U32, Code, ConnectionFault

STREAM = 1
WINDOW = 2**22  # bytes that the server may send before it gets credit for them
_MOST_BLOCK = 2**18  # bytes of a block of header fields
_PREFIX = 5  # bytes of a message before its own
_OF_RESET = {  # other codes are INTERNAL
    Code.REFUSED_STREAM: "UNAVAILABLE",
    Code.CANCEL: "CANCELLED",
    Code.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
}


class ClientCall:
    """One call, from the first byte of its connection to the last.

    Args:
        path: the method, as in /package.Service/Method.
        authority: the server's name.
        metadata: what goes with the call; bytes where a name ends in -bin.
        secure: whether the connection is one of TLS.

    Attributes:
        ended: how the call ended, once it has.
    """

    def __init__(self, path: str, authority: str, metadata: Iterable[tuple[str, str | bytes]], secure: bool) -> None:
        self.ended: Ended | None = None
        block = Encoder().encode(call_fields.request(path, authority, metadata, secure))
        self._out = bytearray(frames.PREFACE)
        self._out += frames.settings({frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW: WINDOW})
        self._out += frames.credit(0, WINDOW - frames.WINDOW)
        self._out += frames.header_frames(STREAM, block, 0, frames.FRAME_SIZE)
        # what is sent
        self._window = self._stream_window = frames.WINDOW  # bytes that the server takes on the connection, in the call
        self._initial = frames.WINDOW
        self._most = frames.FRAME_SIZE
        self._unsent = deque[memoryview]()
        self._ends = self._ended_here = False
        # what is received
        self._data = bytearray()  # a frame that is not whole
        self._part = bytearray()  # a message that is not
        self._whole = _PREFIX  # bytes that this has at least once it is whole
        self._messages = list[bytes]()
        self._owed = 0  # bytes that came and for which the server has no credit yet
        self._decoder = Decoder()
        self._block: bytearray | None = None  # header fields that are not whole
        self._block_ends = False
        self._fields: dict[str, str] = {}  # of the answer
        self._kinds: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._took,
            frames.HEADERS: self._begin_fields,
            frames.CONTINUATION: self._further_fields,
            frames.WINDOW_UPDATE: self._credited,
            frames.SETTINGS: self._set,
            frames.PING: self._pinged,
            frames.RST_STREAM: self._reset,
            frames.GOAWAY: self._gone_away,
            frames.PUSH_PROMISE: self._promised,
        }

    # Sending ----------------------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """One message; it leaves as the server gives room for it."""
        size = _PREFIX + len(message)
        if self._unsent or size > self._most or size > self._window or size > self._stream_window or self.ended:
            self._unsent.append(memoryview(b"\0" + len(message).to_bytes(4) + message))
            self._send_messages()
        else:  # nearly always
            self._out += HEAD_AND_PREFIX.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, STREAM, 0, len(message))
            self._out += message
            self._window -= size
            self._stream_window -= size

    def end(self) -> None:
        """No message follows."""
        self._ends = True
        self._send_messages()

    def cancel(self) -> None:
        """The answer is not wanted any more."""
        if self.ended is None:
            self.ended = Ended("CANCELLED", "cancelled by the client")
            self._out += frames.reset(STREAM, Code.CANCEL)

    def ping(self) -> None:
        """Has the server answer, whatever the call does."""
        self._out += frames.frame(frames.PING, 0, 0, b"tidegate")

    @property
    def waits(self) -> bool:
        """Whether messages wait until the server gives room."""
        return bool(self._unsent)

    @property
    def ready(self) -> int:
        """How many bytes are to be written."""
        return len(self._out)

    def to_send(self) -> bytes:
        """What is to be written now."""
        if not self._out:
            return b""
        out = bytes(self._out)
        self._out.clear()
        return out

    def _send_messages(self) -> None:
        while self._unsent and self.ended is None:
            piece = self._unsent[0]
            size = min(len(piece), self._window, self._stream_window, self._most)
            if size <= 0:  # settings may take room away that was used
                return
            self._out += HEAD.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, STREAM)
            self._out += piece[:size]
            self._window -= size
            self._stream_window -= size
            if size < len(piece):
                self._unsent[0] = piece[size:]
            else:
                self._unsent.popleft()
        if self._ends and not self._ended_here and self.ended is None:
            self._ended_here = True
            self._out += frames.frame(frames.DATA, frames.END_STREAM, STREAM)

    # Receiving --------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. `ended` says whether there will be more."""
        if self._data:
            self._data += data
            data = bytes(self._data)
            self._data.clear()
        try:
            self._data += data[self._take_frames(data) :]
        except ConnectionFault as fault:
            self._out += frames.go_away(0, fault.code, str(fault))
            self._end("UNAVAILABLE", f"the server breaks HTTP/2: {fault}")
        if self._owed >= WINDOW // 2:
            self._out += frames.credit(0, self._owed) + frames.credit(STREAM, self._owed)
            self._owed = 0
        if self._unsent:  # there may be room now
            self._send_messages()
        messages, self._messages = self._messages, []
        return messages

    def lost(self, why: str) -> None:
        """The connection is gone."""
        self._end("UNAVAILABLE", why)

    def _end(self, status: str, why: str) -> None:
        if self.ended is None:
            self.ended = Ended(status, why)

    def _take_frames(self, data: bytes) -> int:
        """Takes the frames that are whole; returns how many bytes these are."""
        at, end = 0, len(data)
        while end - at >= HEAD.size:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            size = high << 16 | low
            if size > frames.FRAME_SIZE:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes came")
            if end - at < HEAD.size + size:
                break
            at += HEAD.size + size
            if self._block is not None and kind != frames.CONTINUATION:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "header fields were cut by another frame")
            if (take := self._kinds.get(kind)) is not None:  # other kinds are to be ignored
                take(flags, stream & frames.MOST_WINDOW, data[at - size : at])
        return at

    # Messages

    def _took(self, flags: int, _: int, payload: bytes) -> None:
        self._owed += len(payload)
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        if self._part:
            self._part += payload
            if len(self._part) >= self._whole:
                payload = bytes(self._part)
                self._part.clear()
                self._take_messages(payload)
        else:
            self._take_messages(payload)
        if flags & frames.END_STREAM:
            self._finish()

    def _take_messages(self, data: bytes) -> None:
        at, end = 0, len(data)
        self._whole = _PREFIX
        while end - at >= _PREFIX:
            size = int.from_bytes(data[at + 1 : at + _PREFIX])
            if data[at]:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a compressed message came, which was not asked for")
            if end - at < _PREFIX + size:
                self._whole = _PREFIX + size
                break
            at += _PREFIX + size
            self._messages.append(data[at - size : at])
        self._part += data[at:]

    # Fields

    def _begin_fields(self, flags: int, stream: int, payload: bytes) -> None:
        payload = frames.unpadded(flags, payload)
        self._block, self._block_ends = bytearray(), bool(flags & frames.END_STREAM)
        self._further_fields(flags, stream, payload[5 if flags & frames.WITH_PRIORITY else 0 :])

    def _further_fields(self, flags: int, _: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "header fields go on that have not begun")
        self._block += payload
        if len(self._block) > _MOST_BLOCK:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "its header fields are too large")
        if not flags & frames.END_HEADERS:
            return
        block, self._block = bytes(self._block), None
        try:
            self._fields |= {str(name): str(value) for name, value in self._decoder.decode(block)}
        except (HPACKError, UnicodeDecodeError) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"its header fields cannot be read: {error}") from error
        status = self._fields.get(":status", "200")
        if self._block_ends or (status != "200" and not status.startswith("1")):
            self._finish()

    def _finish(self) -> None:
        """The server ended the call."""
        if self.ended is None:
            self.ended = call_fields.ended(self._fields)

    # The connection

    def _credited(self, _: int, stream: int, payload: bytes) -> None:
        if len(payload) != U32.size or not (size := U32.unpack(payload)[0] & frames.MOST_WINDOW):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "it gives credit for nothing")
        if stream == 0:
            self._window += size
        elif stream == STREAM:
            self._stream_window += size
        if max(self._window, self._stream_window) > frames.MOST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "it gives more credit than there may be")

    def _set(self, flags: int, _: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        if len(payload) % frames.SETTING.size:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "its settings are cut")
        for key, value in frames.SETTING.iter_unpack(payload):
            if key == frames.INITIAL_WINDOW:
                if value > frames.MOST_WINDOW:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"it sets a window of {value} bytes")
                self._stream_window += value - self._initial
                self._initial = value
            elif key == frames.MAX_FRAME:
                if not frames.FRAME_SIZE <= value < 2**24:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, f"it sets frames of {value} bytes")
                self._most = value
        self._out += frames.frame(frames.SETTINGS, frames.ACK, 0)

    def _pinged(self, flags: int, _: int, payload: bytes) -> None:
        if not flags & frames.ACK:
            self._out += frames.frame(frames.PING, frames.ACK, 0, payload)

    def _reset(self, _flags: int, _: int, payload: bytes) -> None:
        if len(payload) != U32.size:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a reset is cut")
        code = U32.unpack(payload)[0]
        self._end(_OF_RESET.get(code, "INTERNAL"), f"the server reset the call with code {code}")

    def _gone_away(self, _flags: int, _: int, payload: bytes) -> None:
        """A call that it goes on with goes on."""
        if len(payload) < 2 * U32.size:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "the end of the connection is cut")
        last, code = U32.unpack_from(payload)[0] & frames.MOST_WINDOW, U32.unpack_from(payload, U32.size)[0]
        if last < STREAM or code != Code.NO_ERROR:
            why = payload[2 * U32.size :].decode("utf-8", "replace")
            self._end("UNAVAILABLE", f"the server ended the connection with code {code}: {why}")

    def _promised(self, _flags: int, _: int, _payload: bytes) -> NoReturn:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "it promises an answer that was not asked for")
