"""HTTP/2 by hand: calls whose messages never become whole, as no gRPC client would send them."""

from __future__ import annotations

import asyncio
import struct
from typing import Self

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_HEADERS = 4
WINDOW = 65_535  # bytes that may be sent of a call, and of all, before more are asked for
FRAME = 16_384


class PartialCalls:
    """Calls on one connection, each with all of a message but its last byte, as far as the server takes it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._all = WINDOW
        self._window: dict[int, int] = {}  # by call
        self._left: dict[int, bytes] = {}
        self.sent = 0  # bytes of all messages

    async def __aenter__(self) -> Self:
        host, port = self._address.split(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0))
        self._acknowledged = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen())
        await self._acknowledged
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        self._writer.close()

    def begin(self, path: str, size: int) -> None:
        call = 1 + 2 * len(self._window)
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
        pairs = (*fields.items(), ("content-type", "application/grpc"))
        self._writer.write(_frame(HEADERS, END_HEADERS, call, b"".join(_field(*pair) for pair in pairs)))
        self._window[call] = WINDOW
        self._left[call] = struct.pack(">BI", 0, size) + bytes(size - 1)

    async def send(self) -> int:
        """Sends what the server has room for, and waits for its next answer. How much that was."""
        before = self.sent
        for call in self._left:
            while part := self._left[call][: max(0, min(FRAME, self._window[call], self._all))]:
                self._writer.write(_frame(DATA, 0, call, part))
                self._window[call] -= len(part)
                self._all -= len(part)
                self.sent += len(part)
                self._left[call] = self._left[call][len(part) :]
        self._acknowledged = asyncio.get_running_loop().create_future()
        self._writer.write(_frame(SETTINGS, 0, 0))
        await self._writer.drain()
        await asyncio.wait((self._acknowledged, self._listening), return_when=asyncio.FIRST_COMPLETED)
        assert not self._listening.done(), "the server has closed the connection"
        return self.sent - before

    async def _listen(self) -> None:
        while True:
            head = await self._reader.readexactly(9)
            kind, flags, call = head[3], head[4], int.from_bytes(head[5:], "big")
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            if kind == WINDOW_UPDATE and call:
                self._window[call] += int.from_bytes(payload, "big")
            elif kind == WINDOW_UPDATE:
                self._all += int.from_bytes(payload, "big")
            elif kind == SETTINGS and flags:
                self._acknowledged.set_result(None)
            elif kind in (SETTINGS, PING) and not flags:
                self._writer.write(_frame(kind, 1, 0, payload if kind == PING else b""))


def _frame(kind: int, flags: int, call: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + call.to_bytes(4, "big") + payload


def _field(name: str, value: str) -> bytes:
    """Of HPACK: a literal that is in no table."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
