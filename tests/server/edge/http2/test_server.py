"""The server on a socket, against grpcio's clients and against clients that do not behave."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import grpc
import numpy as np
import pytest

from server.edge.http2.connection import Connection
from server.edge.http2.limits import Limits
from server.edge.http2.server import Http2Server, Options
from server.edge.http2.sockets import Socket
from server.edge.http2.timers import Timers
from server.edge.pieces import Numbers, Pieces
from tests.server.edge.http2.wired import message
from tidegate.http2 import frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NUMBERS = np.arange(2**22, dtype="<f8")  # 32 MiB
QUICK = {"silent_seconds": 0.2, "keepalive_seconds": 0.1, "ping_seconds": 0.1}
_LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Service:
    """What a handler may do."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

    async def echo(self, _: object, call: Any) -> None:  # noqa: ANN401
        call.add_done_callback(lambda _: self._end("echo"))
        self.begun.set()
        while (data := await call.read()) is not grpc.aio.EOF:
            await call.write(data)

    async def twice(self, requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for data in requests:
            yield data + data

    async def say(self, data: bytes, call: Any) -> bytes:  # noqa: ANN401
        return data + repr(sorted(call.invocation_metadata())).encode()

    async def fail(self, _: bytes, call: Any) -> bytes:  # noqa: ANN401
        await call.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: ü 100%", (("why", "rain"), ("b-bin", b"\0")))
        raise AssertionError

    async def fault(self, _: bytes, __: object) -> bytes:
        raise ZeroDivisionError("a secret")

    async def wait(self, _: object, call: Any) -> None:  # noqa: ANN401
        call.add_done_callback(lambda _: self._end("wait"))
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append("cancelled")

    async def much(self, _: object, call: Any) -> None:  # noqa: ANN401
        call.add_done_callback(lambda _: self._end("much"))
        while True:
            await call.write(bytes(1_000_000))

    async def all(self, _: object, call: Any) -> None:  # noqa: ANN401
        await call.read()
        for _ in range(3):
            call.send(bytes(300_000))
        self.begun.set()

    async def large(self, data: bytes, _: object) -> Pieces:
        return Pieces([data, Numbers(NUMBERS)], len(data) + NUMBERS.nbytes)

    def _end(self, name: str) -> None:
        self.ended.append(name)
        self.over.set()

    def handlers(self) -> grpc.GenericRpcHandler:
        stream, unary = grpc.stream_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
        methods: dict[str, Any] = {
            "Echo": stream(self.echo),
            "Twice": stream(self.twice),
            "Wait": stream(self.wait),
            "Much": stream(self.much),
            "All": stream(self.all),
            "Say": unary(self.say),
            "Large": unary(self.large, response_serializer=bytes),
            "Fail": unary(self.fail),
            "Fault": unary(self.fault),
        }
        return grpc.method_handlers_generic_handler("t.T", methods)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[str, Service, Http2Server]]:  # noqa: ANN401
    server, service = Http2Server(Options(**options)), Service()
    server.add_generic_rpc_handlers((service.handlers(),))
    port = server.bind("127.0.0.1", 0)
    await server.start()
    try:
        yield f"127.0.0.1:{port}", service, server
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[grpc.aio.Channel, Service, Http2Server]]:  # noqa: ANN401
    async with serving(**options) as served, grpc.aio.insecure_channel(served[0], options=_LARGE) as channel:
        yield channel, *served[1:]


async def test_all_kinds_of_calls_are_answered() -> None:
    async with connected() as (channel, _, _server):
        assert (await channel.unary_unary("/t.T/Say")(b"x", metadata=(("a", "b"), ("c-bin", b"\0\1")))).startswith(
            b"x[('a', 'b'), ('c-bin', b'\\x00\\x01')]"
        )
        call = channel.stream_stream("/t.T/Echo")()
        for data in (b"", b"a", b"b" * 100_000):
            await call.write(data)
            assert await call.read() == data
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert [m async for m in channel.stream_stream("/t.T/Twice")(iter([b"a", b"b"]))] == [b"aa", b"bb"]


async def test_the_calls_of_an_address_are_bounded_over_all_its_connections() -> None:
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        serving(calls_of_one=2) as (target, _, server),
        grpc.aio.insecure_channel(target, options=own) as one,
        grpc.aio.insecure_channel(target, options=own) as another,
    ):
        calls = [channel.stream_stream("/t.T/Echo")() for channel in (one, another)]
        for call in calls:
            await call.write(b"a")
            assert await call.read() == b"a"
        with pytest.raises(grpc.aio.AioRpcError, match="as many calls of this address") as refused:
            await another.unary_unary("/t.T/Say")(b"x")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await calls[0].done_writing()
        assert await calls[0].read() is grpc.aio.EOF
        assert await calls[0].code() is grpc.StatusCode.OK
        assert (await another.unary_unary("/t.T/Say")(b"x")).startswith(b"x")
        assert list(server._calls_of.values()) == [1]


