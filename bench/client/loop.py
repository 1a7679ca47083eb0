"""Closed loops over an open call, and the window of time in which they count. They know no server and no message."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from bench.client.traffic import Traffic, WrongAnswerError
from bench.processes.processors import Usage, reading, used
from tidegate.v1 import sequence_pb2

if TYPE_CHECKING:
    Call: TypeAlias = grpc.aio.StreamStreamCall[sequence_pb2.StreamRequest, sequence_pb2.StreamResponse]

now = time.perf_counter


@dataclass(frozen=True)
class Window:
    """When answers count, in seconds of this process's performance counter."""

    start: float
    end: float


async def answer(call: "Call") -> Any:  # noqa: ANN401 # a message of its protocol
    """Read the next answer; a stream that ends here ends too early."""
    response = await call.read()
    if response is grpc.aio.EOF:
        raise WrongAnswerError(f"the server ended the stream: {await call.code()} {await call.details()}")
    return response


async def one_by_one(call: "Call", traffic: Traffic, window: Window) -> list[float]:
    """Send, wait for the whole answer, send the next; give the seconds that each message in the window took."""
    took = []
    moment = now()
    while moment < window.end:
        sent = moment
        await call.write(traffic.send())
        while not traffic.take(await answer(call)):
            pass
        moment = now()
        if window.start <= moment < window.end:
            took.append(moment - sent)
    return took


async def side_by_side(call: "Call", traffics: Sequence[Traffic], window: Window) -> list[float]:
    """Do the same for many sequences on one stream; the place of a sequence is its handle."""
    took, sent, open_loops = [], [now()] * len(traffics), len(traffics)
    for traffic in traffics:
        await call.write(traffic.send())
    while open_loops:
        response = await answer(call)
        handle = traffics[0].concerned(response)
        if not traffics[handle].take(response):
            continue
        moment = now()
        if window.start <= moment < window.end:
            took.append(moment - sent[handle])
        if moment >= window.end:
            open_loops -= 1
        else:
            sent[handle] = moment
            await call.write(traffics[handle].send())
    return took


async def together(call: "Call", traffics: Sequence[Traffic], window: Window) -> list[float]:
    """Do the same with a message for all that is ready: what one message answered, the next one asks."""
    took, sent, open_loops = [], [now()] * len(traffics), len(traffics)
    await call.write(bundle(traffics))
    while open_loops:
        response = await answer(call)
        moment, ready = now(), []
        for part in (response, *response.more):
            handle = part.answers.handle
            if not traffics[handle].take(part):
                continue
            if window.start <= moment < window.end:
                took.append(moment - sent[handle])
            if moment >= window.end:
                open_loops -= 1
            else:
                sent[handle] = moment
                ready.append(traffics[handle])
        if ready:
            await call.write(bundle(ready))
    return took


def bundle(traffics: Sequence[Traffic]) -> sequence_pb2.StreamRequest:
    """Put the next message of each into one."""
    request = sequence_pb2.StreamRequest()
    request.CopyFrom(traffics[0].send())
    for traffic in traffics[1:]:
        request.more.append(traffic.send())
    return request


async def processors(window: Window, server: int) -> Usage:
    """Wait for the window's start and end, and see what was used between them."""
    await asyncio.sleep(window.start - now())
    before = reading(server)
    await asyncio.sleep(window.end - now())
    return used(before, reading(server))
