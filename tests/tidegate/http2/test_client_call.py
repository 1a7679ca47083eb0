"""A client's call over HTTP/2, as values, beside the package h2 as the server."""

from __future__ import annotations

import base64

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.http2 import frames
from tidegate.http2.call_fields import Ended
from tidegate.http2.client_call import STREAM, WINDOW, ClientCall
from tidegate.http2.frames import Code

PATH = "/p.S/M"
BEGIN = [(":status", "200"), ("content-type", "application/grpc")]


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


class Server:
    """h2 at the other end."""

    def __init__(self, **settings: int) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            codes = h2.settings.SettingCodes
            self.h2.local_settings = h2.settings.Settings(
                client=False, initial_values={codes[name.upper()]: value for name, value in settings.items()}
            )
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []

    def hear(self, call: ClientCall) -> list[h2.events.Event]:
        came = self.h2.receive_data(call.to_send())
        self.events += came
        return came

    def tell(self, call: ClientCall) -> list[bytes]:
        return call.receive(self.h2.data_to_send())

    def data(self) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, h2.events.DataReceived))


def begun(server: Server | None = None, **metadata: str) -> tuple[ClientCall, Server]:
    call, server = ClientCall(PATH, "here:1", metadata.items(), secure=False), server or Server()
    server.hear(call)
    server.tell(call)
    return call, server


def answered(data: bytes, trailers: list[tuple[str, str]]) -> bytes:
    """The bytes of an answer in which `data` is said, and what follows."""
    call, server = begun()
    server.h2.data_to_send()
    server.h2.send_headers(STREAM, BEGIN)
    for at in range(0, len(data), 10_000):
        server.h2.send_data(STREAM, data[at : at + 10_000])
    server.h2.send_headers(STREAM, trailers, end_stream=True)
    assert call.ended is None
    return server.h2.data_to_send()


def test_a_call_begins_as_grpc_has_it() -> None:
    _, server = begun(authorization="Bearer x")
    (request,) = (e for e in server.events if isinstance(e, h2.events.RequestReceived))
    assert dict(request.headers) == {
        ":method": "POST",
        ":scheme": "http",
        ":path": PATH,
        ":authority": "here:1",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "tidegate",
        "authorization": "Bearer x",
    }


def test_metadata_of_bytes_go_as_text_and_come_back_as_bytes() -> None:
    call = ClientCall(PATH, "a", [("x-bin", b"\0\xff\1")], secure=True)
    server = Server()
    server.hear(call)
    (request,) = (e for e in server.events if isinstance(e, h2.events.RequestReceived))
    sent = dict(request.headers)
    assert sent[":scheme"] == "https"
    assert base64.b64decode(sent["x-bin"] + "==") == b"\0\xff\1"
    for shown in ("AP8B", base64.b64encode(b"four").decode().rstrip("=")):
        call, server = begun()
        server.h2.send_headers(STREAM, [*BEGIN, ("grpc-status", "9"), ("y-bin", shown)], end_stream=True)
        server.tell(call)
        assert call.ended is not None
        assert dict(call.ended.metadata) == {"y-bin": base64.b64decode(shown + "=" * (-len(shown) % 4))}


@pytest.mark.parametrize("cut", range(1, 140))
def test_messages_are_whole_wherever_the_bytes_are_cut(cut: int) -> None:
    bytes_ = answered(message(b"") + message(b"a" * 40) + message(b"b"), [("grpc-status", "0")])
    call, _ = begun()
    pieces = [bytes_[at : at + cut] for at in range(0, len(bytes_), cut)]
    assert [m for piece in pieces for m in call.receive(piece)] == [b"", b"a" * 40, b"b"]
    assert call.ended == Ended("OK", "")


def test_a_message_that_is_larger_than_the_window_leaves_as_room_is_given_and_its_end_follows() -> None:
    call, server = begun()
    data = bytes(range(256)) * 1_000
    call.send(data)
    call.send(b"next")
    call.end()
    heard = 0
    while len(server.data()) < len(data) + len(b"next") + 10:
        came = [e for e in server.hear(call) if isinstance(e, h2.events.DataReceived)]
        assert came, "it stands still though it has credit"
        size = sum(e.flow_controlled_length for e in came)
        heard += size
        assert size <= 65_535
        server.h2.acknowledge_received_data(size, STREAM)
        server.tell(call)
    server.hear(call)
    assert server.data() == message(data) + message(b"next")
    assert any(isinstance(e, h2.events.StreamEnded) for e in server.events)
    assert not call.waits


def test_what_waited_for_room_is_ready_once_there_is_room_and_so_is_the_end() -> None:
    call, _ = begun()
    call.to_send()
    call.send(bytes(70_000))
    call.to_send()
    assert (call.waits, call.ready) == (True, 0)
    call.receive(frames.credit(0, 100_000) + frames.credit(STREAM, 100_000))
    assert (call.waits, call.ready > 70_000 - 65_535) == (False, True)
    call.to_send()
    call.end()
    assert call.to_send() == frames.frame(frames.DATA, frames.END_STREAM, STREAM)


def test_a_server_may_take_room_away_that_was_used() -> None:
    call, _ = begun()
    call.send(bytes(60_000))
    call.to_send()
    call.receive(frames.settings({frames.INITIAL_WINDOW: 1_000}))
    call.send(b"x")
    assert b"x" not in call.to_send().replace(frames.frame(frames.SETTINGS, frames.ACK, 0), b"")
    assert call.waits
    call.receive(frames.credit(STREAM, 64_000))
    assert call.to_send().endswith(message(b"x"))


