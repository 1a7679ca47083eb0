"""The server's TLS, against grpcio's clients and against clients that do not behave."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import grpc
import pytest

from server.edge.certificates import Certificates, Files
from server.edge.http2 import secure as module
from server.edge.http2.connection import Connection
from server.edge.http2.gate import Gate, TurnTime
from server.edge.http2.secure import SecureTransport
from server.edge.http2.server import Http2Server, Options
from server.runtime.loop_turn import LoopTurn
from tests.security.certificates import Authority
from tests.server.edge.http2 import openssl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUICK = {"silent_seconds": 0.2}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
SETTINGS = 4


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def echo(_: object, call: Any) -> None:  # noqa: ANN401
    while (data := await call.read()) is not grpc.aio.EOF:
        await call.write(data)


async def names(_: bytes, call: Any) -> bytes:  # noqa: ANN401
    return repr(call.auth_context()).encode()


SERVICE = grpc.method_handlers_generic_handler(
    "t.T", {"Echo": grpc.stream_stream_rpc_method_handler(echo), "Names": grpc.unary_unary_rpc_method_handler(names)}
)


@asynccontextmanager
async def serving(certificates: Certificates, **options: Any) -> AsyncIterator[tuple[int, Http2Server]]:  # noqa: ANN401
    server = Http2Server(Options(**options))
    server.add_generic_rpc_handlers((SERVICE,))
    port = server.bind("127.0.0.1", 0)
    await server.start(lambda: certificates.current.context)
    try:
        yield port, server
    finally:
        await server.stop(0)


def secure(port: int, authority: Authority, cert: tuple[Path, Path] | None = None) -> grpc.aio.Channel:
    shown = (None, None) if cert is None else (cert[1].read_bytes(), cert[0].read_bytes())
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority.pem, *shown), own)


async def test_messages_of_all_sizes_pass_unchanged_both_ways(authority: Authority) -> None:
    async with serving(Certificates(authority.files())) as (port, _), secure(port, authority) as channel:
        call = channel.stream_stream("/t.T/Echo")()
        for size in (0, 1, 16_383, 16_384, 16_385, 1_000_000):
            data = bytes(i % 251 for i in range(min(size, 1_000))) * (size // 1_000 or 1)
            await call.write(data)
            assert await call.read() == data
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_the_common_name_of_a_verified_certificate_is_on_the_context(authority: Authority) -> None:
    sensor = authority.issue("sensor", "sensor.example", subject="sensor-7")
    asking = Certificates(authority.files(ask_clients=True))
    async with serving(asking) as (port, _), secure(port, authority, sensor) as channel:
        shown = {"x509_common_name": [b"sensor-7"]}
        assert await channel.unary_unary("/t.T/Names")(b"") == repr(shown).encode()
    async with serving(Certificates(authority.files())) as (port, _), secure(port, authority, sensor) as channel:
        assert await channel.unary_unary("/t.T/Names")(b"") == b"{}", "it was not asked for"


async def test_a_client_without_a_certificate_or_with_one_of_another_issuer_reaches_no_service(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other").issue("stranger")
    async with serving(Certificates(authority.files(ask_clients=True))) as (port, server):
        for shown in (None, stranger):
            async with secure(port, authority, shown) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await channel.unary_unary("/t.T/Names")(b"")
                assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert not server._calls


async def test_new_certificates_are_for_new_connections_and_open_streams_go_on(
    authority: Authority, tmp_path: Path
) -> None:
    later = Authority(tmp_path / "later")
    certificates = Certificates(Files(*authority.issue("server"), authority.file))
    shown = authority.issue("client")
    async with serving(certificates) as (port, _), secure(port, authority, shown) as before:
        call = before.stream_stream("/t.T/Echo")()
        await call.write(b"1")
        assert await call.read() == b"1"
        for old, new in zip(
            (*authority.issue("server"), authority.file), (*later.issue("server"), later.file), strict=True
        ):
            old.write_bytes(new.read_bytes())
        certificates.look()
        await call.write(b"2")
        assert await call.read() == b"2"
        assert (await before.unary_unary("/t.T/Names")(b"")).startswith(b"{")
        async with secure(port, later, later.issue("client")) as after:
            assert (await after.unary_unary("/t.T/Names")(b"")).startswith(b"{")
        for roots, cert in ((authority, shown), (later, shown)):  # neither what was shown nor what is asked for is old
            async with secure(port, roots, cert) as stale:
                with pytest.raises(grpc.aio.AioRpcError):
                    await stale.unary_unary("/t.T/Names")(b"")


@asynccontextmanager
async def stranger(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Stranger]:
    """A client that is written by hand."""
    name = None if tls is None else "localhost"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@dataclass
class Stranger:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def rest(self) -> bytes:
        """What the server says until it ends the connection, in whatever way."""
        said = b""
        with suppress(OSError):  # of which errors of TLS are
            while piece := await self.reader.read(1_000):
                said += piece
        return said


async def ended(server: Http2Server, but: int = 0) -> None:
    """The server knows no connection any more but these."""
    async with asyncio.timeout(120):
        while len(server._connections) > but:
            server._fewer.clear()
            await server._fewer.wait()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["nothing", "the beginning of a handshake"])
async def test_a_handshake_that_does_not_come_on_is_given_up_in_time(authority: Authority, said: bytes) -> None:
    async with serving(Certificates(authority.files()), **QUICK) as (port, server), stranger(port) as client:
        client.writer.write(said)
        assert await client.rest() == b""
        await ended(server)


async def test_who_shakes_hands_and_says_nothing_is_closed_as_soon(authority: Authority) -> None:
    async with (
        serving(Certificates(authority.files()), silent_seconds=3) as (port, server),
        stranger(port, authority.client()) as client,
    ):
        assert b"no preface and settings came" in await client.rest()
        await ended(server)


async def test_handshakes_count_as_connections(authority: Authority) -> None:
    async with (
        serving(Certificates(authority.files()), connections=2) as (port, server),
        stranger(port),
        stranger(port),
        stranger(port) as third,
    ):
        assert await third.rest() == b""
        assert len(server._connections) == 2


NO_HANDSHAKES = [PREFACE, b"GET / HTTP/1.1\r\n\r\n", bytes(1_000), b"\x16\x03\x01\xff\xff" + bytes(70_000)]


@pytest.mark.parametrize("said", NO_HANDSHAKES, ids=["HTTP/2", "HTTP/1.1", "zeros", "a record too large"])
@pytest.mark.parametrize("after", [False, True], ids=["at once", "after a handshake"])
async def test_what_is_no_tls_ends_its_connection_alone(authority: Authority, said: bytes, after: bool) -> None:
    async with serving(Certificates(authority.files())) as (port, server), secure(port, authority) as channel:
        call = channel.stream_stream("/t.T/Echo")()
        await call.write(b"1")
        assert await call.read() == b"1"
        async with stranger(port, authority.client() if after else None) as client:
            if after:
                assert (await client.reader.readexactly(9))[3] == SETTINGS
            os.write(client.writer.get_extra_info("socket").fileno(), said)
            await client.rest()
        await ended(server, but=1)
        await call.write(b"2")
        assert await call.read() == b"2"


def another_protocol(context: ssl.SSLContext) -> None:
    context.set_alpn_protocols(["http/1.1"])


def an_old_version(context: ssl.SSLContext) -> None:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")


def no_forward_secrecy(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")


@pytest.mark.parametrize("lack", [another_protocol, an_old_version, no_forward_secrecy])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_what_is_not_good_enough_gets_no_connection(authority: Authority, lack: Any) -> None:  # noqa: ANN401
    context = authority.client()
    lack(context)
    said = b""
    async with serving(Certificates(authority.files())) as (port, server):
        with suppress(OSError):
            async with stranger(port, context) as client:
                said = await client.rest()
        assert said == b""
        await ended(server)


async def test_tls_12_is_spoken(authority: Authority) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(Certificates(authority.files())) as (port, _), stranger(port, context) as client:
        assert (await client.reader.readexactly(9))[3] == SETTINGS


PING = b"\0\0\x08\x06\0\0\0\0\0tidegate"
PONG = b"\0\0\x08\x06\x01\0\0\0\0tidegate"
needs_openssl = pytest.mark.skipif(not openssl.here, reason="no libssl is found")


@needs_openssl
async def test_keys_that_are_renewed_now_and_then_are_and_without_end_end_the_connection(authority: Authority) -> None:
    async with (
        serving(Certificates(authority.files())) as (port, server),
        secure(port, authority) as channel,
        stranger(port) as client,
    ):
        call = channel.stream_stream("/t.T/Echo")()
        await call.write(b"1")
        assert await call.read() == b"1"
        tls = openssl.OpenSsl(client.reader, client.writer)
        await tls.shake_hands()
        client.writer.write(tls.encrypted(PREFACE))
        said = b""
        for _ in range(3):
            client.writer.write(tls.renewals(10) + tls.encrypted(PING))
            while not said.endswith(PONG):
                said += await tls.read()
            said = b""
        client.writer.write(tls.renewals(500))
        while await tls.read():
            pass
        await ended(server, but=1)
        await call.write(b"2")
        assert await call.read() == b"2"


@needs_openssl
async def test_another_handshake_on_the_same_connection_is_not_begun(authority: Authority) -> None:
    async with serving(Certificates(authority.files())) as (port, server), stranger(port) as client:
        tls = openssl.OpenSsl(client.reader, client.writer, openssl.TLS_1_2)
        await tls.shake_hands()
        client.writer.write(tls.encrypted(PREFACE) + tls.another_handshake())
        while await tls.read():  # OpenSSL gives up where the server does not want one
            pass
        await ended(server)


def test_thousands_of_records_in_one_read_are_decrypted_in_turns_and_nothing_is_read_meanwhile(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, turns = count(), list[Any]()
    monkeypatch.setattr(module, "perf_counter", lambda: next(clock) / 1_000)  # each look at it is a millisecond later
    turn = LoopTurn(turns.append)
    server = Mock(ends=Gate(turns.append), decrypting=TurnTime(0.001, turn, 0.001))
    connection, socket = Mock(server=server), Mock(is_closing=lambda: False)
    ours = SecureTransport(connection, Certificates(authority.files()).current.context)
    ours.connection_made(socket)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = authority.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    for _ in range(3):
        with suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        ours.data_received(outgoing.read())
        while turns:
            turns.pop(0)()
        incoming.write(b"".join(call.args[0] for call in socket.write.call_args_list))
        socket.reset_mock()
    sent = bytes(i % 251 for i in range(2_800))
    for at in range(len(sent)):
        theirs.write(sent[at : at + 1])

    server.decrypting.begin()
    ours.data_received(outgoing.read())
    assert connection.data_received.call_args.args[0] == sent[:64]
    socket.pause_reading.assert_called_once()
    ours.pause_reading()  # as the connection may want it
    while turns:
        turns.pop(0)()
        assert len(connection.data_received.call_args.args[0]) <= 64
    assert b"".join(call.args[0] for call in connection.data_received.call_args_list) == sent
    socket.resume_reading.assert_not_called()
    ours.resume_reading()
    socket.resume_reading.assert_called_once()


async def test_a_connection_that_has_ended_leaves_without_the_collector_of_cycles(authority: Authority) -> None:
    async with serving(Certificates(authority.files())) as (port, server):
        gc.collect()
        gc.disable()
        try:
            context = ssl.create_default_context(cafile=str(authority.file))
            context.set_alpn_protocols(["h2"])
            for tls in (context, None):  # one that has shaken hands, and one that never does
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
                writer.write(PREFACE)
                await reader.read(1)
                writer.transport.abort()
            while server._connections:
                await server._fewer.wait()
                server._fewer.clear()
            await asyncio.sleep(0)
            assert not [each for each in gc.get_objects() if type(each) in (SecureTransport, Connection)]
        finally:
            gc.enable()