async def test_addresses_share_the_calls_of_all_and_who_has_few_is_not_refused_because_others_have_many(
    tmp_path: Path,
) -> None:
    """Two addresses: one of IPv4, and a Unix socket."""
    server = Http2Server(Options(calls=40, calls_of_one=40))
    server.add_generic_rpc_handlers((Service().handlers(),))
    server.bind_path(str(tmp_path / "socket"))
    port = server.bind("127.0.0.1", 0)
    await server.start()
    open_: dict[str, list[Any]] = {"many": [], "few": []}
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as many,
        grpc.aio.insecure_channel(f"unix:{tmp_path}/socket") as few,
    ):

        async def taken(who: str, count: int) -> int:
            channel = many if who == "many" else few
            for taken in range(count):
                if await channel.unary_unary("/t.T/Say")(b"x").code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return taken
                call = channel.stream_stream("/t.T/Echo")()
                await call.write(b"a")
                assert await call.read() == b"a"
                open_[who].append(call)
            return count

        assert await taken("many", 50) == 40  # nobody else is there
        assert await taken("few", 50) == 16
        for call in open_["many"][:36]:
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
        assert await taken("few", 50) == 4  # its half
        assert await taken("many", 50) == 16  # and the other's
    await server.stop(0)


async def test_an_address_with_as_many_connections_as_it_may_have_leaves_some_for_others(tmp_path: Path) -> None:
    server = Http2Server(Options(connections=10, connections_of_one=8))
    server.bind_path(str(tmp_path / "socket"))
    port = server.bind("127.0.0.1", 0)
    await server.start()
    async with AsyncExitStack() as open_:
        for _ in range(8):
            reader, _writer = await open_.enter_async_context(raw(f"127.0.0.1:{port}"))
            assert await reader.read(1)
        reader, _writer = await open_.enter_async_context(raw(f"127.0.0.1:{port}"))
        assert await ended(reader)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        assert await reader.read(1)
        writer.close()
    await server.stop(0)


async def test_a_client_of_threads_is_answered() -> None:
    async with serving() as (address, _, _server):

        def talk() -> list[bytes]:
            with grpc.insecure_channel(address) as channel:
                assert channel.unary_unary("/t.T/Say")(b"x")
                return list(channel.stream_stream("/t.T/Echo")(bytes([i]) for i in range(200)))

        assert await asyncio.to_thread(talk) == [bytes([i]) for i in range(200)]


async def test_a_status_has_its_details_and_metadata_and_a_fault_says_nothing_of_itself() -> None:
    async with connected() as (channel, _, _server):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/t.T/Fail")(b"")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert refused.value.details() == "not today: ü 100%"
        assert dict(refused.value.trailing_metadata()) == {"why": "rain", "b-bin": b"\0"}
        with pytest.raises(grpc.aio.AioRpcError, match="its log has the details") as fault:
            await channel.unary_unary("/t.T/Fault")(b"")
        assert "secret" not in str(fault.value)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await channel.unary_unary("/t.T/No")(b"")
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_a_call_and_its_handler() -> None:
    async with connected() as (channel, service, _):
        for seconds in (0.1, 1, 10, 100):  # on a busy machine the time may be over before the handler begins
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await channel.stream_stream("/t.T/Wait")(timeout=seconds).read()
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if service.begun.is_set():
                break
        await service.over.wait()
        assert service.ended[:2] == ["cancelled", "wait"]


@pytest.mark.parametrize("way", ["the call", "the connection"])
async def test_a_handler_ends_with_its_client(way: str) -> None:
    async with serving() as (address, service, server):
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.stream_stream("/t.T/Wait")()
            await call.write(b"x")
            await service.begun.wait()
            if way == "the call":
                call.cancel()
                await service.over.wait()
        await service.over.wait()
        assert service.ended == ["cancelled", "wait"]
        assert not server._calls


async def test_much_goes_both_ways_when_the_client_reads_late() -> None:
    async with connected() as (channel, service, _):
        call = channel.stream_stream("/t.T/Echo")()
        sent = [bytes([i]) * 2**20 for i in range(8)]
        writing = asyncio.create_task(_write_all(call, sent))
        await service.begun.wait()
        assert [await call.read() for _ in sent] == sent
        await writing


async def _write_all(call: Any, sent: list[bytes]) -> None:  # noqa: ANN401
    for data in sent:
        await call.write(data)
    await call.done_writing()


