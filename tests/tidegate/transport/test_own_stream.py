"""The stream of the client for asyncio: a connection of its own where that will do, else gRPC's channel."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import numpy as np
import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer, Store, expected
from tidegate.errors import ConnectionLost
from tidegate.http2 import frames
from tidegate.protocol.opening import Order
from tidegate.trace import choose
from tidegate.transport import own_stream
from tidegate.transport.grpc_stream import GrpcStream
from tidegate.transport.own_stream import OwnStream

ROWS = np.random.default_rng(5).normal(size=(40, 2)).astype(np.float32)
AT_ONCE = tidegate.Resuming(first_wait=0.01, longest_wait=0.05)
BY_GRPC = [("grpc.enable_http_proxy", 0)]
PATIENCE = 120  # seconds


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


async def opened(address: str) -> str:
    """Why no sequence can be opened there."""
    client = tidegate.AsyncClient(address, resume_within=0)
    sequence = client.sequence("toy", timeout=PATIENCE)
    with pytest.raises(ConnectionLost) as error:
        await sequence
    await client.close()
    return str(error.value)


@pytest.mark.parametrize(("options", "kind"), [((), OwnStream), (BY_GRPC, GrpcStream)])
async def test_answers_are_the_same_over_both_and_a_lost_stream_is_made_anew(
    options: list[tuple[str, int]], kind: type
) -> None:
    with FakeServer(store=Store()) as server:
        async with tidegate.AsyncClient(server.address, options=options, resuming=AT_ONCE) as client:
            sequences = [await client.sequence("toy") for _ in range(40)]
            connection = sequences[0]._connection
            assert type(connection._stream) is kind
            for at, row in enumerate(ROWS):
                if at == 20:
                    before = connection._stream
                    before.hang_up()
                answers = await asyncio.gather(*(one.step(row) for one in sequences))
                assert {float(answer.output[0]) for answer in answers} == {float(expected(ROWS)[at])}
            assert connection._stream is not before
            many = np.tile(ROWS, (900, 1))  # larger than a window
            assert len((await sequences[0].chunk(many)).output) == len(many)


async def test_credentials_issuers_that_grpc_trusts_and_a_proxy_are_for_grpc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tidegate.AsyncClient("127.0.0.1:1")._endpoint.direct()
    assert place is not None
    assert (place.host, place.port, place.authority) == ("127.0.0.1", 1, "127.0.0.1:1")
    assert tidegate.AsyncClient("unix:/tmp/none")._endpoint.direct() is None
    assert tidegate.AsyncClient("https://127.0.0.1:1")._endpoint.direct() is None, "whom does it trust?"
    assert tidegate.AsyncClient("a:1", credentials=grpc.ssl_channel_credentials())._endpoint.direct() is None
    monkeypatch.setenv("http_proxy", "http://between:1")
    assert tidegate.AsyncClient("10.0.0.1:1")._endpoint.direct() is None


async def test_a_server_that_is_not_there_or_closes_or_speaks_something_else_is_told_as_grpc_tells_it() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(9)
        writer.write(b"220 mail.example ready for anything but HTTP/2\r\n")

    async with listening(close) as address:
        assert f"no Tidegate server answers at {address} (Socket closed" in await opened(address)
    assert "Connection refused" in await opened(address)
    async with listening(greet) as address:
        assert "breaks HTTP/2" in await opened(address)


async def test_a_server_that_gives_no_sign_of_life_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_stream, "_QUIET", 0.05)
    monkeypatch.setattr(own_stream, "_PATIENCE", 0.05)
    heard = bytearray()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            heard.extend(data)

    async with listening(silent) as address:
        assert "no answer to a ping within 0.05 s" in await opened(address)
    assert heard.count(frames.frame(frames.PING, 0, 0, b"tidegate")) == 1


async def test_a_server_that_does_not_read_holds_up_what_is_sent() -> None:
    go_on, all_heard, heard = asyncio.Event(), asyncio.Event(), 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(frames.settings({frames.INITIAL_WINDOW: 2**30}) + frames.credit(0, 2**30))
        await go_on.wait()
        while data := await reader.read(2**20):
            heard += len(data)
            if heard > 200 * 100_000:
                all_heard.set()

    async with listening(slow) as address:
        client = tidegate.AsyncClient(address, resume_within=0)
        connection = client._connected(Order("toy", 0, 1, choose(False)))
        stream = connection._stream
        assert isinstance(stream, OwnStream)
        message = own_stream.pb.StreamRequest()
        message.steps.inputs.add(data=bytes(100_000))
        while not stream._full:
            for _ in range(20):
                stream.put(message)
            await asyncio.sleep(0)
        for _ in range(200):
            stream.put(message)
        await asyncio.sleep(0)
        assert stream._outbox.qsize() > 100, "it has all been made into bytes"
        go_on.set()
        await asyncio.wait_for(all_heard.wait(), PATIENCE)
        await client.close()
