"""Blocks of header fields: gathered from a HEADERS frame and its continuations, and decoded (RFC 9113, section 4.3)."""

from dataclasses import dataclass

import hpack

from server.edge.http2.limits import Limits
from tidegate.http2 import frames
from tidegate.http2.frames import END_HEADERS, END_STREAM, MOST_WINDOW, U32, Code, ConnectionFault

_LARGE = 2_048  # bytes of a block that take as long to decode as it takes to begin a call


class _Entries(list[tuple[bytes, bytes]]):
    """What hpack uses a deque for: the fields of its table, 128 at most, the newest first."""

    __slots__ = ()

    def appendleft(self, entry: tuple[bytes, bytes]) -> None:
        self.insert(0, entry)


@dataclass(frozen=True, slots=True)
class Block:
    """The fields that came for a stream."""

    number: int  # of the stream
    ends: bool  # the client sends nothing further on it
    fields: list[tuple[bytes, bytes]]


class Blocks:
    """Of one connection: blocks share a table, so each is decoded, also that of a stream that is refused."""

    def __init__(self, limits: Limits) -> None:
        self.left: float = 0  # blocks that may be taken now, a large one counted as several
        self._limits = limits
        self._decoder = hpack.Decoder(max_header_list_size=limits.header_list)
        self._decoder.header_table.dynamic_entries = _Entries()  # type: ignore[assignment] # a deque takes 700 bytes more
        self.unfinished = 0  # the stream whose block is not whole, after which nothing may come but its continuation
        self._ends = False
        self._data = bytearray()
        self._fragments = 0

    def begin(self, flags: int, number: int, payload: bytes) -> Block | None:
        """A HEADERS frame. None: continuations are to come."""
        if not number & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a client's stream has an odd number, not {number}")
        payload = frames.unpadded(flags, payload)
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5 or U32.unpack_from(payload)[0] & MOST_WINDOW == number:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a priority is cut, or a stream depends on itself")
            payload = payload[5:]
        self.unfinished, self._ends = number, bool(flags & END_STREAM)
        self._data, self._fragments = bytearray(payload), 0
        return self._whole() if flags & END_HEADERS else None

    def go_on(self, flags: int, number: int, payload: bytes) -> Block | None:
        """A CONTINUATION frame."""
        if not self.unfinished or number != self.unfinished:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a continuation of another block, or of one that is whole")
        self._fragments += 1
        self._data += payload
        if self._fragments > self._limits.continuations or len(self._data) > self._limits.header_block:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a block of header fields is too large")
        return self._whole() if flags & END_HEADERS else None

    def _whole(self) -> Block:
        number, self.unfinished = self.unfinished, 0
        try:
            found = self._decoder.decode(bytes(self._data), raw=True)
        except hpack.HPACKError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "header fields cannot be decoded") from error
        self.left -= 1 + len(self._data) // _LARGE
        self._data = bytearray()
        return Block(number, self._ends, [(bytes(name), bytes(value)) for name, value in found])
