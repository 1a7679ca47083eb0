"""The codec against the client of another library, which refuses whatever breaks a rule of HTTP/2."""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING

import h2.events
import numpy as np
import pytest

from server.edge.http2.life import NEXT, Event, State
from server.edge.http2.limits import Limits
from server.edge.http2.stream import ROOM
from server.edge.pieces import Numbers, Pieces
from tests.server.edge.http2.wired import HEADERS, Side, Wired, message
from tidegate.http2 import frames
from tidegate.http2.frames import Code, ConnectionFault

if TYPE_CHECKING:
    from collections.abc import Iterator

START = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)


def test_messages_arrive_as_they_were_sent_wherever_they_are_cut() -> None:
    sent = [b"", b"a", b"bc" * 100, b"d" * 5_000, b"e" * 40_000, b""]
    whole = b"".join(map(message, sent))
    for cut in (1, 2, 5, 7, 1_000, 16_384):
        wired = Wired()
        number = wired.call()
        for start in range(0, len(whole), cut):
            wired.client.send_data(number, whole[start : start + cut])
            if not start % 7:
                wired.exchange()
        wired.client.end_stream(number)
        wired.exchange()
        (call,) = wired.calls
        assert call.messages == sent
        assert call.ended
        assert not call.is_gone


def test_of_thousands_of_messages_in_one_frame_a_part_is_handed_on_and_the_others_when_they_are_asked_for() -> None:
    wired, sent = Wired(), [bytes([i % 251]) * (i % 3) for i in range(2_500)]
    number = wired.call()
    stream, call = wired.calls[0].stream, wired.calls[0]
    wired.client.send_data(number, b"".join(map(message, sent)))
    wired.exchange()
    handed_on = [len(call.messages)]
    wired.client.send_data(number, b"".join(map(message, sent)), end_stream=True)  # those before them come first
    wired.exchange()
    while stream.cut(call.message):
        handed_on.append(len(call.messages) - sum(handed_on))
    assert call.messages == sent + sent
    assert max(handed_on) <= 256
    assert call.ended
    assert stream.unread == 0


def test_of_thousands_of_messages_the_last_of_which_breaks_off_the_others_are_handed_on_before_that_is_said() -> None:
    wired = Wired()
    number = wired.call()
    call = wired.calls[0]
    wired.client.send_data(number, message(b"") * 1_000 + message(b"abc")[:-1], end_stream=True)
    wired.exchange()
    while not call.is_gone:
        assert call.stream.cut(call.message)
        wired.exchange()
    assert call.messages == [b""] * 1_000
    assert wired.trailers(number)["grpc-message"] == "the call ended after 7 bytes of a message that has more"


def test_frames_arrive_wherever_the_bytes_of_a_connection_are_cut() -> None:
    wired = Wired()
    number = wired.call()
    for i in range(20):
        wired.client.send_data(number, message(bytes([i]) * i))
    wired.client.end_stream(number)
    data = wired.client.data_to_send()
    for i in range(len(data)):
        wired.codec.receive(data[i : i + 1])
    assert wired.calls[0].messages == [bytes([i]) * i for i in range(20)]
    assert wired.calls[0].ended


def test_an_answer_has_fields_messages_and_a_status() -> None:
    wired = Wired()
    number = wired.call()
    stream = wired.calls[0].stream
    stream.send(b"one")
    stream.send(b"two")
    stream.finish(9, "not today: ü 100%", (("kind", "x"), ("blob-bin", b"\0\1")))
    wired.exchange()
    assert wired.data(number) == message(b"one") + message(b"two")
    (first,) = wired.of(h2.events.ResponseReceived)
    assert dict(first.headers) == {":status": "200", "content-type": "application/grpc"}
    assert wired.trailers(number) == {
        "grpc-status": "9",
        "grpc-message": "not today: %C3%BC 100%25",
        "kind": "x",
        "blob-bin": "AAE",
    }
    assert wired.calls[0].is_gone


def test_a_client_that_does_not_read_is_sent_no_more_than_its_window_and_then_all_of_it() -> None:
    wired = Wired()
    number = wired.call()
    call = wired.calls[0]
    large = bytes(range(256)) * 1_024  # 256 KiB
    call.stream.send(large)
    call.stream.send(b"after")
    call.stream.finish(0)
    wired.exchange()
    assert call.stream.waiting is not None
    assert not call.is_gone
    received = b""
    while part := wired.data(number):
        assert len(part) <= 65_535
        received += part
    assert received == message(large) + message(b"after")
    assert call.is_gone


