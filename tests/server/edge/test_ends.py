"""What a stream held is free once it has ended, not only when the collector of cycles comes by."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import grpc
import pytest

from server.edge.exchanges.exchange import Exchange
from server.streams.handles import Handles
from server.streams.stream import Stream
from tests.server.world import World
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator


HIGH = 60_000  # a handle: the tables of its stream take some MiB


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=65_536)
    gc.collect()
    gc.disable()
    yield world
    gc.enable()
    world.close()


@pytest.mark.parametrize("end", ["cut", "last word", "refusal"])
def test_a_stream_that_has_ended_leaves_without_the_collector_of_cycles(world: World, end: str) -> None:
    world.connect(0, 0)
    line = world.line(0)
    line.say(pb.StreamRequest(open=pb.Open(handle=HIGH, model="recall", version=1)))
    line.say(pb.StreamRequest(open=pb.Open(handle=HIGH, model="recall", version=1)))  # is refused: it is open
    line.say(pb.StreamRequest(read_state=pb.ReadState(handle=HIGH)))
    world.quiet()
    assert len(line.down) == 3
    if end == "last word":
        line.say(grpc.aio.EOF)
        world.quiet()
    elif end == "refusal":
        assert isinstance(line._listener, Exchange)
        line._listener.fail(ValueError("its token was withdrawn"))
        world.quiet()
    world.cut(0)
    world.quiet()
    world.write(0)
    world.faults.clear()
    del line
    assert not [each for each in gc.get_objects() if type(each) in (Stream, Handles)]
