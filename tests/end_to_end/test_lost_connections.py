"""A connection that breaks ends what was open on it, whatever was on its way, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

import tidegate
from tests.end_to_end.bystander import bystander
from tests.raw_stream import RawStream, open_, steps
from tests.running_server import ROOT, RunningServer
from tests.zoo import Zoo, repository
from tidegate.v1 import sequence_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ALL = 20  # how many sequences the server takes
BIG = np.zeros((20_000, 3), np.float32)  # 240 kB: more than a connection takes in one piece


@pytest.fixture(scope="module")
def shared(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = repository(zoo, tmp_path_factory.mktemp("limited"), "lstm")
    with RunningServer(models, "--max-sequences", str(ALL + 1)) as server:
        yield server.ready()


@pytest.fixture
def limited(shared: RunningServer) -> RunningServer:
    """A server whose sequences can all be taken by one client, and one more for a bystander; none of them is taken."""
    with tidegate.connect(shared.address) as operator:
        while any(sequence.life == "open" for sequence in operator.admin.sequences()):
            pass  # until the server knows that the clients of the test before are gone
    return shared


async def take_all_when_free(server: RunningServer) -> None:
    """Opens every sequence that the server has, as soon as the one who had them is known to be gone."""
    async with asyncio.timeout(120), RawStream(server.address) as stream:
        while not isinstance(await stream.ask(open_(0, count=ALL)), sequence_pb2.Opened):
            pass
        assert len(await stream.run(0, 0, BIG[:3])) == 3


class Cut:
    """A proxy that breaks the connection once `limit` bytes went from the client to the server."""

    def __init__(self, address: str, how: str) -> None:
        self._target = address.rsplit(":", 1)
        self._how = how
        self.limit = sys.maxsize
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, on = await asyncio.open_connection(*self._target)
        if self._how == "reset":
            hard = struct.pack("ii", 1, 0)
            on.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
        answers = asyncio.create_task(_pump(back, writer))
        while (data := await reader.read(4096)) and self.limit > 0:
            on.write(data[: self.limit])
            await on.drain()
            self.limit -= len(data)
        on.transport.abort() if self._how == "reset" else on.close()
        await answers
        writer.transport.abort()
        self.done.set()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
    except ConnectionError:
        pass  # it was to break


@asynccontextmanager
async def cut(address: str, how: str) -> AsyncIterator[tuple[Cut, str]]:
    """A proxy, and its address."""
    cutter = Cut(address, how)
    listening = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    yield cutter, f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()


@pytest.mark.parametrize("how", ["reset", "closed"])
@pytest.mark.parametrize("bytes_", [1, 100, 100_000], ids=["in a frame's head", "in a row", "in a chunk"])
async def test_a_stream_that_is_cut_within_a_message_ends_its_sequences(
    limited: RunningServer, how: str, bytes_: int
) -> None:
    async with (
        bystander(limited.address),
        cut(limited.address, how) as (cutter, address),
        RawStream(address) as stream,
    ):
        await stream.ask(open_(0, count=ALL))
        await stream.run(0, 0, BIG[:5])
        cutter.limit = bytes_
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.ask(steps(0, 5, BIG))
        # grpc.aio's client says INTERNAL by itself where a write fails before it has the status (grpc issue 36066)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
        await cutter.done.wait()
        await take_all_when_free(limited)
    assert "Traceback" not in limited.log


CLIENT = """
import asyncio, sys
import numpy as np
from tests.raw_stream import RawStream, open_, steps

async def main():
    rows = np.zeros((1000, 3), np.float32)
    async with RawStream(sys.argv[1]) as stream:
        await stream.ask(open_(0, count=20))
        first = 0
        while True:
            await stream.say(*(steps(handle, first, rows) for handle in range(20)))
            await stream.hear()
            print("heard", flush=True)
            first += len(rows)

asyncio.run(main())
"""


async def test_a_client_that_is_killed_leaves_nothing_behind(limited: RunningServer) -> None:
    async with bystander(limited.address):
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, limited.address, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert client.stdout is not None
        assert await client.stdout.readline() == b"heard\n"
        client.kill()
        await client.communicate()
        await take_all_when_free(limited)
    assert "Traceback" not in limited.log


async def test_clients_that_cancel_with_steps_on_their_way_leave_nothing_behind(limited: RunningServer) -> None:
    async with bystander(limited.address):
        for _ in range(10):  # the bystander's steps share batches with theirs
            async with RawStream(limited.address) as stream:
                while not isinstance(await stream.ask(open_(0, count=ALL)), sequence_pb2.Opened):
                    pass
                # no more than the server computes ahead of a client that does not read
                await stream.say(*(steps(handle, 0, BIG[:400]) for handle in range(ALL)))
                await stream.hear()
                stream.call.cancel()
        await take_all_when_free(limited)
    assert "Traceback" not in limited.log


async def test_a_client_that_says_its_last_word_still_gets_every_answer(limited: RunningServer) -> None:
    async with RawStream(limited.address) as stream:
        await stream.say(open_(0, count=2), *(steps(handle, 0, BIG) for handle in range(2)))
        events = await stream.rest()
    counted = {0: 0, 1: 0}
    for event in events[1:]:
        assert event.first_step == counted[event.handle]
        counted[event.handle] += event.outputs[0].shape[0]
    assert counted == {0: len(BIG), 1: len(BIG)}


async def test_sequences_that_are_closed_with_steps_on_their_way_end_after_the_last_answer(
    limited: RunningServer,
) -> None:
    close = sequence_pb2.StreamRequest(close=sequence_pb2.Close(handle=0, count=3))
    async with RawStream(limited.address) as stream:
        await stream.say(
            open_(0, count=3), *(steps(handle, 0, BIG[: 100 * (handle + 1)]) for handle in range(3)), close
        )
        events = await stream.rest()
    assert isinstance(events[0], sequence_pb2.Opened)
    assert sorted(event.handle for event in events[1:-1]) == [0, 1, 2]
    assert (events[-1].handle, events[-1].count, list(events[-1].steps)) == (0, 3, [100, 200, 300])


CLOSE = sequence_pb2.StreamRequest(close=sequence_pb2.Close(handle=0))


@pytest.mark.parametrize(
    ("requests", "heard"),
    [
        ([open_(model="nothing")], ["Failure"]),
        ([open_()], ["Opened"]),
        ([open_(), steps(0, 0, BIG[0])], ["Opened", "Answers"]),
        ([open_(), steps(0, 7, BIG[0])], ["Opened", "Failure"]),
        ([open_(), steps(0, 0, BIG[:9]), CLOSE], ["Opened", "Answers", "Closed"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value[0], str) else "",
)
async def test_a_stream_whose_last_word_follows_at_once_hears_everything_and_ends_well(
    limited: RunningServer, requests: list[sequence_pb2.StreamRequest], heard: list[str]
) -> None:
    """As a tool does that sends a file of requests and half-closes: also where the last event is no answer."""
    for _ in range(30):
        async with RawStream(limited.address) as stream:
            await stream.say(*requests)
            assert [type(event).__name__ for event in await stream.rest()] == heard
    assert "ERROR" not in limited.log
