"""Frames that cost the server much and a client little, on a codec without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h2.events
import pytest

from server.edge.http2.limits import Limits
from server.edge.http2.stream import CallStream
from tests.server.edge.http2.wired import HEADERS, Side, Wired, message
from tidegate.http2 import frames
from tidegate.http2.frames import Code, ConnectionFault

if TYPE_CHECKING:
    from collections.abc import Iterator

START = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)


def headers(wired: Wired, number: int) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS, number, wired.client.encoder.encode(HEADERS))


def blocked(count: int) -> Wired:
    """So many calls that wait for credit of the connection, of which there is none."""
    wired = Wired()
    wired.codec.receive(frames.settings({frames.INITIAL_WINDOW: 2**20}))
    for number in range(1, 2 * count, 2):
        wired.codec.receive(headers(wired, number))
        wired.calls[-1].stream.send(bytes(100_000))
    wired.said()
    return wired


def test_a_little_credit_has_one_waiting_stream_looked_at_and_not_each(monkeypatch: pytest.MonkeyPatch) -> None:
    wired, looks, drain = blocked(200), [], CallStream.drain
    monkeypatch.setattr(CallStream, "drain", lambda stream: (looks.append(stream.id), drain(stream)))
    for _ in range(100):
        wired.codec.receive(frames.credit(0, 1))
    assert len(looks) == 100


def test_credit_of_the_connection_reaches_every_stream_that_waits_for_it() -> None:
    wired = blocked(5)
    wired.codec.receive(frames.credit(0, 10_000_000))
    while wired.writes_later:
        wired.said()
    assert [call.stream.waiting for call in wired.calls] == [None] * 5
    assert [call.times_writable for call in wired.calls] == [1] * 5


def test_a_stream_that_waits_for_its_own_credit_is_told_of_a_larger_first_window() -> None:
    wired = Wired()
    wired.call()
    stream = wired.calls[0].stream
    wired.codec.receive(frames.credit(0, 2**20))
    stream.send(bytes(100_000))
    wired.said()
    assert stream.waiting is not None
    assert not wired.codec.blocked
    wired.codec.receive(frames.settings({frames.INITIAL_WINDOW: 2**20}))
    assert stream.waiting is None


def test_windows_that_are_changed_again_and_again_cost_as_much_as_the_streams_they_change() -> None:
    wired = Wired(Limits(control_frames=10_000))
    for number in range(1, 1_001, 2):
        wired.codec.receive(headers(wired, number))
    frame = frames.frame(frames.SETTINGS, 0, 0, 16 * frames.SETTING.pack(4, 10) + 16 * frames.SETTING.pack(4, 20))
    assert sent_until_refused(wired, (frame for _ in range(100))) < 15


def test_calls_that_the_server_ends_before_the_client_count_also_when_they_end_later() -> None:
    wired = Wired(Limits(control_frames=100))

    def calls() -> Iterator[bytes]:
        for number in range(1, 1_001, 2):
            yield headers(wired, number)
            wired.calls[-1].stream.finish(0)  # as a handler does, outside of any read

    assert sent_until_refused(wired, calls()) < 110


@pytest.mark.parametrize("frame", [frames.frame(frames.PING, 0, 0, bytes(8)), frames.credit(0, 1)])
def test_pings_and_credit_beyond_what_any_busy_client_sends_end_the_connection(frame: bytes) -> None:
    side = Side(Limits(light_frames=5_000, light_frames_per_second=1_000))
    side.codec.receive(START)
    for _ in range(100):
        side.now += 1.0
        side.codec.receive(1_000 * frame)
    assert sent_until_refused(side, (1_000 * frame for _ in range(10))) == 4


def test_what_is_sent_after_a_reset_goes_nowhere() -> None:
    wired = Wired()
    number = wired.call()
    stream = wired.calls[0].stream
    stream.send(b"x")
    wired.codec.receive(frames.reset(number, Code.CANCEL))
    wired.said()
    stream.send(b"late")
    stream.finish(0)
    assert wired.said() == b""


def test_a_client_that_keeps_no_table_of_fields_can_decode_what_it_gets() -> None:
    wired = Wired()
    wired.client.update_settings({frames.TABLE_SIZE: 0})
    wired.exchange()
    number = wired.call()
    wired.calls[0].stream.send(b"x")
    wired.calls[0].stream.finish(0)
    wired.exchange()
    assert wired.data(number) == message(b"x")
    assert wired.trailers(number)["grpc-status"] == "0"
    assert not wired.of(h2.events.ConnectionTerminated)


def sent_until_refused(side: Side, sends: Iterator[bytes]) -> int:
    """How many of these a connection takes before it ends with ENHANCE_YOUR_CALM."""
    for taken, data in enumerate(sends):
        try:
            side.codec.receive(data)
        except ConnectionFault as fault:
            return taken if fault.code is Code.ENHANCE_YOUR_CALM else -1
    raise AssertionError("it took all")