def test_the_same_large_answer_that_waits_for_many_is_there_once() -> None:
    wired, answer = Wired(), bytes(2**18)
    numbers = [wired.call() for _ in range(5)]
    for call in wired.calls:
        call.stream.send(answer)
    wired.exchange()
    assert [call.stream.waiting[-1].obj is answer for call in wired.calls if call.stream.waiting] == [True] * 5
    received = dict.fromkeys(numbers, b"")
    while any(parts := {number: wired.data(number) for number in numbers}.values()):
        received = {number: received[number] + part for number, part in zip(numbers, parts, strict=True)}
    assert set(received.values()) == {message(answer)}


def test_large_messages_are_made_and_sent_in_turns_in_which_others_are_answered() -> None:
    wired, made = Wired(), list[int]()

    class Counted(Pieces):
        def __iter__(self) -> Iterator[bytes]:
            for piece in super().__iter__():
                made.append(len(piece))
                yield piece

    numbers = np.arange(2**20, dtype="<f8")  # 8 MiB
    streams = [wired.call() for _ in range(3)]
    for window in frames.settings({frames.INITIAL_WINDOW: 2**30, frames.MAX_FRAME: 2**24 - 1}), frames.credit(0, 2**30):
        wired.codec.receive(window)
    wired.said()
    for call in wired.calls[:2]:
        call.stream.send(Counted([b"head", Numbers(numbers)], 4 + numbers.nbytes))
    sent, turns = dict.fromkeys(streams, b""), 0
    while wired.writes_later:
        before = sum(made)
        wired.calls[2].stream.send(b"a step")
        said, turns = wired.said(), turns + 1
        assert len(said) < 2**17 + 1_000
        assert sum(made) - before <= 2**18
        for number, payload in data_frames(said):
            sent[number] += payload
    assert turns == pytest.approx(2 * numbers.nbytes / 2**17, rel=0.1)
    assert [sent[number] for number in streams[:2]] == [message(b"head" + numbers.tobytes())] * 2
    assert sent[streams[2]] == message(b"a step") * turns
    assert [call.times_writable for call in wired.calls] == [1, 1, 0]


