"""Drawn connections, whole and damaged, on the codec and on the package `h2`: both must judge alike.

`python -m tests.server.edge.http2.fuzz 100000` takes so many, and prints what came of them.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack

from server.edge.http2.limits import Limits
from tests.server.edge.http2.wired import HEADERS, Received, Side, message
from tidegate.http2 import frames
from tidegate.http2.frames import Code, ConnectionFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from server.edge.http2.fields import Request
    from server.edge.http2.stream import CallStream

# Where the codec ends a connection, and h2 does not.
_ONLY_OURS = [
    re.compile(pattern)
    for pattern in (
        "FRAME_SIZE_ERROR: a frame has",  # as its header says; h2 waits until it is whole
        "does not begin with settings",  # RFC 9113, 3.4; h2 does not look
        "which has not begun, is reset",  # 6.4; h2 passes over it
        "has an odd number",  # 5.1.1; h2 waits for the rest of the block
        "may not push",  # 8.4; likewise
        "a priority is cut",  # 5.3.1, 6.3; h2 waits for the rest of the block
        "frames of .* bytes",  # 6.5.3: one value after the other; h2 looks at the last
        "a continuation of another block",  # 6.10; h2 resets a stream that has ended
    )
]
# Where h2 ends a connection, and the codec passes over a frame, or ends only the stream.
_ONLY_THEIRS = [
    re.compile(pattern)
    for pattern in (
        "StreamIDTooLow",  # 5.1: the stream has ended, perhaps by a reset that crossed this; the codec forgets those
        "invalid padding",  # 6.2: it may leave no byte of a block
        "Setting 8 has",  # 6.5.2: passed over; h2 knows it from RFC 8441
        "May not increment flow control",  # 6.9.2; h2 also counts streams that have ended
        "does not have an :authority",  # 8.3.1: it may lack
        "ConnectionState.CLOSED",  # the client has said GOAWAY; its calls go on
    )
]
_OF_STREAMS = {frames.HEADERS, frames.CONTINUATION, frames.WINDOW_UPDATE}
_FLAGS = (0, 1, 4, 5, 8, 12, 32, 36, 44, 255)
_ODD_NUMBERS = (0, 1, 2, 3, 5, 7, 99, 2**31 - 1, 2**31 + 1)


# Drawn connections ----------------------------------------------------------------------------------------------------


class Drawn:
    """A client that talks at random and keeps to the rules; its frames, one by one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.frames: list[bytes] = []
        self._encoder = hpack.Encoder()
        self._next = 1
        self._open: list[int] = []
        self._room: dict[int, int] = {}
        self._add(frames.SETTINGS, 0, 0, b"".join(self._setting() for _ in range(rng.randrange(4))))
        for _ in range(rng.randrange(2, 30)):
            self._one()

    def _add(self, kind: int, flags: int, number: int, payload: bytes = b"") -> None:
        self.frames.append(frames.frame(kind, flags, number, payload))

    def _one(self) -> None:
        draw = self.rng.random()
        if draw < 0.2 or not self._open:
            self._call()
        elif draw < 0.65:
            self._data()
        elif draw < 0.72:
            self._add(frames.PING, self.rng.randrange(2), 0, self.rng.randbytes(8))
        elif draw < 0.8:
            credit = self.rng.randrange(1, 5_000)
            self._add(frames.WINDOW_UPDATE, 0, self.rng.choice([0, *self._open]), frames.U32.pack(credit))
        elif draw < 0.84:
            self._add(frames.SETTINGS, 0, 0, self._setting())
        elif draw < 0.87:
            self._add(frames.PRIORITY, 0, self.rng.choice(self._open), frames.U32.pack(0) + b"\5")
        elif draw < 0.89:
            self._add(self.rng.randrange(32, 255), self.rng.randrange(256), 0, self.rng.randbytes(5))
        elif draw < 0.95:
            self._end()
        else:
            self._add(frames.RST_STREAM, 0, self._leave(), frames.U32.pack(Code.CANCEL))

    def _setting(self) -> bytes:
        key = self.rng.choice([frames.TABLE_SIZE, frames.MAX_STREAMS, frames.INITIAL_WINDOW, frames.MAX_FRAME, 77])
        low, high = {frames.INITIAL_WINDOW: (0, 2**20), frames.MAX_FRAME: (2**14, 2**24)}.get(key, (0, 10_000))
        return frames.SETTING.pack(key, self.rng.randrange(low, high))

    def _call(self) -> None:
        rng, number = self.rng, self._next
        if rng.random() < 0.1:
            self._encoder.header_table_size = rng.choice([0, 60, 500, 4_096])
        more = [(f"x-{rng.randrange(5)}", "v" * rng.randrange(60)) for _ in range(rng.randrange(4))]
        block = self._encoder.encode([*HEADERS, *more], huffman=rng.random() < 0.5)
        ends = rng.random() < 0.1
        flags = frames.END_STREAM if ends else 0
        cuts = sorted(rng.sample(range(1, len(block)), rng.choice([0, 0, 0, 1, 2])))
        first, *rest = (block[a:b] for a, b in pairwise([0, *cuts, len(block)]))
        if rng.random() < 0.2:
            flags, first = flags | frames.WITH_PRIORITY, frames.U32.pack(0) + b"\5" + first
        if rng.random() < 0.2:
            flags, first = flags | frames.PADDED, b"\4" + first + bytes(4)
        self._add(frames.HEADERS, flags | (0 if rest else frames.END_HEADERS), number, first)
        for i, piece in enumerate(rest, 1):
            self._add(frames.CONTINUATION, frames.END_HEADERS if i == len(rest) else 0, number, piece)
        self._next += rng.choice([2, 2, 2, 4])
        if not ends:
            self._open.append(number)
            self._room[number] = 20_000

    def _data(self) -> None:
        rng, number = self.rng, self.rng.choice(self._open)
        data = message(rng.randbytes(rng.choice([0, 1, 9, 60, 300, rng.randrange(9_000)])))
        if (size := len(data) + 20) > self._room[number]:
            return
        self._room[number] -= size
        cut = rng.randrange(len(data)) if rng.random() < 0.3 else len(data)
        for piece in (data[:cut], data[cut:]):
            if not piece:
                continue
            padded = rng.random() < 0.1
            self._add(frames.DATA, frames.PADDED * padded, number, b"\3" + piece + bytes(3) if padded else piece)

    def _end(self) -> None:
        self._add(frames.DATA, frames.END_STREAM, self._leave())

    def _leave(self) -> int:
        return self._open.pop(self.rng.randrange(len(self._open)))


