"""One stream: what waits for a client that does not read, whose turn it is, and that the server stops."""

from __future__ import annotations

import asyncio
import gc
import weakref
from threading import Event
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from server.durability import checkpointer
from server.edge.exchanges.dialect import Bundle
from server.edge.exchanges.exchange import Exchange
from server.errors import TidegateError
from server.streams.events import Answered, Form
from tests.server.world import World
from tests.simulation.loop import StandingLoop
from tidegate import wire
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.world import Line

ROWS = np.random.default_rng(7).normal(size=(60, 3)).astype(np.float32)


def test_a_client_that_vanishes_with_steps_under_way_does_not_keep_a_server_from_stopping(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path_factory.getbasetemp(), spot_us=0.0)  # the engine's thread computes
    world.connect(0, 0)
    (one,) = world.open(0)
    world.settle()
    server, line, go_on = world.servers[0], world.line(0), Event()
    engine = server.shelf.models[1].batcher._engine
    for name in ("run", "run_once"):
        run = getattr(engine, name)
        monkeypatch.setattr(engine, name, lambda *given, run=run: go_on.wait() and run(*given))
    world.clients[0].give(one, ROWS)
    world.send(0)
    world.quiet()
    server.leave.begin()
    world.quiet()
    line.serving.cancel()
    world.quiet()
    go_on.set()
    flushed = world.loop.create_task(server.keeper.flush())
    while not flushed.done():
        world.quiet()
        world.work(0)
    assert flushed.result()
    assert not world.faults
    server.assert_empty()
    world.close()


def world_of_patience(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> World:
    """Its time stands still, and whoever waits for the store waits for 5 seconds."""
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "new_event_loop", StandingLoop)
        world = World(tmp_path_factory.getbasetemp())
    for server in world.servers:
        server.keeper._store._patience = world.settings.store_seconds
    world.connect(0, 0)
    return world


def heard(world: World) -> list[pb.StreamResponse]:
    line = world.line(0)
    said = [pb.StreamResponse.FromString(message) for message in line.down]
    line.down.clear()
    return said


def heard_but_closed(world: World) -> list[pb.StreamResponse]:
    """Without the confirmations of what was parked: a client waits for the store no longer for them than for others."""
    return [one for one in heard(world) if not one.HasField("closed")]


def begin(world: World) -> tuple[Line, pb.Opened]:
    """Two sequences of which there is something to write; the store hangs over that."""
    line = world.line(0)
    line.say(pb.StreamRequest(open=pb.Open(count=2, model="recall", version=1)))
    world.quiet()
    world.write(0)
    (told,) = heard(world)
    line.say(pb.StreamRequest(close=pb.Close(handle=1, park=True)))
    world.quiet()
    heard(world)
    world.begin_to_write(0)
    world.quiet()
    return line, told.opened


