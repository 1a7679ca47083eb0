# ruff: noqa: ANN401 - what is said is one of many messages
"""What is done for many sequences is done in pieces: between two of them the event loop serves everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.durability import checkpoint, checkpointer
from server.durability.sequence import ServedSequence
from server.runtime.turns import Turns
from server.streams.backlog import Backlog
from server.streams.lines import Lines
from tests.server.world import World
from tidegate import wire
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNT = 1_000
MOST = 300  # moves in one turn of the event loop: two pieces, and a few


class Crowd:
    """A server with COUNT sequences of stream 0; counts how far sequences move in one turn of its event loop."""

    def __init__(
        self,
        folder: Any,
        patch: pytest.MonkeyPatch,
        room: int = 2 * COUNT,
        *,
        written: bool = True,
        turn: float = 0.0,
    ) -> None:
        self.world = World(folder, max_sequences=room)
        self.server = self.world.servers[0]
        self.server.turns = Turns(self.world.loop.call_soon, turn)  # 0: a piece a turn
        self.world.connect(0, 0)
        self.world.connect(1, 0)
        self.moves = 0
        self.most = 0  # moves in one turn
        move = ServedSequence.move

        def counted(sequence: ServedSequence, to: Any) -> None:
            self.moves += 1
            move(sequence, to)

        patch.setattr(ServedSequence, "move", counted)
        self.opened = self.ask(0, open=pb.Open(count=COUNT, model="recall", version=1)).opened
        self.step()
        if written:
            self.world.write(0)
            self.world.write(0)
        self.hear(0)

    def step(self, at: int = 0) -> Any:
        return self.ask(0, fleet=self.fleet(at))

    def fleet(self, at: int) -> pb.FleetSteps:
        rows = wire.encode("x", np.ones((COUNT, 3), np.float32))
        handles, steps = np.arange(COUNT, dtype="<u4").tobytes(), np.full(COUNT, at, "<u8").tobytes()
        return pb.FleetSteps(handles=handles, steps=steps, inputs=[rows])

    def say(self, who: int, **request: Any) -> None:
        line = self.world.line(who)
        line.say(pb.StreamRequest(**request))

    def hear(self, who: int) -> list[pb.StreamResponse]:
        line = self.world.line(who)
        heard = [pb.StreamResponse.FromString(message) for message in line.down]
        line.down.clear()
        return heard

    def go_on(self) -> None:
        """Until nobody has anything to do, a turn of the loop at a time."""
        while self.world.loop._ready or self.server.desk.calls:  # type: ignore[attr-defined]
            before = self.moves
            self.world.tick()
            self.most = max(self.most, self.moves - before)
            if self.server.desk.calls and not self.world.loop._ready:  # type: ignore[attr-defined]
                self.server.desk.work()

    def ask(self, who: int, **request: Any) -> pb.StreamResponse:
        self.say(who, **request)
        self.world.tick(3)
        self.go_on()
        return self.hear(who)[-1]

    def resume(self, ids: Any = (), answered: int = 1) -> dict[str, pb.Resume]:
        ids, token = list(ids) or self.opened.sequence_ids, self.opened.resume_token
        return {"resume": pb.Resume(sequence_ids=ids, resume_token=token, answered=[answered] * len(ids))}

    def sleep(self) -> None:
        """All of them are idle for so long that they are parked."""
        self.world.now += 60.0
        self.world.maintain(0)

    def begin(self) -> None:
        self.most = self.moves = 0


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Crowd]]:
    made = []

    def crowd(**given: Any) -> Crowd:
        made.append(Crowd(tmp_path_factory.getbasetemp(), monkeypatch, **given))
        return made[-1]

    yield crowd
    for each in made:
        assert not each.world.faults, each.world.faults
        each.world.close()


def test_a_crowd_that_another_stream_resumes_leaves_and_comes_in_pieces(make: Callable[..., Crowd]) -> None:
    crowd = make()
    crowd.begin()
    assert len(crowd.ask(1, **crowd.resume()).opened.sequence_ids) == COUNT
    assert crowd.moves >= 2 * COUNT
    assert crowd.most <= MOST
    released = [response.released for response in crowd.hear(0)]
    assert sorted(handle for each in released for handle in each.handles) == list(range(COUNT))
    assert len(released) < COUNT / 50, "many are told of in one message"


def test_a_crowd_of_which_nothing_is_written_yet_can_be_resumed_though_one_write_does_not_take_all(
    make: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "_MOST", 100)
    crowd = make(written=False)
    assert len(crowd.ask(1, **crowd.resume()).opened.sequence_ids) == COUNT


def test_a_crowd_of_which_one_has_taken_a_step_is_kept_whole_when_it_is_cut(
    make: Callable[..., Crowd],
) -> None:
    crowd = make()
    world = crowd.world
    opened = crowd.ask(1, open=pb.Open(count=COUNT, model="recall", version=1)).opened
    crowd.ask(1, steps=pb.Steps(handle=7, inputs=[wire.encode("x", np.ones((1, 3), np.float32))]))
    world.cut(1)
    crowd.go_on()
    world.write(0)
    world.connect(1, 1)
    resume = pb.Resume(sequence_ids=opened.sequence_ids, resume_token=opened.resume_token, answered=[0] * COUNT)
    crowd.say(1, resume=resume)
    world.quiet()
    world.work(1)
    assert [response.WhichOneof("response") for response in crowd.hear(1)] == ["opened"]


def test_the_checkpoints_of_a_crowd_are_decoded_in_the_thread_of_the_store(
    make: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = make()
    decoded = {True: 0, False: 0}
    at_work = False
    decode, work = checkpoint.decode, crowd.server.desk.work

    def counted(data: bytes) -> Any:
        decoded[at_work] += 1
        return decode(data)

    def carried_out() -> None:
        nonlocal at_work
        at_work = True
        work()
        at_work = False

    monkeypatch.setattr(checkpoint, "decode", counted)
    monkeypatch.setattr(crowd.server.desk, "work", carried_out)
    assert len(crowd.ask(1, **crowd.resume()).opened.sequence_ids) == COUNT
    assert decoded[True] >= COUNT
    assert not decoded[False]


def test_a_crowd_that_makes_room_for_another_falls_asleep_in_pieces(make: Callable[..., Crowd]) -> None:
    crowd = make(room=COUNT + 10)
    crowd.world.now += 60.0
    crowd.begin()
    assert len(crowd.ask(1, open=pb.Open(count=COUNT, model="recall", version=1)).opened.sequence_ids) == COUNT
    assert crowd.moves >= COUNT - 10
    assert crowd.most <= MOST


def test_a_crowd_that_is_idle_falls_asleep_and_wakes_up_in_pieces(make: Callable[..., Crowd]) -> None:
    crowd = make()
    crowd.sleep()
    assert crowd.moves == COUNT
    crowd.begin()
    assert len(crowd.step(1).fleet.handles) == 4 * COUNT
    assert crowd.moves == COUNT
    assert crowd.most <= MOST


def test_a_fleet_of_a_crowd_that_sleeps_takes_its_places_and_is_made_ready_in_pieces(
    make: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = make()
    crowd.sleep()
    put, ready = list[int](), list[int]()
    putting, note_ready = Lines.putting, Backlog._note_ready

    def counted(lines: Lines[Any], entry: Any, handles: Any, size: int) -> Iterator[None]:
        put.append(size)
        for _ in putting(lines, entry, handles, size):
            put.append(size)
            yield

    def noted(backlog: Backlog, called: Any, error: Any) -> list[int]:
        ready.append(len(called))
        return note_ready(backlog, called, error)

    monkeypatch.setattr(Lines, "putting", counted)
    monkeypatch.setattr(Backlog, "_note_ready", noted)
    assert len(crowd.step(1).fleet.handles) == 4 * COUNT
    assert sum(ready) == COUNT
    assert max(ready) <= MOST
    assert sum(put) >= COUNT
    assert max(put) <= MOST


def test_a_crowd_whose_client_is_gone_while_it_wakes_up_leaves_no_slot_taken(make: Callable[..., Crowd]) -> None:
    crowd = make(turn=1.0)  # leaving takes one turn, and waking several
    crowd.sleep()
    assert not crowd.server.shelf.models[1].slots.in_use
    crowd.begin()
    crowd.say(0, fleet=crowd.fleet(1))
    while not crowd.server.desk.calls:
        crowd.world.tick()
    crowd.server.desk.work()
    while not crowd.moves:
        crowd.world.tick()
    assert crowd.moves < COUNT
    crowd.world.cut(0)
    crowd.go_on()
    assert not crowd.server.shelf.models[1].slots.in_use
    assert not crowd.server.shelf.models[1].asleep


def test_a_crowd_that_another_server_has_taken_over_is_let_go_of_in_pieces(make: Callable[..., Crowd]) -> None:
    crowd = make()
    world = crowd.world
    world.cut(1)
    world.connect(1, 1)
    crowd.say(1, **crowd.resume())
    world.quiet()
    world.work(1)
    assert [response.WhichOneof("response") for response in crowd.hear(1)] == ["opened"]
    crowd.step(1)
    crowd.begin()
    world.begin_to_write(0)
    crowd.go_on()
    assert crowd.most <= MOST
    lost = [response.released for response in crowd.hear(0)]
    assert sorted(handle for each in lost for handle in each.handles) == list(range(COUNT))


def test_of_a_crowd_that_is_being_resumed_one_that_another_stream_claims_meanwhile_is_that_streams(
    make: Callable[..., Crowd],
) -> None:
    crowd = make()
    world, server = crowd.world, crowd.server
    crowd.say(0, close=pb.Close(count=COUNT, park=True))
    world.quiet()
    while not crowd.hear(0):  # they are written in several pieces
        world.write(0)
    last = crowd.opened.sequence_ids[-1]
    crowd.say(0, **crowd.resume())
    while server.keeper._registry.get(crowd.opened.sequence_ids[0]) is None:  # it has claimed all of them
        world.tick()
        if server.desk.calls:
            server.desk.work()
    world.now += 0.1
    crowd.say(1, **crowd.resume([last]))
    crowd.go_on()
    assert [response.WhichOneof("response") for response in crowd.hear(1)] == ["opened"]
    (opened, released) = crowd.hear(0)
    assert len(opened.opened.sequence_ids) == COUNT
    assert list(released.released.handles) == [COUNT - 1]
    assert released.released.error.reason == error_pb2.REASON_TAKEN_OVER
    here = server.keeper._registry
    assert here.get(last).slot >= 0
    assert (len(here), server.shelf.models[1].slots.in_use) == (COUNT, COUNT)
