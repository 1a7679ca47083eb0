"""A line of TCP between clients and a server that can be cut at any moment, as when a client's machine dies."""

from __future__ import annotations

import asyncio
from typing import Self


class Line:
    """Carries connections to `address` from a port of its own, until it is cut or its block ends."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._ends: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Breaks every connection at once, within whatever is being sent. Later ones are carried."""
        for end in self._ends:
            end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, on = await asyncio.open_connection(self._host, self._port)
        ends = {writer, on}
        self._ends |= ends
        await asyncio.gather(_pump(reader, on), _pump(back, writer))
        self._ends -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # it was cut
    finally:
        writer.close()
