"""Frames of HTTP/2: their headers, kinds, flags, settings and codes of errors (RFC 9113, sections 4 to 7)."""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">BHBBI")  # the length's upper 8 and lower 16 bits, kind, flags, stream
HEAD_AND_PREFIX = struct.Struct(">BHBBIBI")  # a frame's header and the prefix of the message of gRPC that begins in it
U32 = struct.Struct(">I")
SETTING = struct.Struct(">HI")
FRAME_SIZE = 16_384  # the most bytes of a frame until a peer allows more; this side never does
WINDOW = 65_535  # bytes that may be sent until a peer allows more
MOST_WINDOW = 2**31 - 1

# kinds
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# flags
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
WITH_PRIORITY = 32
# settings
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADER_LIST = range(1, 7)


class Code(IntEnum):
    """Why a stream or a connection ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The peer broke a rule of the connection, which ends: with a code, and a sentence for the peer's log."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def reset(stream: int, code: Code) -> bytes:
    return frame(RST_STREAM, 0, stream, U32.pack(code))


def credit(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE: the peer may send `size` bytes more; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, U32.pack(size))


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values.items()))


def go_away(last: int, code: Code, why: str = "") -> bytes:
    """The end of a connection: streams above `last` were not looked at."""
    return frame(GOAWAY, 0, 0, U32.pack(last) + U32.pack(code) + why.encode()[:256])


def header_frames(stream: int, block: bytes, flags: int, most: int) -> bytes:
    """A block of header fields, in as many frames as it needs."""
    kind, pieces = HEADERS, []
    for start in range(0, len(block), most):
        piece = block[start : start + most]
        last = END_HEADERS if start + len(piece) == len(block) else 0
        pieces.append(frame(kind, flags | last, stream, piece))
        kind, flags = CONTINUATION, 0
    return b"".join(pieces)


def unpadded(flags: int, payload: bytes) -> bytes:
    """A payload without its padding."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a frame has more padding than bytes")
    return payload[1 : len(payload) - payload[0]]