def test_the_server_has_credit_for_what_was_read() -> None:
    call, server = begun()
    server.h2.send_headers(STREAM, BEGIN)
    sent = 0
    for _ in range(3 * WINDOW // 16_000):
        server.h2.send_data(STREAM, message(bytes(15_995)))  # h2 refuses to send more than it has credit for
        sent += 1
        assert len(server.tell(call)) == 1
        server.hear(call)
    assert sent * 16_000 > 2 * WINDOW


@pytest.mark.parametrize(
    ("fields", "ended"),
    [
        ([*BEGIN, ("grpc-status", "5"), ("grpc-message", "no%20model: %C3%BC")], Ended("NOT_FOUND", "no model: ü")),
        ([*BEGIN, ("grpc-status", "99")], Ended("UNKNOWN", "")),
        ([(":status", "503")], Ended("UNAVAILABLE", "the answer has the HTTP status 503")),
        ([(":status", "404")], Ended("UNIMPLEMENTED", "the answer has the HTTP status 404")),
        (BEGIN, Ended("UNKNOWN", "the answer has no status of gRPC")),
    ],
)
def test_how_a_call_ended_is_read_from_its_fields(fields: list[tuple[str, str]], ended: Ended) -> None:
    call, server = begun()
    server.h2.send_headers(STREAM, fields, end_stream=True)
    assert server.tell(call) == []
    assert call.ended == ended


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.REFUSED_STREAM, "UNAVAILABLE"),
        (Code.CANCEL, "CANCELLED"),
        (Code.ENHANCE_YOUR_CALM, "RESOURCE_EXHAUSTED"),
        (Code.PROTOCOL_ERROR, "INTERNAL"),
    ],
)
def test_a_reset_ends_a_call(code: Code, status: str) -> None:
    call, server = begun()
    server.h2.reset_stream(STREAM, code)
    server.tell(call)
    assert call.ended is not None
    assert call.ended.status == status


def test_a_call_goes_on_on_a_connection_that_takes_no_further_ones() -> None:
    call, server = begun()
    call.receive(frames.go_away(STREAM, Code.NO_ERROR))
    assert call.ended is None
    server.h2.send_headers(STREAM, BEGIN)
    server.h2.send_data(STREAM, message(b"still here"))
    assert server.tell(call) == [b"still here"]
    call.receive(frames.go_away(0, Code.NO_ERROR, "restarts"))
    assert call.ended == Ended("UNAVAILABLE", "the server ended the connection with code 0: restarts")


def test_pings_are_answered_and_sent() -> None:
    call, server = begun()
    server.h2.ping(b"12345678")
    server.tell(call)
    call.ping()
    kinds = [type(e) for e in server.hear(call) if not isinstance(e, h2.events.SettingsAcknowledged)]
    assert kinds == [h2.events.PingAckReceived, h2.events.PingReceived]


def test_a_call_that_is_cancelled_is_reset_and_keeps_its_end() -> None:
    call, server = begun()
    call.send(b"before")
    call.cancel()
    assert isinstance(server.hear(call)[-1], h2.events.StreamReset)
    call.send(b"nor this")
    assert call.to_send() == b""
    call.lost("later")
    assert call.ended == Ended("CANCELLED", "cancelled by the client")


def test_fields_in_several_frames_are_read() -> None:
    whole = answered(b"", [("grpc-status", "13"), ("grpc-message", "x" * 500)])
    call, _ = begun()
    at = 0
    while at < len(whole):  # each block of fields is cut in two
        size = int.from_bytes(whole[at : at + 3])
        kind, flags, payload = whole[at + 3], whole[at + 4], whole[at + 9 : at + 9 + size]
        if kind == frames.HEADERS:
            call.receive(frames.frame(kind, flags & ~frames.END_HEADERS, STREAM, payload[: size // 2]))
            call.receive(frames.frame(frames.CONTINUATION, frames.END_HEADERS, STREAM, payload[size // 2 :]))
        at += 9 + size
    assert call.ended == Ended("INTERNAL", "x" * 500)


@pytest.mark.parametrize(
    "wrong",
    [
        frames.frame(frames.DATA, frames.PADDED, STREAM, b"\xff"),
        frames.frame(frames.DATA, 0, STREAM, b"\1" + bytes(9)),
        frames.frame(frames.DATA, 0, STREAM, bytes(20_000)),
        frames.frame(frames.HEADERS, frames.END_HEADERS, STREAM, b"\xff" * 9),
        frames.frame(frames.HEADERS, 0, STREAM, b"\x88") + frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, STREAM, b"\x88"),
        frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
        frames.credit(0, 2**31 - 1),
        frames.frame(frames.SETTINGS, 0, 0, bytes(5)),
        frames.settings({frames.INITIAL_WINDOW: 2**31}),
        frames.settings({frames.MAX_FRAME: 1}),
        frames.frame(frames.RST_STREAM, 0, STREAM, b"x"),
        frames.frame(frames.GOAWAY, 0, 0, b"x"),
        frames.frame(frames.PUSH_PROMISE, 0, STREAM, bytes(9)),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_a_server_that_breaks_the_rules_ends_the_call_and_is_told_so(wrong: bytes) -> None:
    call, _ = begun()
    call.to_send()
    assert call.receive(wrong) == []
    assert call.ended is not None
    assert (call.ended.status, call.ended.details[:24]) == ("UNAVAILABLE", "the server breaks HTTP/2")
    assert call.to_send()[3] == frames.GOAWAY


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 400), st.binary(max_size=3))
def test_damaged_bytes_never_raise_and_give_no_message_after_the_end(
    pieces: list[bytes], at: int, other: bytes
) -> None:
    whole = answered(message(b"one") + message(b"two" * 30), [("grpc-status", "0")])
    call, _ = begun()
    for piece in (whole[:at] + other + whole[at + len(other) :], *pieces):
        over = call.ended is not None
        assert not (call.receive(piece) and over)
        call.to_send()
