"""Frames that carry no data and no header fields: their payloads are checked and read (RFC 9113, section 6)."""

from collections.abc import Iterator

from tidegate.http2 import frames
from tidegate.http2.frames import ACK, FRAME_SIZE, MOST_WINDOW, SETTING, U32, Code, ConnectionFault


def window_update(payload: bytes) -> int:
    """How many bytes more may be sent; 0 is no credit, which is the fault of the stream or connection it is for."""
    if len(payload) != U32.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a WINDOW_UPDATE has another size than 4 bytes")
    return int(U32.unpack(payload)[0]) & MOST_WINDOW


def settings(flags: int, number: int, payload: bytes, most: int) -> Iterator[tuple[int, int]]:
    """The settings of the client, each with a value that it may have."""
    if number:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "settings are of a stream")
    if len(payload) % SETTING.size or (flags & ACK and payload):
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "settings are cut")
    if len(payload) > SETTING.size * most:
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many settings in one frame")
    for key, value in SETTING.iter_unpack(payload):
        if key == frames.INITIAL_WINDOW and value > MOST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"a window of {value} bytes; at most {MOST_WINDOW} may be")
        if key == frames.MAX_FRAME and not FRAME_SIZE <= value < 2**24:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"frames of {value} bytes; expected 16,384 to 16,777,215")
        if key == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}; expected 0 or 1")
        yield key, value


def check_ping(number: int, payload: bytes) -> None:
    if number:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a ping is of a stream")
    if len(payload) != 8:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a ping has another size than 8 bytes")


def check_reset(number: int, payload: bytes, last: int) -> None:
    if len(payload) != U32.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a RST_STREAM has another size than 4 bytes")
    if not number or number > last:
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"stream {number}, which has not begun, is reset")


def check_priority(number: int, payload: bytes) -> None:
    if not number:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a priority is of no stream")
    if len(payload) != 5:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a PRIORITY has another size than 5 bytes")
    if U32.unpack_from(payload)[0] & MOST_WINDOW == number:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream depends on itself")


def check_go_away(number: int, payload: bytes) -> None:
    if number:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a GOAWAY is of a stream")
    if len(payload) < 8:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a GOAWAY has less than 8 bytes")
