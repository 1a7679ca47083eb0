"""Compressed messages: in a thread of their own, and nothing of one that is too large is kept."""

from __future__ import annotations

import asyncio
import gzip
import threading

import grpc
import pytest

from server.edge.http2 import compression
from server.edge.http2.compression import Unreadable, decompressed
from tests.server.edge.http2.test_server import connected


async def test_others_are_answered_while_a_message_is_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(data: bytes, encoding: str, most: int) -> bytes | Unreadable:
        begun.set()
        assert go_on.wait(120)
        return decompressed(data, encoding, most)

    monkeypatch.setattr(compression, "decompressed", slowly)
    async with connected() as (channel, _, _server):
        call = channel.stream_stream("/t.T/Echo")(compression=grpc.Compression.Gzip)
        await call.write(bytes(5_000))
        answer = asyncio.ensure_future(call.read())
        assert await asyncio.to_thread(begun.wait, 30)
        assert await channel.unary_unary("/t.T/Say")(b"meanwhile")
        assert not answer.done()
        go_on.set()
        assert await answer == bytes(5_000)


def test_a_message_that_is_too_large_is_refused_without_being_decompressed_further() -> None:
    refused = decompressed(gzip.compress(bytes(100_000)), "gzip", 50_000)
    assert isinstance(refused, Unreadable)
    assert refused.too_large
    assert "more than 50000 bytes" in refused.why
    assert decompressed(gzip.compress(bytes(50_000)), "gzip", 50_000) == bytes(50_000)