async def test_hundreds_of_streams_share_a_connection() -> None:
    async with connected() as (channel, _, _server):
        calls = [channel.stream_stream("/t.T/Echo")() for _ in range(300)]
        for round_ in range(3):
            for i, call in enumerate(calls):
                await call.write(b"%d %d" % (round_, i))
            assert [await call.read() for call in calls] == [b"%d %d" % (round_, i) for i in range(300)]


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages_are_read(kind: grpc.Compression) -> None:
    async with serving() as (address, _, _server), grpc.aio.insecure_channel(address, compression=kind) as channel:
        assert (await channel.unary_unary("/t.T/Say")(b"a" * 10_000)).startswith(b"a" * 10_000)


async def test_a_message_that_is_small_only_compressed_is_refused() -> None:
    async with serving(limits=Limits(message=10_000)) as (address, _, _server), raw(address) as (reader, writer):
        bomb = gzip.compress(bytes(10_000_000))
        writer.write(
            request(b"/t.T/Say", encoding=b"gzip") + frames.frame(0, 1, 1, b"\1" + len(bomb).to_bytes(4) + bomb)
        )
        assert b"grpc-status\x018" in await read_until(reader, b"is the limit")


async def test_what_is_compressed_in_an_unknown_way_is_unimplemented() -> None:
    async with serving() as (address, _, _server), raw(address) as (reader, writer):
        writer.write(
            request(b"/t.T/Say", encoding=b"snappy") + frames.frame(frames.DATA, frames.END_STREAM, 1, message(b"x"))
        )
        assert b"identity,gzip,deflate" in await read_until(reader, b"grpc-status\x0212")


async def test_a_server_that_stops_lets_calls_end_and_takes_no_further_ones() -> None:
    async with serving(ping_seconds=0.5) as (address, service, server), grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/t.T/Echo")()
        await call.write(b"a")
        assert await call.read() == b"a"
        stopping = asyncio.create_task(server.stop(120))
        await call.write(b"b")
        assert await call.read() == b"b"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        await stopping
        assert service.ended == ["echo"]
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/t.T/Say")(b"x")


async def test_a_server_that_stops_cancels_what_does_not_end() -> None:
    async with connected() as (channel, service, server):
        call = channel.stream_stream("/t.T/Wait")()
        await call.write(b"x")
        await service.begun.wait()
        await server.stop(0.01)
        assert service.ended == ["cancelled", "wait"]
        assert await call.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


async def test_further_connections_than_are_allowed_are_closed_at_once() -> None:
    async with serving(connections=1) as (address, _, _server), raw(address) as (reader, _writer):
        assert await reader.read(9)
        async with raw(address) as (further, _further):
            assert await ended(further)


# Clients that are silent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", frames.PREFACE[:5], frames.PREFACE])
async def test_a_connection_that_does_not_say_that_it_speaks_http2_is_closed(sent: bytes) -> None:
    async with serving(**QUICK) as (address, _, _server), raw(address, b"") as (reader, writer):
        writer.write(sent)
        assert b"no preface and settings" in await reader.read()


async def test_a_connection_without_calls_is_closed_after_a_time() -> None:
    async with (
        serving(silent_seconds=1, keepalive_seconds=0.1, idle_seconds=0.3, ping_seconds=0.5) as (address, _, _server),
        raw(address) as (reader, writer),
    ):
        answering = asyncio.create_task(answer_pings(reader, writer))
        assert b"without calls" in await answering


async def test_a_client_that_vanished_is_noticed_and_one_that_is_only_silent_is_kept() -> None:
    async with (
        serving(silent_seconds=1, keepalive_seconds=0.1, ping_seconds=0.5) as (address, service, server),
        raw(address) as (reader, writer),
        raw(address) as (_reader, gone),
    ):
        answering = asyncio.create_task(answer_pings(reader, writer))
        for one in (writer, gone):
            one.write(request(b"/t.T/Wait"))
            await service.begun.wait()
            service.begun.clear()
        await service.over.wait()
        assert len(server._calls) == 1
        answering.cancel()


async def test_large_messages_of_one_address_come_after_each_other_and_all_come() -> None:
    async with connected(large_messages_of_one=2**20) as (channel, _, server):
        datas = [bytes([i]) * 600_000 for i in range(6)]
        answers = await asyncio.gather(*(channel.unary_unary("/t.T/Say")(data) for data in datas))
        assert [answer[:600_000] for answer in answers] == datas
        assert not server.rooms._of


