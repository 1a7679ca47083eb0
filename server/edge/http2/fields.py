"""Header fields of a call: those of a request are read and checked, those of an answer written.

Sources: RFC 9113, section 8; RFC 7541; gRPC's PROTOCOL-HTTP2.md.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

Fields = Iterable[tuple[bytes, bytes]]
Metadata = tuple[tuple[str, str | bytes], ...]

_SECONDS = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PSEUDO = {b":method", b":scheme", b":path", b":authority"}
_OF_CONNECTIONS = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_BAD_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z").search
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])").fullmatch
_OWN = {"te", "content-type", "user-agent", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "content-length"}
_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")  # in a grpc-message


class Malformed(Exception):
    """The fields are none of a request: the stream ends, its connection goes on."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the fields at the beginning of a call say."""

    path: str
    # seconds until the client gives up; None: never
    timeout: float | None
    # how messages are compressed that say that they are
    encoding: str
    # whether it is a call of gRPC at all
    is_grpc: bool
    metadata: Metadata


def request(fields: Fields) -> Request:
    """Raises Malformed: by HTTP/2's rules or gRPC's."""
    pseudo: dict[bytes, bytes] = {}
    regular: list[tuple[str, str]] = []
    for name, value in fields:
        if _BAD_VALUE(value):
            raise Malformed(f"the field {name[:64]!r} has a value that no field may have")
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO:
                raise Malformed(f"the field {name[:64]!r} comes late, twice, or in a request at all")
            pseudo[name] = value
        elif not _NAME(name) or name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            raise Malformed(f"the field {name[:64]!r} may not be in a request")
        else:
            regular.append((name.decode(), value.decode("latin-1")))
    if not pseudo.keys() >= {b":method", b":scheme", b":path"} or not pseudo[b":path"].startswith(b"/"):
        raise Malformed("a request has no method, scheme or path")
    own = {name: value for name, value in regular if name in _OWN}
    return Request(
        path=pseudo[b":path"].decode("latin-1"),
        timeout=_timeout(own.get("grpc-timeout")),
        encoding=own.get("grpc-encoding", "identity"),
        is_grpc=pseudo[b":method"] == b"POST" and own.get("content-type", "").startswith("application/grpc"),
        metadata=tuple((name, _value(name, value)) for name, value in regular if name not in _OWN),
    )


def _timeout(text: str | None) -> float | None:
    if text is None:
        return None
    if (found := _TIMEOUT(text)) is None:
        raise Malformed(f"the grpc-timeout {text[:64]!r} is none; expected up to 8 digits and one of HMSmun")
    return int(found[1]) * _SECONDS[found[2]]


def _value(name: str, text: str) -> str | bytes:
    if not name.endswith("-bin"):
        return text
    try:  # several values may be joined by commas; the first is taken
        first = text.partition(",")[0]
        return base64.b64decode(first + "=" * (-len(first) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"the field {name[:64]!r} is not base64") from None


# Written --------------------------------------------------------------------------------------------------------------


def literal(name: bytes, value: bytes) -> bytes:
    """A field that is not kept in the peer's table, so that a connection's writer keeps no table either."""
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    length, size = bytearray((127,)), size - 127
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + text


_NO_TABLE = b"\x20"  # its size is 0: a client that asks for less than the usual size must be told one first
RESPONSE = _NO_TABLE + b"\x88" + literal(b"content-type", b"application/grpc")  # 0x88: ":status: 200" by its number
NOT_GRPC = _NO_TABLE + literal(b":status", b"415")


def trailers(status: int, details: str, metadata: Metadata) -> bytes:
    """The fields at the end of a call."""
    block = [literal(b"grpc-status", b"%d" % status)]
    if details:
        block.append(literal(b"grpc-message", quote_from_bytes(details.encode(errors="replace"), safe=_SAFE).encode()))
    for name, value in metadata:
        data = base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode("latin-1", "replace")
        block.append(literal(name.encode("latin-1", "replace").lower(), data))
    return b"".join(block)
