"""A server in this process, from its start on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.operations import lifecycle
from server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_the_health_of_the_store_is_told_while_models_are_being_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_settle_memory", lambda _: None)
    server = lifecycle.Server(Settings(models=tmp_path, port=0, store="memory:", metrics_port=0))
    said = list[int]()

    async def refresh(*, settled: bool) -> None:
        assert settled
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            request = health_pb2.HealthCheckRequest(service=lifecycle.STORE)
            said.append((await health_pb2_grpc.HealthStub(channel).Check(request)).status)

    monkeypatch.setattr(server._repository, "refresh", refresh)
    await server.start()
    await server.drain()
    await server.stop()
    assert said == [health_pb2.HealthCheckResponse.SERVING]
