# ruff: noqa: ANN401 - what is said is one of many messages
"""Who has the slots of a model: the last eighth is for who has few of them, whatever those with many do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.durability import checkpointer
from server.stores.memory import MemoryStore
from tests.server.durability.test_takeover import ROWS, Bench, resume, why
from tests.surviving_client import SurvivingClient
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANN, BOB, CID, DAN, ANN_AGAIN = range(5)
MOST, OF_ONE = 16, 14  # slots, and sequences of an address; 2 are kept, 1 is few


class Town(Bench):
    """A server whose streams are those of four addresses, the first of which has two."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, max_sequences=MOST, max_per_address=OF_ONE)
        world = self.world
        for who, host in ((ANN, "1"), (BOB, "2"), (CID, "3"), (DAN, "4"), (ANN_AGAIN, "1")):
            if who > 1:
                world.lines.append(None)
                world.at.append(0)
                world.clients.append(SurvivingClient(MOST))
            world.connect(who, 0, f"10.0.0.{host}")

    def tries(self, who: int, handle: int, count: int = 1) -> bool:
        """Whether an address is let in with so many new sequences."""
        answer = self.ask(who, open=pb.Open(handle=handle, count=count, model="recall", version=1))
        assert isinstance(answer, pb.Opened) or why(answer) == "TOO_MANY_SEQUENCES", answer
        return isinstance(answer, pb.Opened)

    def sleepers(self, count: int) -> None:
        """Ann has so many that have taken a step and sleep."""
        self.open(ANN, count=count)
        for handle in range(count):
            self.step(ANN, 0, handle)
        self.write()
        self.world.now += 60.0
        self.world.maintain(0)
        self.hear(ANN)
        assert not self.slots.in_use

    def stepped(self, handle: int, at: int = 1) -> Any:
        answer = self.step(ANN, at, handle)
        self.write()
        self.hear(ANN)
        return answer


@pytest.fixture
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = Town(tmp_path_factory.getbasetemp())
    yield town
    for who in range(5):
        town.world.cut(who)
    town.world.quiet()
    town.world.work(0)
    town.write()
    town.world.servers[0].assert_empty()
    assert not town.world.faults, town.world.faults
    town.world.close()


def test_two_addresses_cannot_take_all_slots_of_a_model(town: Town) -> None:
    assert town.tries(ANN, 0, OF_ONE - 1)
    assert town.tries(BOB, 0)
    while town.tries(BOB, town.slots.in_use):
        pass
    assert town.slots.in_use < MOST
    assert town.tries(CID, 0)


def test_a_sleeper_wakes_up_in_the_place_of_another_of_its_address_where_the_others_are_kept_or_taken(
    town: Town,
) -> None:
    town.sleepers(4)
    assert town.tries(BOB, 0, OF_ONE)
    assert isinstance(town.stepped(0), pb.Answers)
    assert town.slots.in_use == OF_ONE + 1
    for handle in (1, 0):  # it has one, and the last is for who has few
        assert isinstance(town.stepped(handle, 2 - handle), pb.Answers)
        assert town.slots.in_use == OF_ONE + 1
    assert town.tries(CID, 0)
    assert not town.tries(DAN, 0), "all are taken"
    for handle in (2, 3):
        assert isinstance(town.stepped(handle), pb.Answers)
        assert town.slots.in_use == MOST


def test_a_sleeper_is_refused_only_as_long_as_none_of_its_address_rests(town: Town) -> None:
    town.sleepers(2)
    assert town.tries(BOB, 0, OF_ONE)
    town.step(ANN, 1, 0)  # and it is not in the store yet
    assert why(town.step(ANN, 1, 1)) == "TOO_MANY_SEQUENCES"
    town.write()
    town.hear(ANN)
    assert isinstance(town.stepped(1), pb.Answers)
    assert isinstance(town.stepped(0, 2), pb.Answers)


def test_sleepers_that_there_is_no_room_for_are_refused_without_a_call_of_the_store(town: Town) -> None:
    town.sleepers(3)
    assert town.tries(BOB, 0, OF_ONE)
    town.step(ANN, 1, 0)
    line, desk = town.world.line(ANN), town.world.servers[0].desk
    for handle in (1, 2, 1):
        rows = [wire.encode("x", ROWS[1:2])]
        town.tell(ANN, steps=pb.Steps(handle=handle, first_step=1, inputs=rows, answered=1))
        town.world.quiet()
        assert why(pb.StreamResponse.FromString(line.down.pop()).failure) == "TOO_MANY_SEQUENCES"
        assert not desk.calls