async def test_a_large_message_that_does_not_come_on_ends_its_call_and_gives_its_room_to_others() -> None:
    async with (
        serving(silent_seconds=3.0, large_messages_of_one=2**20) as (address, service, server),
        raw(address) as (reader, writer),
        grpc.aio.insecure_channel(address, options=_LARGE) as channel,
    ):
        writer.write(request(b"/t.T/Echo"))
        await service.begun.wait()
        writer.write(frames.frame(frames.DATA, 0, 1, message(bytes(600_000))[:10_000]))
        other = asyncio.ensure_future(asyncio.gather(channel.unary_unary("/t.T/Say")(bytes(600_000))))
        said = await read_until(reader, b"bytes 10000 came, and no more within 3 s")
        assert b"grpc-status\x0214" in said
        (answer,) = await other
        assert len(answer) > 600_000
        assert not server.rooms._of


async def test_an_answer_that_its_client_does_not_read_is_given_up_in_time_and_one_that_is_read_slowly_is_not() -> None:
    async with serving(silent_seconds=0.1) as (address, _, server), raw(address) as (reader, writer):
        for number in (1, 3):
            writer.write(request(b"/t.T/Large", number=number))
            writer.write(frames.frame(frames.DATA, frames.END_STREAM, number, message(b"x")))
        writer.write(frames.credit(0, 2**30))
        credit = asyncio.ensure_future(_give_credit(writer, 3))
        await read_until(reader, frames.reset(1, frames.Code.CANCEL))
        assert [call._stream.id for call in server._calls] == [3]
        credit.cancel()
        await read_until(reader, frames.reset(3, frames.Code.CANCEL))
        assert not server._calls


async def _give_credit(writer: asyncio.StreamWriter, number: int) -> None:
    while True:
        writer.write(frames.credit(number, 2**15))
        await asyncio.sleep(0.05)


# By hand --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def raw(
    address: str, begin: bytes = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(begin)
    try:
        yield reader, writer
    finally:
        writer.close()


def request(path: bytes, encoding: bytes = b"", number: int = 1) -> bytes:
    def literal(name: bytes, value: bytes) -> bytes:
        return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

    fields = b"\x83\x86" + literal(b":path", path) + literal(b"content-type", b"application/grpc")
    return frames.frame(frames.HEADERS, 4, number, fields + (literal(b"grpc-encoding", encoding) if encoding else b""))


async def read_until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = await reader.read(65_536)
        assert more, data
        data += more
    return data


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Until the connection ends; returns all that came."""
    data = b""
    while more := await reader.read(65_536):
        data += more
        if b"tidegate" in more:
            writer.write(frames.frame(frames.PING, frames.ACK, 0, b"tidegate"))
    return data


async def test_thousands_of_messages_in_one_frame_are_all_answered_in_their_order() -> None:
    sent = [number.to_bytes(2) for number in range(2_300)]
    frame = frames.frame(frames.DATA, frames.END_STREAM, 1, b"".join(map(message, sent)))
    async with serving() as (address, _, _), raw(address) as (reader, writer):
        writer.write(request(b"/t.T/Twice") + frame)
        heard = await read_until(reader, b"grpc-status")
    answers = [b"\0\0\0\0\4" + 2 * each for each in sent]
    places = [heard.find(answer) for answer in answers]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("peername", "peer", "address"),
    [
        (("10.0.0.1", 5), "ipv4:10.0.0.1:5", "ipv4:10.0.0.1"),
        (("2001:db8::7", 5, 0, 0), "ipv6:[2001:db8::7]:5", "ipv6:2001:db8::"),
        (("::ffff:10.0.0.1", 5, 0, 0), "ipv6:[::ffff:10.0.0.1]:5", "ipv4:10.0.0.1"),
        (b"", "unix:", "unix:"),
    ],
)
async def test_a_connection_is_counted_by_the_address_that_all_else_of_its_client_is(
    peername: object, peer: str, address: str
) -> None:
    server = Http2Server(Options())
    server.loop = asyncio.get_running_loop()
    server.timers = Timers(server.loop, 1.0)
    connection = Connection(server)
    connection.connection_made(Mock(spec=asyncio.Transport, get_extra_info=lambda _: peername))
    assert (connection.peer, connection.address) == (peer, address)
    connection.connection_lost(None)


async def test_an_answer_of_32_mib_is_written_in_pieces_between_which_the_loop_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written, write = list[int](), Socket.write

    def note(one: Socket, data: bytes) -> None:
        written.append(len(data))
        write(one, data)

    monkeypatch.setattr(Socket, "write", note)
    async with connected() as (channel, _, _):
        answer = await channel.unary_unary("/t.T/Large")(b"all of it")
    assert answer == b"all of it" + NUMBERS.tobytes()
    assert max(written) < 2**18
    assert len(written) > 128