def damaged(rng: random.Random, whole: Sequence[bytes]) -> list[bytes]:
    """The frames with one to three faults."""
    found = list(whole)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(found))
        found[at : at + 1] = fault(rng, found[at])
    for _ in range(rng.randrange(2)):
        found.insert(rng.randrange(len(found)), found.pop(rng.randrange(len(found))))
    return found


def fault(rng: random.Random, one: bytes) -> list[bytes]:
    """What comes instead of a frame."""
    number, flags, at = rng.choice(_ODD_NUMBERS), rng.choice(_FLAGS), rng.randrange(len(one))
    match rng.randrange(8):
        case 0:
            return [one, one]
        case 1:
            return [one[: at or 1]]
        case 2:
            return [one[:at] + bytes([one[at] ^ 1 << rng.randrange(8)]) + one[at + 1 :]]
        case 3:
            return [one[:4] + bytes([flags]) + one[5:]]
        case 4:
            return [one[:5] + frames.U32.pack(number) + one[9:]]
        case 5:
            payload = rng.randbytes(rng.choice([0, 1, 3, 4, 5, 6, 7, 8, 9, 12, 17_000]))
            return [one, frames.frame(rng.randrange(12), flags, number, payload)]
        case 6:
            key, value = rng.randrange(8), rng.choice([0, 1, 2, 16_383, 2**14, 2**24, 2**31 - 1, 2**31])
            return [one, frames.settings({key: value})]
        case _:
            return [one, frames.credit(number, rng.choice([0, 1, 2**31 - 1, 2**31]))]


# Judged ---------------------------------------------------------------------------------------------------------------


class Kept(Received):
    """A receiver of messages that may say that they are compressed."""

    def message(self, data: bytes, compressed: bool) -> None:  # noqa: ARG002
        super().message(data, False)


class Ours(Side):
    """The codec, frame by frame."""

    def __init__(self) -> None:
        super().__init__(Limits(message=2**22))
        self.fault = ""

    def begin(self, stream: CallStream, request: Request) -> None:
        stream.receiver = Kept(stream, request)
        self.calls.append(stream.receiver)

    def take(self, data: bytes) -> None:
        """Raises whatever the codec raises, other than ConnectionFault."""
        try:
            self.codec.receive(data)
        except ConnectionFault as fault:
            self.fault = f"{fault.code.name}: {fault}"

    @property
    def got(self) -> list[tuple[int, list[bytes], bool]]:
        """Of each call its messages, and whether they are all."""
        return [(call.stream.id, call.messages, call.ended) for call in self.calls]

    @cached_property
    def refused(self) -> set[int]:
        """The streams that it has reset."""
        said = by_frames(frames.PREFACE + b"".join(self.out))
        return {int.from_bytes(f[5:9]) for f in said if f[3:4] == bytes([frames.RST_STREAM])}

    def end(self) -> None:
        for stream in list(self.codec.streams.values()):
            stream.was_reset()
        assert not self.codec.streams
        assert not self.codec.blocked


