"""HTTP/2 by hand: calls whose messages never become whole, as no gRPC client would send them."""

from __future__ import annotations

import asyncio
import struct
from typing import Self

from bench.attacks.frames import CREDIT, DATA, PING, PREFACE, SETTINGS, frame
from bench.attacks.frames import call as begun

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
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0))
        self._acknowledged = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen())
        await self._acknowledged
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        self._writer.close()

    def begin(self, path: str, size: int) -> None:
        call = 1 + 2 * len(self._window)
        self._writer.write(begun(call, path=path))
        self._window[call] = WINDOW
        self._left[call] = struct.pack(">BI", 0, size) + bytes(size - 1)

    async def send(self) -> int:
        """Sends what the server has room for, and waits for its next answer. How much that was."""
        before = self.sent
        for call in self._left:
            while part := self._left[call][: max(0, min(FRAME, self._window[call], self._all))]:
                self._writer.write(frame(DATA, 0, call, part))
                self._window[call] -= len(part)
                self._all -= len(part)
                self.sent += len(part)
                self._left[call] = self._left[call][len(part) :]
        self._acknowledged = asyncio.get_running_loop().create_future()
        self._writer.write(frame(SETTINGS, 0, 0))
        await self._writer.drain()
        await asyncio.wait((self._acknowledged, self._listening), return_when=asyncio.FIRST_COMPLETED)
        assert not self._listening.done(), "the server has closed the connection"
        return self.sent - before

    async def _listen(self) -> None:
        while True:
            head = await self._reader.readexactly(9)
            kind, flags, call = head[3], head[4], int.from_bytes(head[5:], "big")
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            if kind == CREDIT and call:
                self._window[call] += int.from_bytes(payload, "big")
            elif kind == CREDIT:
                self._all += int.from_bytes(payload, "big")
            elif kind == SETTINGS and flags:
                self._acknowledged.set_result(None)
            elif kind in (SETTINGS, PING) and not flags:
                self._writer.write(frame(kind, 1, 0, payload if kind == PING else b""))