@pytest.mark.parametrize("asked", ["resume", "rewind", "move"])
def test_who_waits_behind_a_write_that_hangs_is_told_so_as_soon_as_behind_any_other_call(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    world = world_of_patience(tmp_path_factory, monkeypatch)
    line, opened = begin(world)
    requests = {
        "resume": pb.StreamRequest(
            resume=pb.Resume(
                handle=3, sequence_ids=opened.sequence_ids[1:], resume_token=opened.resume_token, answered=[0]
            )
        ),
        "rewind": pb.StreamRequest(rewind=pb.Rewind(handle=0, step=0)),
        "move": pb.StreamRequest(move=pb.Move(handle=0, version=2)),
    }
    if asked == "resume":  # what has left since is to be written before
        line.say(pb.StreamRequest(open=pb.Open(handle=2, model="recall", version=1)))
        line.say(pb.StreamRequest(close=pb.Close(handle=2, park=True)))
        world.quiet()
        heard(world)
    line.say(requests[asked])
    assert isinstance(world.loop, StandingLoop)
    world.loop.advance(4.9, world.quiet)
    assert heard(world) == []
    world.loop.advance(0.2, world.quiet)
    (failure,) = heard_but_closed(world)
    assert failure.failure.error.reason == error_pb2.REASON_STORE_UNAVAILABLE
    world.close()


def test_a_request_behind_long_work_is_taken_once_that_is_done_although_the_store_hangs_that_confirms_it(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of_patience(tmp_path_factory, monkeypatch)
    world.servers[0].turns._slice = 0.0  # each piece has a turn of its own
    line, _ = begin(world)
    line.say(pb.StreamRequest(open=pb.Open(handle=2, model="recall", version=1)))
    world.quiet()
    (told,) = heard(world)
    assert told.opened.handle == 2
    world.close()


def test_a_client_hears_that_its_server_stops_although_the_store_hangs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of_patience(tmp_path_factory, monkeypatch)
    begin(world)
    world.servers[0].leave.begin()
    assert isinstance(world.loop, StandingLoop)
    world.loop.advance(5.1, world.quiet)
    (released,) = heard_but_closed(world)
    assert released.released.error.reason == error_pb2.REASON_DRAINING
    world.close()


def test_a_last_write_ends_when_its_time_is_over(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of_patience(tmp_path_factory, monkeypatch)
    begin(world)
    flushed = world.loop.create_task(world.servers[0].keeper.flush())
    assert isinstance(world.loop, StandingLoop)
    world.loop.advance(5.1, world.quiet)
    assert flushed.result() is False
    world.close()


def test_all_that_is_left_is_written_however_long_it_takes_while_the_store_answers(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "_MOST", 2)
    world = world_of_patience(tmp_path_factory, monkeypatch)
    world.servers[0].keeper._patience = world.settings.store_seconds
    opened = world.open(0, 6)
    world.send(0)
    world.quiet()
    world.hear(0)
    for one in opened:
        world.give(0, one, ROWS[:1])
    world.send(0)
    world.quiet()
    flushed = world.loop.create_task(world.servers[0].keeper.flush())
    assert isinstance(world.loop, StandingLoop)
    for _ in range(3):
        assert not flushed.done()
        world.loop.advance(3.0, world.quiet)  # a write may take 5
        world.work(0, 1)
    assert flushed.result() is True
    assert world.store.usage().sequences == len(opened)
    world.close()


def test_refusals_that_nobody_reads_are_counted_in_bytes_and_no_more_is_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=1_000, window_mib=0.1)
    world.connect(0, 0)
    line = world.line(0)
    line.reads = False
    refused = pb.FleetSteps(handles=np.full(1_000, 2**32 - 1, "<u4").tobytes())
    for _ in range(1_000):
        line.say(pb.StreamRequest(fleet=refused))
    world.quiet()
    (message,) = line.down
    assert (1_000 - len(line.up) - 2) * len(message) < 0.1 * 2**20
    world.close()


def test_the_refusal_of_more_handles_than_a_client_may_have_names_one_and_none_is_named_that_cannot_be(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    line = world.line(0)
    line.say(pb.StreamRequest(fleet=pb.FleetSteps(handles=bytes(4 * 1_000))))
    line.say(pb.StreamRequest(resume=pb.Resume(handle=2**32 - 1, sequence_ids=["a", "b"], answered=[0, 0])))
    world.quiet()
    assert [list(response.failure.handles) for response in heard(world)] == [[0], [2**32 - 1]]
    assert not world.faults
    world.close()


def test_between_the_openings_of_a_bundle_others_get_their_turn(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=30_000)
    world.connect(0, 0)
    line = world.line(0)
    opens = [pb.StreamRequest(open=pb.Open(handle=i * 300, count=300, model="recall", version=1)) for i in range(100)]
    opens[0].more.extend(opens[1:])
    line.say(opens[0])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while len(line.down) < 100:
            turns += bool(line.down)
            await asyncio.sleep(0)

    world.run(others())
    assert turns > 5
    world.close()


def test_others_get_their_turn_between_the_arrival_of_a_large_message_and_its_first_request(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    line = world.line(0)
    order = list[str]()

    def requests() -> Iterator[pb.StreamRequest]:
        order.append("first request")
        yield pb.StreamRequest()

    async def others() -> None:
        for _ in range(20):
            order.append("others")
            await asyncio.sleep(0)

    async def arrives(large: bool) -> list[str]:
        order.clear()
        line.say(Bundle(requests(), large))
        await others()
        return order[: order.index("first request")]

    apart = [len(world.run(arrives(large))) for large in (False, True)]
    assert apart[1] == apart[0] + 1
    world.close()


def test_a_message_is_not_kept_while_the_next_one_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    line = world.line(0)
    message = Bundle(pb.StreamRequest() for _ in range(2))
    kept = weakref.ref(message)
    line.say(message)
    del message
    world.quiet()
    assert len(heard(world)) == 2
    assert kept() is None
    world.cut(0)
    world.end()


def test_an_answer_that_waits_for_its_client_does_not_keep_the_batch_that_it_ran_in(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    line = world.line(0)
    line.say(pb.StreamRequest(open=pb.Open(model="recall", version=1)))
    world.quiet()
    line.reads = False  # and has not read that it is open
    batch = np.random.default_rng(3).normal(size=(1, 64, 8)).astype(np.float32)
    numbers, kept = batch[:, 5].tobytes(), weakref.ref(batch)
    form = Form(("y",), values=False, bundle=False)
    exchange = line._listener
    assert isinstance(exchange, Exchange)
    exchange._emit(Answered(0, 0, form, [batch[:, 5]], batch[:, 5], 100))
    del batch
    assert kept() is None
    answer = exchange._writing.waiting.pop()
    assert isinstance(answer, Answered)
    assert answer.trace is not None
    assert [answer.outputs[0].tobytes(), answer.trace.tobytes()] == [numbers] * 2
    world.close()


@pytest.mark.parametrize("end", ["closed", "cut", "failed", "silent"])
def test_a_stream_that_has_ended_leaves_without_the_collector_of_cycles(
    end: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of_patience(tmp_path_factory, monkeypatch)
    line = world.line(0)
    exchange = line._listener
    assert isinstance(exchange, Exchange)
    kept = [weakref.ref(exchange), weakref.ref(exchange._stream)]
    gc.collect()
    gc.disable()
    try:
        if end == "silent":
            monkeypatch.setattr(world.loop, "time", lambda: 1e9)
            world.quiet()
        else:
            line.say(pb.StreamRequest(open=pb.Open(count=2, model="recall", version=1)))
            world.quiet()
            if end == "closed":
                line.say(grpc.aio.EOF)
            elif end == "cut":
                line.serving.cancel()
            else:
                exchange.fail(TidegateError("it failed"))
            world.quiet()
            world.work(0)
        del exchange
        assert line.serving.done()
        if not line.serving.cancelled():
            line.serving.exception()  # is looked at, and has no frame of it any more
        line.serving = world.loop.create_task(asyncio.sleep(0))
        world.quiet()
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()
    world.close()


@pytest.mark.parametrize("singles", [1, 2, 5])
def test_a_bundle_that_came_with_single_steps_before_it_is_taken_after_them_without_a_further_message(
    tmp_path_factory: pytest.TempPathFactory, singles: int
) -> None:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    line = world.line(0)
    line.say(pb.StreamRequest(open=pb.Open(count=8, model="recall", version=1)))
    world.quiet()
    heard(world)
    steps = [pb.Steps(handle=n, inputs=[wire.encode("", ROWS[n])]) for n in range(8)]
    further = [pb.StreamRequest(steps=each) for each in steps[singles + 1 :]]
    line.pushed = True
    bundle = pb.StreamRequest(steps=steps[singles], more=further)
    line.say(*[pb.StreamRequest(steps=each) for each in steps[:singles]], bundle)
    world.quiet()
    answers = [each for message in heard(world) for each in (message, *message.more)]
    assert sorted(answer.answers.handle for answer in answers) == list(range(8))
    assert {answer.answers.first_step for answer in answers} == {0}
    world.close()
