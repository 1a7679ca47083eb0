# ruff: noqa: ANN401 - messages of OTLP, which ship no types
"""Spans that reach a receiver of OTLP, sent by the real server; without an endpoint nothing of it is imported."""

from __future__ import annotations

import asyncio
import gzip
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from tests.raw_stream import RawStream, close, open_, steps
from tests.running_server import PATIENCE
from tidegate.v1 import tidegate_pb2, tidegate_pb2_grpc

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(8).standard_normal((8, 3), dtype=np.float32)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = f"00-{TRACE}-{PARENT}-01"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}  # ms


class Receiver:
    """Takes what is sent to /v1/traces."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        self._news = Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                receiver.take(trace_service.ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: Any) -> None:
        with self._news:
            for resource in request.resource_spans:
                self.resources.append(attributes(resource.resource))
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self._news.notify_all()

    def wait(self, count: int) -> list[Any]:
        """So many spans, waited for."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.spans) >= count, PATIENCE), [s.name for s in self.spans]
            return list(self.spans)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def attributes(thing: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in thing.attributes}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


async def test_a_sequence_and_a_call_have_a_span_each_under_the_clients_and_no_step_has_one(
    start: Callable[..., RunningServer], lstm_only: Path, receiver: Receiver
) -> None:
    server = start(lstm_only, "--otlp-endpoint", receiver.endpoint, "--checkpoint-ms", "10", environment=SOON).ready()
    async with RawStream(server.address, metadata=[("traceparent", TRACED)]) as stream:
        opened = await stream.ask(open_())
        for at in range(8):
            await stream.run(0, at, ROWS[at : at + 1])
        await stream.ask(steps(0, 3, ROWS[:1]))
        await stream.ask(close(0))
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = tidegate_pb2_grpc.TidegateStub(channel)
        await stub.ListModels(tidegate_pb2.ListModelsRequest(), metadata=[("traceparent", TRACED)])
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.DescribeModel(tidegate_pb2.DescribeModelRequest(model="nothing"))
    spans = {span.name: span for span in await asyncio.to_thread(receiver.wait, 3)}
    assert sorted(spans) == ["DescribeModel", "ListModels", "sequence lstm"]
    life = spans["sequence lstm"]
    assert (life.trace_id.hex(), life.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(life) == {
        "tidegate.sequence": opened.sequence_ids[0],
        "tidegate.model": "lstm",
        "tidegate.version": "1",
        "tidegate.owner": attributes(life)["tidegate.owner"],
        "tidegate.steps": 8,
        "tidegate.why": "closed",
    }
    events = [event.name for event in life.events]
    assert events[0] == "opened"
    assert set(events[1:]) <= {"checkpoint"}
    assert spans["ListModels"].trace_id.hex() == TRACE
    refused = spans["DescribeModel"]
    assert refused.parent_span_id == b""
    assert (refused.status.code, attributes(refused)["error.type"]) == (2, "UNKNOWN_MODEL")
    assert receiver.resources[0]["service.name"] == "tidegate"
    server.terminate()
    assert server.wait() == 0
    assert len(receiver.spans) == 3


async def test_what_is_open_when_the_server_stops_has_its_span_too_and_the_variables_of_opentelemetry_do_as_well(
    start: Callable[..., RunningServer], lstm_only: Path, receiver: Receiver
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_SERVICE_NAME": "weather"}
    server = start(lstm_only, "--grace-seconds", "0.1", environment=environment).ready()
    async with RawStream(server.address) as stream:
        await stream.ask(open_(count=2))
        server.terminate()
        assert await asyncio.to_thread(server.wait) == 0
    assert [span.name for span in receiver.spans] == ["sequence lstm"] * 2
    assert receiver.resources[0]["service.name"] == "weather"


async def test_a_client_that_is_not_sampled_has_no_span(
    start: Callable[..., RunningServer], lstm_only: Path, receiver: Receiver
) -> None:
    server = start(lstm_only, "--otlp-endpoint", receiver.endpoint).ready()
    async with RawStream(server.address, metadata=[("traceparent", TRACED[:-1] + "0")]) as stream:
        await stream.ask(open_())
        await stream.ask(close(0))
    async with RawStream(server.address, metadata=[("traceparent", "nonsense")]) as stream:
        await stream.ask(open_())
        await stream.ask(close(0))
    server.terminate()
    assert server.wait() == 0
    assert [span.parent_span_id for span in receiver.spans] == [b""]


async def test_a_receiver_that_is_not_there_holds_nothing_up(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--otlp-endpoint", "http://127.0.0.1:1", environment=SOON).ready()
    async with RawStream(server.address) as stream:
        await stream.ask(open_())
        heard = await stream.run(0, 0, ROWS)
        await stream.ask(close(0))
    assert len(heard) == len(ROWS)
    server.terminate()
    assert server.wait() == 0
