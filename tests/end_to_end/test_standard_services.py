"""Health and reflection are for everybody: who watches without reading, leaves or asks for nonsense disturbs nobody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
ASKED = health_pb2.HealthCheckRequest()
CALLS = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]


async def test_a_watcher_that_leaves_makes_no_other_deaf(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    server = start(lstm_only).ready()
    async with asyncio.timeout(120), grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        stays, leaves = stub.Watch(ASKED), stub.Watch(ASKED)
        assert (await stays.read()).status == SERVING
        assert (await leaves.read()).status == SERVING
        leaves.cancel()
        assert (await stub.Check(ASKED)).status == SERVING
        server.process.terminate()
        assert (await stays.read()).status == NOT_SERVING


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("message", "why"), [(b"\xff" * 10, "a message came that is no"), (b"\xf8\x7f\x01" * 100_000, "is the limit")]
)
async def test_what_is_no_question_is_refused_without_a_traceback(
    server: RunningServer, call: str, message: bytes, why: str
) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=why):
            await channel.unary_stream(call)(message).read()
    assert "Traceback" not in server.log


async def test_one_address_leaves_watches_for_others(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    server = start(lstm_only, "--max-streams", "4", "--max-share", "50").ready()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = [stub.Watch(ASKED) for _ in range(2)]
        for call in watching:
            assert (await call.read()).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="2 calls that watch are open from your address"):
            await stub.Watch(ASKED).read()
        watching[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching[0].read()
        async with asyncio.timeout(120):
            while True:  # until the server knows that it is gone
                try:
                    assert (await stub.Watch(ASKED).read()).status == SERVING
                    break
                except grpc.aio.AioRpcError:
                    continue