def test_however_many_sleepers_an_address_calls_others_wait_behind_one_call_of_the_store_for_a_part_of_them(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path_factory.getbasetemp(), max_sequences=2_000)
    opened = bench.open(ANN, count=1_500)
    bench.keeper._registry.keep(list(bench.keeper._registry))
    for _ in range(3):
        bench.write()
    bench.world.now += 60.0
    bench.world.maintain(0)
    bench.hear(ANN)
    assert not bench.slots.in_use
    sizes: list[int] = []
    read = MemoryStore.read

    def counted(store: MemoryStore, claims: Any, now: float) -> Any:
        sizes.append(len(claims))
        return read(store, claims, now)

    monkeypatch.setattr(MemoryStore, "read", counted)
    desk = bench.world.servers[0].desk
    for handle in range(0, 1_000, 100):
        fleet(bench, range(handle, handle + 100))
        bench.world.quiet()
        assert len(desk.calls) == 1
    fleet(bench, range(1_000, 1_500))
    heard = bench.hear(ANN)
    assert sum(len(one.handles) // 4 for one in heard if isinstance(one, pb.FleetAnswers)) == 1_500
    assert max(sizes) <= 300
    assert sum(sizes) == 1_500
    assert isinstance(bench.resume(1, opened, [0] * 1_500), pb.Opened)
    bench.world.close()


def test_checkpoints_of_others_wait_for_one_rewind_or_move_of_an_address_however_many_it_asks_for(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = town.open(ANN, count=8)
    for handle in range(8):
        town.step(ANN, 0, handle)
    town.write()
    bobs = town.open(BOB).sequence_ids[0]
    town.step(BOB, 0)
    written: list[str] = []
    write = MemoryStore.write

    def noted(store: MemoryStore, writes: Any, now: float) -> Any:
        written.extend(one.id for one in writes)
        return write(store, writes, now)

    monkeypatch.setattr(MemoryStore, "write", noted)
    for handle in range(4):
        town.tell(ANN, rewind=pb.Rewind(handle=handle, step=1))
        town.tell(ANN, move=pb.Move(handle=4 + handle, version=2))
    town.world.quiet()
    town.world.begin_to_write(0)
    done = [type(one) for one in town.hear(ANN) if not isinstance(one, pb.Checkpointed)]
    assert sorted(done, key=str) == [pb.Moved] * 4 + [pb.Rewound] * 4
    assert written.index(bobs) == 1
    assert {one for one in written if one != bobs} == set(opened.sequence_ids)


def test_who_parks_and_resumes_waits_for_a_part_of_what_another_parks_and_not_for_all(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "_MOST", 2)  # sequences in a write
    town.open(ANN, count=OF_ONE)
    for handle in range(OF_ONE):
        town.step(ANN, 0, handle)
    opened = town.open(BOB)
    town.step(BOB, 0)
    for handle in range(OF_ONE):
        town.tell(ANN, close=pb.Close(handle=handle, park=True))
    town.tell(BOB, close=pb.Close(park=True))
    town.world.quiet()
    town.tell(CID, resume=resume(opened, [1]))
    town.world.quiet()
    line = town.world.line(CID)
    while not line.down:
        town.world.work(0, 1)
    assert town.keeper.sample().unwritten > OF_ONE / 2
    assert [type(one) for one in town.hear(CID)] == [pb.Opened]
    town.world.work(0)


def fleet(bench: Bench, handles: range) -> None:
    rows = [wire.encode("x", np.ones((len(handles), 3), np.float32))]
    named, at = np.array(handles, "<u4").tobytes(), np.zeros(len(handles), "<u8").tobytes()
    bench.tell(ANN, fleet=pb.FleetSteps(handles=named, steps=at, inputs=rows))


def test_a_sequence_whose_step_ends_in_the_engines_thread_at_this_moment_does_not_fall_asleep_before_it_is_written(
    town: Town,
) -> None:
    town.open(ANN)
    town.step(ANN, 0)
    town.write()
    (sequence,) = town.keeper._registry
    holder, model = sequence.holder, sequence.model
    holder.handles.next[0] += 1  # a step is under way,
    model.slots.done[sequence.slot] += 1  # and has just been computed
    assert not holder.let_sleep(sequence)
    holder.handles.next[0] -= 1
    model.slots.done[sequence.slot] -= 1
    assert holder.let_sleep(sequence)
    town.keeper._registry.sleep(sequence)


def test_sleepers_of_two_versions_that_are_called_together_wake_up(town: Town) -> None:
    town.open(ANN, 0)
    town.ask(ANN, open=pb.Open(handle=1, model="recall", version=2))
    for handle in range(2):
        town.step(ANN, 0, handle)
    town.write()
    town.world.now += 60.0
    town.world.maintain(0)
    town.hear(ANN)
    sleepers = list(town.keeper._registry)
    assert [one.slot for one in sleepers] == [-1, -1]
    backlog = sleepers[0].holder.backlog

    async def call() -> None:
        backlog._make_ready(sleepers)

    town.world.run(call())
    town.hear(ANN)
    assert [one.slot for one in sleepers] == [0, 0]


def test_a_sequence_that_has_taken_no_step_is_not_written_to_make_way(town: Town) -> None:
    town.sleepers(1)
    town.open(ANN, 1)
    assert town.tries(BOB, 0, OF_ONE)
    assert why(town.step(ANN, 1, 0)) == "TOO_MANY_SEQUENCES"
    assert town.world.servers[0].shelf.models[1].watermarks.fresh.sum() == 1 + OF_ONE


def test_who_connects_again_has_what_it_had_however_many_have_come_with_few(town: Town) -> None:
    opened = town.open(ANN, count=OF_ONE)
    assert town.tries(BOB, 0)
    assert town.tries(CID, 0)
    assert town.slots.in_use == MOST
    assert isinstance(town.resume(ANN_AGAIN, opened, [0] * OF_ONE), pb.Opened)
    assert town.slots.in_use == MOST


def test_a_sequence_that_moves_takes_a_slot_of_the_other_version_by_the_same_rule_and_leaves_its_own(
    town: Town,
) -> None:
    town.open(ANN, count=2)
    newer = pb.Open(count=OF_ONE, model="recall", version=2)
    assert isinstance(town.ask(BOB, open=newer), pb.Opened)

    def move(handle: int) -> Any:
        return town.ask(ANN, move=pb.Move(handle=handle, version=2))

    assert isinstance(move(0), pb.Moved)
    assert town.slots.in_use == 1
    assert why(move(1)) == "TOO_MANY_SEQUENCES"
    assert town.slots.in_use == 1
    assert isinstance(town.step(ANN, 0, 1), pb.Answers), "what was refused has changed nothing"
    town.tell(ANN, close=pb.Close(handle=0))
    town.hear(ANN)
    town.write()
    assert [type(heard) for heard in town.hear(ANN)] == [pb.Closed]
    assert isinstance(move(1), pb.Moved)
    assert not town.slots.in_use
