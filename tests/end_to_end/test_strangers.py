"""Who connects and says nothing, or what no client of ours would say, takes nobody's place for long."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from bench.processes.child import free_port
from tests.raw_http2 import WINDOW, PartialCalls
from tests.raw_stream import NO_TRACE, RawStream, open_, steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

ROW = np.zeros((1, 3), np.float32)
MANY = 400  # connections, of a server that has descriptors for half of them
LIMIT = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, [400] * 2); os.execv(sys.argv[1], sys.argv[1:])"
FEW = (sys.executable, "-c", LIMIT)


async def test_who_says_nothing_is_shown_out_and_who_has_spoken_stays(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    metrics = free_port()
    server = start(lstm_only, "--silent-seconds", "3", "--metrics-port", str(metrics)).ready()
    async with RawStream(server.address) as speaking, RawStream(server.address) as silent:
        await speaking.ask(open_(0, trace=NO_TRACE))
        host, port = server.address.split(":")
        await asyncio.gather(closed(host, int(port)), closed(host, metrics))
        with pytest.raises(grpc.aio.AioRpcError, match="nothing was said") as shown_out:
            await silent.hear()
        assert shown_out.value.code() == grpc.StatusCode.UNAVAILABLE  # whoever was only slow comes back
        assert (await speaking.ask(steps(0, 0, ROW))).first_step == 0
    with urlopen(f"http://{host}:{metrics}/metrics", timeout=120) as page:  # noqa: ASYNC210
        assert b"tidegate_streams_open" in page.read()


async def closed(host: str, port: int) -> None:
    """Connects, says nothing, and waits until the connection is closed."""
    reader, writer = await asyncio.open_connection(host, port)
    async with asyncio.timeout(120):
        while await reader.read(1_000):
            pass
    writer.close()


async def test_a_compressed_message_is_refused_before_it_is_large(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        predict = channel.unary_unary("/tidegate.v1.Tidegate/Predict")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await predict(bytes(10_000_000), compression=grpc.Compression.Gzip)
        words = {  # grpcio's transport reads none, and ours none that is too large
            "'gzip' is disabled": grpc.StatusCode.UNIMPLEMENTED,
            "is the limit": grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        assert [code for said, code in words.items() if said in str(refused.value)] == [refused.value.code()]


@pytest.mark.parametrize("call", ["Predict", "ListModels", "DescribeModel"])
async def test_a_call_that_means_nothing_is_refused_without_a_traceback(server: RunningServer, call: str) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="a message came that is no") as refused:
            await channel.unary_unary(f"/tidegate.v1.Tidegate/{call}")(b"\xff" * 10)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in server.log


async def test_one_address_leaves_streams_for_others(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    server = start(lstm_only, "--max-streams", "4", "--max-share", "50").ready()
    async with RawStream(server.address) as one, RawStream(server.address) as two:
        await one.ask(open_())
        await two.ask(open_())
        async with RawStream(server.address) as third:
            with pytest.raises(grpc.aio.AioRpcError, match="2 streams are open from your address"):
                await third.hear()


async def test_streams_that_are_opened_and_reset_without_end_take_nobodys_place(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--max-streams", "8", "--max-share", "50").ready()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stream = channel.stream_stream("/tidegate.v1.Tidegate/Stream", None, None)
        for _ in range(100):
            call = stream()
            with suppress(grpc.aio.AioRpcError):  # those before it have not all left
                await call.write(open_(0, trace=NO_TRACE).SerializeToString())
            call.cancel()
    async with asyncio.timeout(120):
        while not await opens(server.address):  # until the last of them has left
            pass
    assert "Traceback" not in server.log


async def opens(address: str) -> bool:
    """Whether four streams of one address find a place."""
    async with AsyncExitStack() as stack:
        with suppress(grpc.aio.AioRpcError):
            for _ in range(4):
                await (await stack.enter_async_context(RawStream(address))).ask(open_(0, trace=NO_TRACE))
            return True
    return False


async def test_messages_that_never_become_whole_take_no_more_memory_than_their_address_may_have(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    size = 2**20
    server = start(lstm_only, "--max-message-mib", "1", "--address-mib", "8").ready()  # two large ones at a time
    for call in ("tidegate.v1.Tidegate/Predict", "grpc.health.v1.Health/Check"):
        async with PartialCalls(server.address) as calls:
            for _ in range(20):
                calls.begin(f"/{call}", size)
            quiet = 0
            while quiet < 20:
                quiet = 0 if await calls.send() else quiet + 1
            assert calls.sent < 2 * size + 20 * (WINDOW + 16), call
            async with RawStream(server.address) as stream:
                await stream.ask(open_(0, trace=NO_TRACE))
                await stream.ask(steps(0, 0, ROW))


async def test_calls_whose_messages_never_come_keep_no_small_call_of_their_address_waiting(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--silent-seconds", "60").ready()
    check = "/grpc.health.v1.Health/Check"
    async with PartialCalls(server.address) as calls, grpc.aio.insecure_channel(server.address) as channel:
        for size in (100, 2**20):
            for _ in range(20):  # 16 large messages of an address may come at a time
                calls.begin(check, size)
            while await calls.send():
                pass
            assert await channel.unary_unary(check)(b"", timeout=30) == b"\x08\x01"


async def test_a_server_short_of_descriptors_goes_on_with_those_it_has_and_says_why_it_refuses_others(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, prefix=FEW).ready()
    host, port = server.address.split(":")
    async with RawStream(server.address) as stream:
        await stream.ask(open_(0, trace=NO_TRACE))
        strangers = [socket.create_connection((host, int(port))) for _ in range(MANY)]
        server.line("descriptors are in use")
        await stream.ask(steps(0, 0, ROW))
        for stranger in strangers:
            stranger.close()
        await stream.ask(steps(0, 1, ROW))
