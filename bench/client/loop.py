"""Closed loops over a call, and the window of time in which they count. They know no server and no protocol."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.client.plain import Call
from bench.client.traffic import Traffic
from bench.processes.processors import Usage, reading, used
from server.edge.varints import VARINT
from tidegate.v1 import sequence_pb2
from tidegate.varints import tag

now = time.perf_counter
MORE = tag(sequence_pb2.StreamRequest, "more", 2)


@dataclass(frozen=True)
class Window:
    """When answers count, in seconds of this process's performance counter."""

    start: float
    end: float


class Loops:
    """The loops of one call. Each sends its next message in the turn that brings the whole answer to its last.

    Attributes:
        took: the seconds of each message that was answered in the window.
        done: once the last answer is there; raises what went wrong.
    """

    def __init__(self, call: Call, traffics: Sequence[Traffic], window: Window, *, bundled: bool) -> None:
        self.took: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._call, self._traffics, self._window = call, traffics, window
        self._parse = traffics[0].parse
        self._place = traffics[0].concerned if len(traffics) > 1 else _only
        self._open = len(traffics)
        self._bundled = bundled
        call.heard, call.ended = self._bundle_heard if bundled else self._heard, self._fail

    def begin(self) -> None:
        """Sends the first message of each."""
        self._sent = [now()] * len(self._traffics)
        self._send(self._traffics)

    def _send(self, ready: Sequence[Traffic]) -> None:
        messages = [traffic.send() for traffic in ready]
        for message in [bundle(messages)] if self._bundled else messages:
            self._call.send(message)

    def _heard(self, message: bytes) -> None:
        """What answers one message."""
        response = self._parse(message)
        place = self._place(response)
        traffic = self._traffics[place]
        if traffic.take(response) and self._goes_on(place, now()):
            self._call.send(traffic.send())

    def _bundle_heard(self, message: bytes) -> None:
        """What answers several; one message asks for the next step of all of them."""
        response, moment, ready = self._parse(message), now(), []
        for part in (response, *response.more):
            place = self._place(part)
            if self._traffics[place].take(part) and self._goes_on(place, moment):
                ready.append(self._traffics[place])
        if ready:
            self._send(ready)

    def _goes_on(self, place: int, moment: float) -> bool:
        if moment >= self._window.end:
            self._open -= 1
            if not self._open and not self.done.done():
                self.done.set_result(None)
            return False
        if moment >= self._window.start:
            self.took.append(moment - self._sent[place])
        self._sent[place] = moment
        return True

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _only(_: Any) -> int:  # noqa: ANN401 # a message of any protocol
    return 0


def bundle(messages: Sequence[bytes]) -> bytes:
    """Put messages of the contract into the first of them."""
    pieces = [messages[0]]
    for message in messages[1:]:
        pieces += MORE, VARINT[len(message)], message
    return b"".join(pieces)


async def processors(window: Window, server: int) -> Usage:
    """Wait for the window's start and end, and see what was used between them."""
    await asyncio.sleep(window.start - now())
    before = reading(server)
    await asyncio.sleep(window.end - now())
    return used(before, reading(server))