def data_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The numbers of streams, and what frames carry for them."""
    while data:
        upper, lower, kind, _, number = frames.HEAD.unpack_from(data)
        size = upper << 16 | lower
        if kind == frames.DATA:
            yield number, data[9 : 9 + size]
        data = data[9 + size :]


def test_a_stream_is_writable_again_once_all_that_waited_has_left() -> None:
    wired = Wired()
    number = wired.call()
    call = wired.calls[0]
    call.stream.send(bytes(200_000))
    wired.exchange()
    assert call.times_writable == 0
    while wired.data(number):
        pass
    assert call.times_writable == 1
    assert call.stream.waiting is None


def test_what_nobody_takes_is_limited_by_the_window_and_room_is_made_as_it_is_taken() -> None:
    wired = Wired(idle=True)
    number = wired.call()
    call, sent = wired.calls[0], 0
    while (room := wired.client.local_flow_control_window(number)) >= 1_005:
        wired.client.send_data(number, message(bytes(1_000)))
        wired.exchange()
        sent += 1
        assert room <= ROOM
    assert sent == ROOM // 1_005
    for _ in range(sent):
        call.stream.took(1_000)
    wired.exchange()
    assert ROOM // 2 <= wired.client.local_flow_control_window(number) <= ROOM


def test_a_message_larger_than_the_window_comes_whole_only_when_room_is_made_for_it() -> None:
    wired = Wired(idle=True)
    number = wired.call()
    call, data = wired.calls[0], message(bytes(1_000_000))
    sent = 0
    for granted in (False, True):
        if granted:
            call.stream.make_room(1_000_000)
            wired.exchange()
        while (room := wired.client.local_flow_control_window(number)) and sent < len(data):
            size = min(room, 16_384, len(data) - sent)
            wired.client.send_data(number, data[sent : sent + size])
            sent += size
            wired.exchange()
        assert call.sizes == [1_000_000]
        assert call.messages == ([bytes(1_000_000)] if granted else [])
    call.stream.took(1_000_000)
    wired.exchange()
    assert wired.client.local_flow_control_window(number) == ROOM


def test_a_message_above_the_limit_ends_its_call_and_no_other() -> None:
    wired = Wired(Limits(message=1_000))
    one, other = wired.call(), wired.call()
    wired.client.send_data(one, message(bytes(1_001))[:20])
    wired.client.send_data(other, message(bytes(1_000)))
    wired.exchange()
    assert [call.is_gone for call in wired.calls] == [True, False]
    assert wired.calls[1].messages == [bytes(1_000)]
    assert wired.trailers(one)["grpc-status"] == "8"


def test_a_method_that_there_is_not_is_unimplemented_and_a_request_that_is_not_of_grpc_is_told_so() -> None:
    wired = Wired()
    fields = dict(HEADERS) | {":path": "/no"}
    wired.client.send_headers(1, list(fields.items()))
    wired.client.send_headers(3, list((fields | {"content-type": "text/html"}).items()), end_stream=True)
    wired.exchange()
    assert wired.trailers(1)["grpc-status"] == "12"
    assert wired.trailers(3)[":status"] == "415"
    assert not wired.codec.streams


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "POST"), (":path", "/t.T/Echo")],
        [(":method", "POST"), (":scheme", "http"), (":path", "no slash")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), (":path", "/t.T/Echo")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), (":status", "200")],
        [(":method", "POST"), (":scheme", "http"), ("a", "b"), (":path", "/t.T/Echo")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), ("Upper", "x")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), ("connection", "close")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), ("te", "gzip")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), ("a", "x\ny")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), ("grpc-timeout", "soon")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), ("a-bin", "***")],
    ],
)
def test_a_malformed_request_ends_its_stream_and_not_the_connection(fields: list[tuple[str, str]]) -> None:
    wired = Wired()
    wired.client.config.validate_outbound_headers = False
    wired.client.config.normalize_outbound_headers = False
    wired.client.send_headers(1, fields)
    wired.exchange()
    (reset,) = wired.of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (1, Code.PROTOCOL_ERROR)
    assert not wired.calls
    wired.client.config.validate_outbound_headers = True
    wired.client.config.normalize_outbound_headers = True
    assert wired.call() == 3
    assert len(wired.calls) == 1


def test_metadata_comes_without_what_is_the_transports_and_binary_values_decoded() -> None:
    wired = Wired()
    wired.call(("tidegate-sequence", "r"), ("blob-bin", "AAE"), ("grpc-timeout", "250m"), ("user-agent", "x"))
    request = wired.calls[0].request
    assert request.metadata == (("tidegate-sequence", "r"), ("blob-bin", b"\0\1"))
    assert request.timeout == 0.25


def test_a_reset_ends_a_call_and_what_is_on_its_way_then_is_passed_over() -> None:
    wired = Wired()
    number = wired.call()
    wired.client.send_data(number, message(b"x"))
    wired.exchange()
    wired.client.reset_stream(number, Code.CANCEL)
    wired.exchange()
    assert wired.calls[0].is_gone
    wired.codec.receive(frames.frame(frames.DATA, 0, number, message(b"late")) + frames.credit(number, 5))
    assert wired.calls[0].messages == [b"x"]


def test_further_streams_than_are_allowed_are_refused_and_may_be_tried_again() -> None:
    wired = Wired(Limits(streams=2))
    for _ in range(2):
        wired.call()
    wired.codec.receive(frames.frame(frames.HEADERS, frames.END_HEADERS, 5, wired.client.encoder.encode(HEADERS)))
    assert len(wired.calls) == 2
    assert wired.said() == frames.reset(5, Code.REFUSED_STREAM)


def test_a_connection_that_is_retired_refuses_each_further_call_by_itself_and_serves_those_it_has() -> None:
    wired = Wired()
    wired.call()
    late = wired.client.get_next_available_stream_id()
    wired.client.send_headers(late, HEADERS)
    data = wired.client.data_to_send()
    wired.codec.retire("bye")
    wired.codec.receive(data)
    assert len(wired.calls) == 1
    wired.calls[0].stream.send(b"still here")
    wired.calls[0].stream.finish(0)
    said = wired.said()
    assert frames.go_away(2**31 - 1, Code.NO_ERROR, "bye") in said
    assert b"still here" in said
    assert frames.reset(late, Code.REFUSED_STREAM) in said
    for _ in range(2):
        wired.codec.leave(Code.NO_ERROR, "gone")
    assert wired.said() == frames.go_away(late, Code.NO_ERROR, "gone")


def test_a_smaller_first_window_of_the_client_applies_to_streams_that_are_open() -> None:
    wired = Wired()
    number = wired.call()
    stream = wired.calls[0].stream
    wired.codec.receive(frames.settings({frames.INITIAL_WINDOW: 10}))
    stream.send(bytes(100))
    said = wired.said()
    assert frames.frame(frames.DATA, 0, number, message(bytes(100))[:10]) in said
    wired.codec.receive(frames.settings({frames.INITIAL_WINDOW: 1_000}))
    assert stream.waiting is None


INTERRUPTED = frames.frame(frames.HEADERS, 0, 1, b"\x82") + frames.frame(frames.PING, 0, 0, bytes(8))
BROKEN = {
    "a frame above the limit": (frames.HEAD.pack(1, 0, 0, 0, 1), Code.FRAME_SIZE_ERROR),
    "data of a stream that has not begun": (frames.frame(frames.DATA, 0, 7, b"x"), Code.PROTOCOL_ERROR),
    "an even stream": (frames.frame(frames.HEADERS, 4, 2, b"\x82"), Code.PROTOCOL_ERROR),
    "stream 0": (frames.frame(frames.HEADERS, 4, 0, b"\x82"), Code.PROTOCOL_ERROR),
    "padding": (frames.frame(frames.HEADERS, 12, 1, b"\x09\x82"), Code.PROTOCOL_ERROR),
    "fields that cannot be decoded": (frames.frame(frames.HEADERS, 4, 1, 5 * b"\xff"), Code.COMPRESSION_ERROR),
    "an interrupted block": (INTERRUPTED, Code.PROTOCOL_ERROR),
    "a stray continuation": (frames.frame(frames.CONTINUATION, 4, 1, b"\x82"), Code.PROTOCOL_ERROR),
    "a ping of seven bytes": (frames.frame(frames.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a ping of a stream": (frames.frame(frames.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "settings that are cut": (frames.frame(frames.SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    "settings of a stream": (frames.frame(frames.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "an acknowledgement with settings": (frames.frame(frames.SETTINGS, 1, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    "a window that none may be": (frames.settings({frames.INITIAL_WINDOW: 2**31}), Code.FLOW_CONTROL_ERROR),
    "a frame size that none may be": (frames.settings({frames.MAX_FRAME: 100}), Code.PROTOCOL_ERROR),
    "push": (frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), Code.PROTOCOL_ERROR),
    "credit of nothing": (frames.credit(0, 0), Code.PROTOCOL_ERROR),
    "credit beyond all": (frames.credit(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "credit that is cut": (frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
    "the reset of a stream that has not begun": (frames.reset(1, Code.CANCEL), Code.PROTOCOL_ERROR),
    "a continuation of the connection": (frames.frame(frames.CONTINUATION, 0, 0, b"\x82"), Code.PROTOCOL_ERROR),
    "a farewell that is cut": (frames.frame(frames.GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a priority that is cut": (frames.frame(frames.PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    "a stream that depends on itself": (frames.frame(frames.PRIORITY, 0, 1, b"\0\0\0\1\0"), Code.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_ends_the_connection_with_its_code(name: str) -> None:
    data, code = BROKEN[name]
    assert fault(Side(), iter([START + data])) is code


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", frames.PREFACE + frames.frame(frames.PING, 0, 0, bytes(8))]
)
def test_a_connection_begins_with_the_preface_and_settings(data: bytes) -> None:
    assert fault(Side(), iter([data])) is Code.PROTOCOL_ERROR


def test_more_data_than_a_window_allows_ends_the_stream_or_the_connection() -> None:
    wired = Wired(idle=True)
    number = wired.call()
    piece = frames.frame(frames.DATA, 0, number, message(bytes(16_379)))
    assert fault(wired, iter([5 * piece])) is Code.FLOW_CONTROL_ERROR


def test_a_settings_frame_is_acknowledged_and_a_ping_answered() -> None:
    side = Side()
    side.codec.receive(START + frames.frame(frames.PING, 0, 0, b"12345678"))
    said = side.said()
    assert frames.frame(frames.SETTINGS, frames.ACK, 0) in said
    assert frames.frame(frames.PING, frames.ACK, 0, b"12345678") in said


def test_every_state_but_closed_has_its_next_for_every_end() -> None:
    assert {state for state, _ in NEXT} == {State.OPEN, State.HALF_CLOSED}
    assert set(NEXT) == {(s, e) for s in (State.OPEN, State.HALF_CLOSED) for e in Event} - {
        (State.HALF_CLOSED, Event.CLIENT_ENDS)
    }


def fault(side: Side, sends: Iterator[bytes]) -> Code:
    """Of which kind the fault is that ends the connection when it gets these."""
    with pytest.raises(ConnectionFault) as raised:
        deque(map(side.codec.receive, sends), maxlen=0)
    for stream in list(side.codec.streams.values()):
        stream.was_reset()
    assert not side.codec.streams
    return raised.value.code


# Floods ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "piece"),
    [
        ("settings", frames.frame(frames.SETTINGS, 0, 0)),
        ("priorities", frames.frame(frames.PRIORITY, 0, 1, bytes(5))),
        ("frames of no kind", frames.frame(99, 0, 0, b"x")),
        ("acknowledgements of settings", frames.frame(frames.SETTINGS, frames.ACK, 0)),
    ],
)
def test_a_flood_of_frames_that_carry_nothing_ends_the_connection(name: str, piece: bytes) -> None:
    side = Side(Limits(control_frames=1_000))
    side.codec.receive(START)
    assert fault(side, repeat(100 * piece, 11)) is Code.ENHANCE_YOUR_CALM, name


def test_the_same_frames_over_a_longer_time_are_an_honest_clients() -> None:
    side = Side(Limits(control_frames=1_000, control_frames_per_second=100))
    side.codec.receive(START)
    for _ in range(100):
        side.now += 1.0
        side.codec.receive(100 * frames.frame(frames.PRIORITY, 0, 1, bytes(5)))


def begun(wired: Wired, *after: bytes) -> Iterator[bytes]:
    """A call after the other, each with the same frames behind it, in which a stream of 0 stands for its own."""
    for number in range(1, 2_201, 2):
        block = wired.client.encoder.encode(HEADERS)
        yield frames.frame(frames.HEADERS, frames.END_HEADERS, number, block)
        for frame in after:
            yield frame[:5] + frames.U32.pack(number) + frame[9:]


def test_streams_that_are_begun_and_reset_at_once_end_the_connection() -> None:
    wired = Wired(Limits(control_frames=1_000))
    assert fault(wired, begun(wired, frames.reset(0, Code.CANCEL))) is Code.ENHANCE_YOUR_CALM


def test_resets_that_the_server_is_made_to_send_count_like_the_clients_own() -> None:
    wired = Wired(Limits(control_frames=1_000))
    assert fault(wired, begun(wired, frames.credit(0, 0))) is Code.ENHANCE_YOUR_CALM


def test_a_block_of_fields_is_bounded_in_pieces_and_bytes_and_in_what_it_becomes() -> None:
    begin = START + frames.frame(frames.HEADERS, 0, 1, b"\x83")
    for pieces, size in ((1_000, 1), (9, 16_000)):
        more = pieces * frames.frame(frames.CONTINUATION, 0, 1, bytes(size))
        assert fault(Side(), iter([begin + more])) is Code.ENHANCE_YOUR_CALM
    bomb = b"\x40\x01x\x7f\x81\x1e" + bytes(4_000)  # one field of 4,000 bytes into the table, and then its index
    data = START + frames.frame(frames.HEADERS, 4, 1, bomb + 10_000 * b"\xbe")
    assert fault(Side(), iter([data])) is Code.COMPRESSION_ERROR


def test_empty_data_is_counted() -> None:
    wired = Wired(Limits(control_frames=1_000))
    number = wired.call()
    assert fault(wired, repeat(frames.frame(frames.DATA, 0, number), 1_100)) is Code.ENHANCE_YOUR_CALM


def test_credit_with_every_message_as_some_clients_send_it_is_no_flood() -> None:
    wired = Wired(Limits(control_frames=100))
    number = wired.call()
    for _ in range(2_000):
        wired.codec.receive(
            frames.credit(0, 10) + frames.credit(number, 10) + frames.frame(frames.DATA, 0, number, message(b"x"))
        )
        wired.codec.receive(frames.frame(frames.PING, 0, 0, bytes(8)))
    assert len(wired.calls[0].messages) == 2_000
