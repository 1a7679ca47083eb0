"""The header fields of a call of gRPC: those of a request are written, those of its answer read.

Sources: RFC 9113, section 8; gRPC's PROTOCOL-HTTP2.md.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

Metadata = tuple[tuple[str, str | bytes], ...]

_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_OF_HTTP = {  # where no status of gRPC came: gRPC's http-grpc-status-mapping.md
    "400": "INTERNAL",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED",
    "429": "UNAVAILABLE",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}
_OWN = ("grpc-status", "grpc-message", "content-type")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended: the name of a status of gRPC, a sentence, and the fields that came with it."""

    status: str
    details: str
    metadata: Metadata = ()


def request(
    path: str, authority: str, metadata: Iterable[tuple[str, str | bytes]], secure: bool
) -> list[tuple[str, str]]:
    """The fields with which a call begins; `metadata` has bytes where a name ends in -bin."""
    return [
        (":method", "POST"),
        (":scheme", "https" if secure else "http"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "tidegate"),
        *((name, value if isinstance(value, str) else base64.b64encode(value).decode()) for name, value in metadata),
    ]


def ended(fields: Mapping[str, str]) -> Ended:
    """What the fields say with which the answer ended."""
    if (code := fields.get("grpc-status")) is not None:
        name = _CODES[int(code)] if code.isdecimal() and int(code) < len(_CODES) else "UNKNOWN"
        return Ended(name, unquote(fields.get("grpc-message", ""), errors="replace"), _metadata(fields))
    status = fields.get(":status", "none")
    why = "the answer has no status of gRPC" if status == "200" else f"the answer has the HTTP status {status}"
    return Ended(_OF_HTTP.get(status, "UNKNOWN"), why, _metadata(fields))


def _metadata(fields: Mapping[str, str]) -> Metadata:
    others = {name: value for name, value in fields.items() if not name.startswith(":") and name not in _OWN}
    made = list[tuple[str, str | bytes]]()
    for name, value in others.items():
        try:
            made.append((name, _bytes(value) if name.endswith("-bin") else value))
        except binascii.Error:
            continue  # the text of no bytes
    return tuple(made)


def _bytes(value: str) -> bytes:
    return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
