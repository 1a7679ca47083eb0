"""The streams of both clients: over a connection of their own where that will do, else over gRPC's channel."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import AT_ONCE, FakeServer, Store, expected
from tidegate.errors import ConnectionLost
from tidegate.http2 import client_call, frames
from tidegate.protocol.opening import Order
from tidegate.trace import choose
from tidegate.transport import stream_call
from tidegate.transport.endpoint import Place
from tidegate.transport.grpc_stream import GrpcStream, GrpcThreadStream
from tidegate.transport.own_stream import OwnStream
from tidegate.transport.socket_stream import SocketStream
from tidegate.v1 import sequence_pb2

ROWS = np.random.default_rng(5).normal(size=(40, 2)).astype(np.float32)
BY_GRPC = [("grpc.enable_http_proxy", 0)]
PATIENCE = 120  # seconds
SMALL = 2**19  # bytes of the client's window, which is 2**22: its answers need not be so many
MESSAGE = sequence_pb2.StreamRequest(steps=sequence_pb2.Steps(inputs=[{"data": bytes(100_000)}]))

BOTH = pytest.mark.parametrize("kind", [tidegate.AsyncClient, tidegate.Client])


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[str]:
    """The address of a server that does as told with each connection."""
    ends = list[asyncio.Future[None]]()

    async def with_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(end := asyncio.get_running_loop().create_future())
        with suppress(ConnectionError):
            await serve(reader, writer)
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        end.set_result(None)

    server = await asyncio.start_server(with_each, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*ends)


async def opened(kind: type, address: str) -> str:
    """Why no sequence can be opened there."""
    client = kind(address, resume_within=0)
    threads = kind is tidegate.Client
    opening = asyncio.to_thread(client.sequence, "toy", timeout=PATIENCE) if threads else client.sequence("toy")
    with pytest.raises(ConnectionLost) as error:
        await opening
    await (asyncio.to_thread(client.close) if threads else client.close())
    return str(error.value)


@pytest.mark.parametrize(("options", "kind"), [((), OwnStream), (BY_GRPC, GrpcStream)])
async def test_answers_are_the_same_over_both_and_a_lost_stream_is_made_anew(
    options: list[tuple[str, int]], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_call, "WINDOW", SMALL)
    with FakeServer(store=Store()) as server:
        async with tidegate.AsyncClient(server.address, options=options, resuming=AT_ONCE) as client:
            sequences = [await client.sequence("toy") for _ in range(12)]
            connection = sequences[0]._connection
            assert type(connection._stream) is kind
            for at, row in enumerate(ROWS):
                if at == 20:
                    before = connection._stream
                    before.hang_up()
                answers = await asyncio.gather(*(one.step(row) for one in sequences))
                assert {float(answer.output[0]) for answer in answers} == {float(expected(ROWS)[at])}
            assert connection._stream is not before
            many = np.tile(ROWS, (250, 1))  # larger than a window, and the answers than the client's
            assert len((await sequences[0].chunk(many)).output) == len(many)


@pytest.mark.parametrize(("options", "kind"), [((), SocketStream), (BY_GRPC, GrpcThreadStream)])
def test_with_threads_likewise(options: list[tuple[str, int]], kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_call, "WINDOW", SMALL)
    with (
        FakeServer(store=Store()) as server,
        tidegate.connect(server.address, options=options, resuming=AT_ONCE) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        sequences = [client.sequence("toy") for _ in range(12)]
        connection = sequences[0]._connection
        assert type(connection._stream) is kind
        for at, row in enumerate(ROWS):
            if at == 20:
                before = connection._stream
                with connection._lock:
                    before.hang_up()
            answers = pool.map(lambda one, row=row: one.step(row), sequences)
            assert {float(answer.output[0]) for answer in answers} == {float(expected(ROWS)[at])}
        assert connection._stream is not before
        many = np.tile(ROWS, (250, 1))  # larger than a window, and the answers than the client's
        assert len(sequences[0].chunk(many).output) == len(many)


@BOTH
def test_options_credentials_issuers_that_grpc_trusts_and_a_proxy_are_for_grpc(
    monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    place = kind("127.0.0.1:1")._endpoint.direct()
    assert place is not None
    assert (place.host, place.port, place.authority) == ("127.0.0.1", 1, "127.0.0.1:1")
    assert kind("127.0.0.1:1", options=iter(BY_GRPC))._endpoint.direct() is None
    assert kind("unix:/tmp/none")._endpoint.direct() is None
    assert kind("https://127.0.0.1:1")._endpoint.direct() is None, "whom does it trust?"
    assert kind("a:1", credentials=grpc.ssl_channel_credentials())._endpoint.direct() is None
    monkeypatch.setenv("http_proxy", "http://between:1")
    assert kind("10.0.0.1:1")._endpoint.direct() is None


@BOTH
async def test_a_server_that_is_not_there_or_closes_or_speaks_something_else_is_told_as_grpc_tells_it(
    kind: type,
) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(9)
        writer.write(b"220 mail.example ready for anything but HTTP/2\r\n")

    async with listening(close) as address:
        assert f"no Tidegate server answers at {address} (Socket closed" in await opened(kind, address)
    assert "Connection refused" in await opened(kind, address)
    async with listening(greet) as address:
        assert "breaks HTTP/2" in await opened(kind, address)


@BOTH
async def test_a_server_that_gives_no_sign_of_life_is_lost(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    monkeypatch.setattr(stream_call, "_QUIET", 0.05)
    monkeypatch.setattr(stream_call, "_PATIENCE", 0.05)
    heard = bytearray()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            heard.extend(data)

    async with listening(silent) as address:
        assert "no answer to a ping within 0.05 s" in await opened(kind, address)
    assert heard.count(frames.frame(frames.PING, 0, 0, b"tidegate")) == 1


class Slow:
    """A server that gives room for all, and reads nothing until it is told to."""

    def __init__(self) -> None:
        self.go_on, self.all_heard = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = 0
        writer.write(frames.settings({frames.INITIAL_WINDOW: 2**30}) + frames.credit(0, 2**30))
        await self.go_on.wait()
        while data := await reader.read(2**20):
            heard += len(data)
            if heard > 200 * 100_000:
                self.all_heard.set()


class Kept(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return True


async def test_a_request_alone_is_written_at_once_and_several_once_a_turn() -> None:
    stream, transport = OwnStream(Place("host", 1, "host:1", None), (), lambda: 0), Kept()
    stream.connection_made(transport)
    writes = transport.writes

    async def put(count: int) -> tuple[int, int]:
        """How many writes so many requests make at once, and in all."""
        before = len(writes)
        for _ in range(count):
            stream.put(sequence_pb2.StreamRequest(close=sequence_pb2.Close(handle=1)))
        at_once = len(writes) - before
        await asyncio.sleep(0)
        return at_once, len(writes) - before

    assert await put(3) == (0, 1)
    stream.data_received(frames.frame(frames.PING, frames.ACK, 0, b"tidegate"))
    assert await put(1) == (0, 1)
    stream.data_received(frames.frame(frames.PING, frames.ACK, 0, b"tidegate"))
    assert await put(1) == (1, 1)
    assert await put(1) == (0, 1)
    stream.data_received(frames.frame(frames.PING, frames.ACK, 0, b"tidegate"))
    assert await put(stream_call.AT_ONCE + 3) == (1, 2)
    stream.connection_lost(None)


async def test_a_server_that_does_not_read_holds_up_what_is_sent() -> None:
    slow = Slow()
    async with listening(slow.serve) as address:
        client = tidegate.AsyncClient(address, resume_within=0)
        stream = client._connected(Order("toy", 0, 1, choose(False)))._stream
        assert isinstance(stream, OwnStream)
        while not stream._full:
            for _ in range(20):
                stream.put(MESSAGE)
            await asyncio.sleep(0)
        for _ in range(200):
            stream.put(MESSAGE)
        await asyncio.sleep(0)
        assert stream._call.waiting() > 100, "it has all been made into bytes"
        slow.go_on.set()
        await asyncio.wait_for(slow.all_heard.wait(), PATIENCE)
        await client.close()


async def test_a_server_that_does_not_read_holds_up_no_thread() -> None:
    slow = Slow()
    async with listening(slow.serve) as address:
        client = tidegate.Client(address, resume_within=0)
        connection = client._connected(Order("toy", 0, 1, choose(False)))
        stream = connection._stream
        assert isinstance(stream, SocketStream)

        def put(times: int) -> None:
            with connection._lock:
                stream.put(*[MESSAGE] * times)

        while not stream._full:
            await asyncio.to_thread(put, 20)
        await asyncio.to_thread(put, 200)
        assert stream._call.waiting() > 100, "it has all been made into bytes"
        slow.go_on.set()
        await asyncio.wait_for(slow.all_heard.wait(), PATIENCE)
        await asyncio.to_thread(client.close)


def test_a_client_that_is_closed_while_a_step_waits_lets_its_thread_and_its_socket_go() -> None:
    with FakeServer() as server:
        client = tidegate.connect(server.address)
        sequence = client.sequence("toy")
        connection = sequence._connection
        server.behaviour.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(sequence.step, ROWS[0])
            while not connection._waiting:
                pass
            client.close()
            with pytest.raises(ConnectionLost, match="this client was closed"):
                waiting.result(PATIENCE)
        server.behaviour.gate.set()
        connection._reader.join(PATIENCE)
        assert not connection._reader.is_alive()
        assert connection._stream._socket is None


def test_what_is_written_half_when_it_is_interrupted_is_lost_with_its_stream() -> None:
    class Cut:
        """A socket during whose first write Ctrl-C comes."""

        def __init__(self, wrapped: socket.socket) -> None:
            self._wrapped = wrapped

        def send(self, data: bytes) -> int:
            connection._stream._socket = self._wrapped
            self._wrapped.send(data[:30])
            raise KeyboardInterrupt

    with FakeServer(store=Store()) as server, tidegate.connect(server.address, resuming=AT_ONCE) as client:
        with client.sequence("toy") as sequence:
            sequence.step(ROWS[0])
            connection = sequence._connection
            connection._stream._socket = Cut(connection._stream._socket)
            with pytest.raises(KeyboardInterrupt):
                sequence.step(ROWS[1])
            taken = [*ROWS[: sequence.next_step], ROWS[2]]
            answer = sequence.step(ROWS[2], timeout=PATIENCE)
        assert answer.output[0] == expected(np.array(taken))[-1]
        assert server.servicer.streams == 2