class Theirs:
    """The package h2 as a server."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._side = h2.connection.H2Connection(config)
        self._side.initiate_connection()
        self._side.increment_flow_control_window(2**22 - frames.WINDOW)
        self._data: dict[int, bytes] = {}
        self._ended: set[int] = set()
        self.fault = ""

    def take(self, data: bytes) -> None:
        try:
            events = self._side.receive_data(data)
        except h2.exceptions.ProtocolError as fault:
            self.fault = f"{type(fault).__name__}: {fault}"
            return
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self._data[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self._data[event.stream_id] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                self._ended.add(event.stream_id)

    @property
    def got(self) -> dict[int, tuple[list[bytes], bool]]:
        """Of each call its messages, and whether they are all."""
        return {number: (messages(data), number in self._ended) for number, data in self._data.items()}


def messages(data: bytes) -> list[bytes]:
    found, at = [], 0
    while (
        len(data) - at >= 5 and data[at] < 2 and at + 5 + (size := frames.U32.unpack_from(data, at + 1)[0]) <= len(data)
    ):
        found.append(data[at + 5 : at + 5 + size])
        at += 5 + size
    return found


def by_frames(data: bytes) -> Iterator[bytes]:
    """The preface, and then one frame after the other, as their lengths say."""
    at = len(frames.PREFACE)
    yield data[:at]
    while at < len(data):
        size = frames.HEAD.size + int.from_bytes(data[at : at + 3])
        yield data[at : at + size]
        at += size


@dataclass(frozen=True)
class Case:
    """Both sides after the same frames: all of them, or until one has ended the connection."""

    ours: Ours
    theirs: Theirs
    last: bytes  # frame

    @property
    def verdict(self) -> str:
        """Empty if they agree, or differ as they may; else what each says."""
        ours, theirs = self.ours.fault, self.theirs.fault
        if ours and theirs:
            return ""
        if any(pattern.search(ours) for pattern in _ONLY_OURS) if ours else (not theirs or self._may_go_on(theirs)):
            return ""
        return f"kind {self.last[3:4].hex()}: {ours or 'goes on'} | {theirs or 'goes on'}"

    def _may_go_on(self, theirs: str) -> bool:
        """See _ONLY_THEIRS, and what depends on the frame."""
        kind, number = self.last[3], int.from_bytes(self.last[5:9]) & frames.MOST_WINDOW
        return bool(
            len(self.last) < frames.HEAD.size + int.from_bytes(self.last[:3])  # h2 does not wait until it is whole
            or kind > frames.CONTINUATION  # 5.5: passed over; h2 knows some, and checks them
            or (kind in _OF_STREAMS and number in self.ours.refused)  # 8.1.1, 6.9: an error of the stream
            or (
                kind == frames.WINDOW_UPDATE and len(self.last) == 13 and self.last[9] > 127
            )  # 6.9: the bit means nothing
            or (kind == frames.WINDOW_UPDATE and number and number not in self.ours.codec.streams)  # 5.1: it has ended
            or any(pattern.search(theirs) for pattern in _ONLY_THEIRS)
        )

    @property
    def difference(self) -> str:
        """What one side delivered and the other did not, of calls that the codec has not refused; "" if nothing."""
        faultless = not (self.ours.fault or self.theirs.fault)
        for call in self.ours.calls:
            heard, ended = self.theirs.got.get(call.stream.id, ([], False))
            if call.messages != heard[: len(call.messages)] and faultless:
                return f"other messages {call.messages} {heard}"
            if faultless and not call.is_gone and (len(call.messages), call.ended) != (len(heard), ended):
                return "further messages"
        further = self.theirs.got.keys() - self.ours.refused - {call.stream.id for call in self.ours.calls}
        return "a further call" if further and faultless else ""


def judged(data: bytes) -> Case:
    ours, theirs, frame = Ours(), Theirs(), b""
    for frame in by_frames(data):
        ours.take(frame)
        theirs.take(frame)
        if ours.fault or theirs.fault:
            break
    return Case(ours, theirs, frame)


def run(count: int, seed: int = 0) -> Counter[str]:
    """How many inputs came to what."""
    rng, found = random.Random(seed), Counter[str]()  # noqa: S311
    for i in range(count):
        whole = Drawn(rng).frames
        parts = damaged(rng, whole) if i % 3 else whole
        data = frames.PREFACE + b"".join(parts)
        case = judged(data)
        found["the connection ended" if case.ours.fault or case.theirs.fault else "the connection goes on"] += 1
        found["whole" if parts is whole else "damaged"] += 1
        if trouble := case.verdict or case.difference or (case.ours.fault if parts is whole else ""):
            found[f"differs: {trouble}"] += 1
        case.ours.end()
        check_cuts(rng, data, case)
    return found


def check_cuts(rng: random.Random, data: bytes, case: Case) -> None:
    """The codec makes the same of the same bytes, however they are cut."""
    if case.theirs.fault:  # the frames behind were not looked at
        return
    cut, size = Ours(), rng.choice([1, 2, 3, 5, 8, 9, 10, 13, 14, 15, 100, 1_000])
    size = size if len(data) < 3_000 else max(size, 9)
    for start in range(0, len(data), size):
        cut.take(data[start : start + size])
        if cut.fault:
            break
    assert (cut.fault, cut.got, cut.refused) == (case.ours.fault, case.ours.got, case.ours.refused)
    cut.end()


if __name__ == "__main__":
    for what, times in sorted(run(int(sys.argv[1])).items()):
        print(f"{times:8,} {what}"[:300])
