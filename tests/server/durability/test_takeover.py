# ruff: noqa: ANN401 - what is said is one of many messages; a token of a test is no secret
"""Who resumes a sequence: what is refused has changed nothing, and what is taken goes on from one line of steps."""

from __future__ import annotations

import gc
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.caller import Caller
from server.durability import sequence
from server.durability.checkpoint import Checkpoint, encode
from server.durability.limits import PORTION, Lookups
from server.durability.restored import Kept, Restored, ResumeRequest
from server.errors import ModelUnavailable, OverLimit, SequenceGone, StoreFailed
from server.stores.memory import MemoryStore
from server.stores.store import Write
from server.stores.terms import Terms
from server.streams.opening import Opening, _Opening
from tests.server.world import World
from tidegate import wire
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = np.random.default_rng(9).normal(size=(40, 3)).astype(np.float32)


class Bench:
    """A world of which the test speaks both streams itself, both at server 0."""

    def __init__(self, folder: Any, **given: Any) -> None:
        self.world = World(folder, **given)
        self.world.connect(0, 0)
        self.world.connect(1, 0)

    def tell(self, who: int, **request: Any) -> None:
        line = self.world.line(who)
        line.say(pb.StreamRequest(**request))

    def hear(self, who: int) -> list[Any]:
        """All that is said to a stream once the store has done what it was asked."""
        line = self.world.line(who)
        self.world.quiet()
        self.world.work(0)
        heard = [pb.StreamResponse.FromString(message) for message in line.down]
        line.down.clear()
        return [getattr(one, one.WhichOneof("response")) for one in heard]

    def ask(self, who: int, **request: Any) -> Any:
        self.tell(who, **request)
        (answer,) = self.hear(who)
        return answer

    def open(self, who: int, handle: int = 0, **fields: Any) -> Any:
        opened = self.ask(who, open=pb.Open(handle=handle, model="recall", version=1, **fields))
        assert isinstance(opened, pb.Opened), opened
        return opened

    def step(self, who: int, at: int, handle: int = 0, rows: np.ndarray = ROWS, answered: int = 0) -> Any:
        inputs = [wire.encode("x", rows[at : at + 1])]
        return self.ask(who, steps=pb.Steps(handle=handle, first_step=at, inputs=inputs, answered=answered or at))

    def resume(self, who: int, opened: Any, answered: list[int], handle: int = 0, **fields: Any) -> Any:
        return self.ask(who, resume=resume(opened, answered, handle, **fields))

    def park(self, **which: int) -> None:
        """Sequences of stream 0, which is answered once they are written."""
        self.tell(0, close=pb.Close(park=True, **which))
        assert self.hear(0) == []
        self.write()
        (answer,) = self.hear(0)
        assert isinstance(answer, pb.Closed), answer

    def write(self) -> None:
        self.world.write(0)

    @property
    def keeper(self) -> Any:
        return self.world.servers[0].keeper

    @property
    def slots(self) -> Any:
        return self.world.servers[0].shelf.models[1].slots


def resume(opened: Any, answered: list[int], handle: int = 0, **fields: Any) -> pb.Resume:
    ids = fields.pop("ids", opened.sequence_ids)
    token = fields.pop("token", opened.resume_token)
    return pb.Resume(handle=handle, sequence_ids=ids, resume_token=token, answered=answered, **fields)


def why(failure: Any) -> str:
    assert isinstance(failure, pb.Failure), failure
    return error_pb2.Reason.Name(failure.error.reason).removeprefix("REASON_")


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Bench]]:
    made = []

    def bench(**given: Any) -> Bench:
        made.append(Bench(tmp_path_factory.getbasetemp(), **given))
        return made[-1]

    yield bench
    for each in made:
        assert not each.world.faults, each.world.faults
        each.world.close()


def test_what_a_client_opened_at_an_earlier_release_with_the_route_oip_is_resumed(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    monkeypatch.setattr(sequence, "new_ids", lambda *_: ("oip-0123456789ab-4",))  # as releases before it made them
    opened = bench.open(0)
    assert opened.sequence_ids == ["oip-0123456789ab-4"]
    bench.step(0, 0)
    bench.write()
    assert isinstance(bench.resume(1, opened, [1]), pb.Opened)


# How much is asked for ------------------------------------------------------------------------------------------------


def test_an_address_asks_for_no_more_sequences_at_a_time_than_it_may_have_open(make: Callable[..., Bench]) -> None:
    bench = make(max_per_address=5)
    opened = bench.open(0, count=5)
    refused = bench.resume(1, opened, [0] * 6, ids=[f"r-{n}" for n in range(6)])
    assert why(refused) == "TOO_MANY_OF_OWNER"
    assert "5 is the limit" in refused.error.message
    bench.tell(1, resume=resume(opened, [0] * 3, 0, ids=[f"r-{n}" for n in range(3)]))
    bench.tell(1, resume=resume(opened, [0] * 3, 10, ids=[f"r-{n}" for n in range(3)]))
    assert sorted(why(failure) for failure in bench.hear(1)) == ["TOO_MANY_OF_OWNER", "UNKNOWN_SEQUENCE"]
    assert isinstance(bench.resume(1, opened, [0] * 5), pb.Opened), "what was refused counts no more"


def test_ids_that_are_made_up_are_looked_for_in_portions_and_no_further_than_the_first_that_is_unknown(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(max_sequences=5_000)
    opened = bench.open(0)
    sizes: list[int] = []
    read = MemoryStore.read

    def counted(store: MemoryStore, claims: Any, now: float) -> Any:
        sizes.append(len(claims))
        return read(store, claims, now)

    monkeypatch.setattr(MemoryStore, "read", counted)
    refused = bench.resume(1, opened, [0] * 4_000, ids=[f"made-up-{n}" for n in range(4_000)])
    assert why(refused) == "UNKNOWN_SEQUENCE"
    assert sizes == [1_000]


def test_of_many_resumes_of_an_address_a_few_wait_for_the_store_and_those_of_others_stand_behind_these_alone(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    opened = bench.open(0)
    for n in range(12):
        bench.tell(1, resume=resume(opened, [0], n, ids=[f"made-up-{n}"]))

    async def ask() -> None:
        for n in range(100):
            given = [f"too-{n}"], "token", [0], lambda *_: None, lambda _: None, lambda: True
            bench.keeper.takeovers.claim(ResumeRequest(Caller("ipv4:10.0.0.9"), *given))

    bench.world.run(ask())
    bench.world.quiet()
    assert len(bench.world.servers[0].desk.calls) == 12 + 16
    assert len(bench.hear(1)) == 12
    for _ in range(10):
        bench.hear(1)
    assert not bench.keeper.takeovers._lookups._asked


@pytest.mark.parametrize(
    ("caller", "whence"),
    [(Caller("ipv4:10.0.0.9"), "from your address"), (Caller("ipv4:10.0.0.9", token="ci"), "with token 'ci'")],
)
def test_who_resumes_too_many_at_a_time_is_told_what_they_are_counted_by(caller: Caller, whence: str) -> None:
    lookups = Lookups(3)
    lookups.begin(caller, 2)
    with pytest.raises(OverLimit, match=f"2 sequences are being resumed {whence}, and 2 more were asked for; 3 is"):
        lookups.begin(caller, 2)
    lookups.end(caller, 2)
    lookups.begin(caller, 3)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoilt", ["BAD_TRACE", "UNKNOWN_SEQUENCE", "WRONG_TOKEN", "MODEL_NOT_READY", "CHECKPOINT_GONE", "MALFORMED"]
)
def test_a_resume_that_is_refused_leaves_the_sequence_to_whoever_runs_it(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    bench = make()
    opened = bench.open(0, count=2, state=_state(bench, 5))
    for handle in (0, 1):
        bench.step(0, 5, handle)
    bench.write()
    fields: dict[str, Any] = {}
    answered = [6, 6]
    with monkeypatch.context() as patched:
        match spoilt:
            case "BAD_TRACE":
                fields["trace"] = pb.TraceSelection(layers=[99])
            case "UNKNOWN_SEQUENCE":
                fields["ids"] = [opened.sequence_ids[0], "nobody"]
            case "WRONG_TOKEN":
                fields["token"] = "guess"
            case "MODEL_NOT_READY":
                patched.setattr(bench.world.servers[0].shelf, "exact", _not_ready)
            case "CHECKPOINT_GONE":
                answered = [6, 4]
            case "MALFORMED":  # one of them goes on with another version
                bench.ask(0, move=pb.Move(handle=1, version=2))
        failure = bench.resume(1, opened, answered, **fields)
    assert why(failure) == spoilt
    assert bench.hear(0) == []
    assert isinstance(bench.step(0, 6, 0), pb.Answers)
    bench.write()
    assert bench.hear(0) == []
    assert not any(bench.keeper.sample().lost.values())


def test_while_the_store_fails_a_client_does_not_wait_for_what_it_parks(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.open(0, count=2)
    for handle in range(2):
        bench.step(0, 0, handle)
    bench.tell(0, close=pb.Close(park=True))
    assert bench.hear(0) == []
    bench.world.store.mood = "dead"
    bench.write()
    assert [type(one) for one in bench.hear(0)] == [pb.Closed]
    assert isinstance(bench.ask(0, close=pb.Close(handle=1, park=True)), pb.Closed)


def test_a_resume_that_there_is_no_room_for_throws_nobody_out(make: Callable[..., Bench]) -> None:
    bench = make(max_sequences=2)
    opened = bench.open(0, count=2)
    bench.park(handle=1)
    bench.open(0, handle=1)
    assert why(bench.resume(1, opened, [0, 0])) == "TOO_MANY_SEQUENCES"
    assert bench.hear(0) == []
    assert isinstance(bench.step(0, 0), pb.Answers)
    bench.ask(0, close=pb.Close(handle=1))
    assert isinstance(bench.resume(1, opened, [0, 0]), pb.Opened), "the slot of one of them is its own"
    assert bench.slots.in_use == 2
    assert [type(one) for one in bench.hear(0)] == [pb.Released]


def test_the_room_that_was_kept_for_a_resume_is_free_again_once_it_is_refused(make: Callable[..., Bench]) -> None:
    bench = make()
    opened = bench.open(0, count=3)
    bench.park(count=3)
    bench.tell(1, resume=resume(opened, [0, 0, 0]))
    bench.world.quiet()
    bench.world.work(0, 1)  # it is read, and room is kept
    assert bench.slots.in_use == 3
    bench.world.store.mood = "dead"
    assert [why(one) for one in bench.hear(1)] == ["STORE_UNAVAILABLE"]
    assert bench.slots.in_use == 0
    bench.world.store.mood = "fine"
    bench.tell(1, resume=resume(opened, [0, 0, 0]))
    bench.world.quiet()
    bench.world.work(0, 1)
    bench.world.cut(1)
    bench.world.quiet()
    bench.world.work(0)
    assert bench.slots.in_use == 0


def test_a_stream_whose_end_is_noticed_while_it_is_looked_for_leaves_its_last_state(make: Callable[..., Bench]) -> None:
    bench = make()
    opened = bench.open(0)
    bench.step(0, 0)
    bench.write()
    bench.step(0, 1)
    bench.tell(1, resume=resume(opened, [2]))
    bench.world.quiet()  # the store is being asked
    bench.world.cut(0)
    (again,) = bench.hear(1)
    assert list(again.next_steps) == [2]


@pytest.mark.parametrize("calls", [0, 1], ids=["asked", "read"])
def test_a_resume_with_a_wrong_token_takes_nothing_from_an_honest_one_that_is_under_way(
    make: Callable[..., Bench], calls: int
) -> None:
    bench = make(max_per_owner=1)
    opened = bench.open(0)
    bench.park()
    bench.tell(1, resume=resume(opened, [0]))
    bench.world.quiet()
    if calls:
        bench.world.work(0, calls)  # it is read, and counts already
    bench.tell(0, resume=resume(opened, [0], token="guess"))
    bench.world.quiet()
    assert [why(one) for one in bench.hear(0)] == ["WRONG_TOKEN"]
    (again,) = bench.hear(1)
    assert list(again.next_steps) == [0]
    one_more = bench.ask(0, open=pb.Open(model="recall"))
    assert why(one_more) == "TOO_MANY_OF_OWNER"
    assert one_more.error.message.startswith("1 more would make 2 sequences of '")


def test_a_resume_that_a_later_one_beats_and_that_ends_after_it_is_refused_with_a_reason_of_its_own(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    opened = bench.open(0)
    bench.step(0, 0)
    bench.write()
    twice = [*opened.sequence_ids] * 2
    bench.tell(1, resume=resume(opened, [1]))  # waits for the store
    bench.world.quiet()
    bench.tell(0, resume=resume(opened, [1, 1], handle=1, ids=twice))  # does not get as far
    assert [why(answer) for answer in bench.hear(0)] == ["MALFORMED"]
    assert [why(answer) for answer in bench.hear(1)] == ["TAKEN_OVER"]
    assert not bench.keeper.takeovers._last
    assert isinstance(bench.step(0, 1), pb.Answers)


def test_an_owner_has_no_more_sequences_than_may_be_although_they_are_resumed(make: Callable[..., Bench]) -> None:
    bench = make(max_per_owner=2)
    parked = []
    for _ in range(3):
        parked.append(bench.open(0, count=2, owner="ann"))
        bench.park(count=2)
    for at, opened in enumerate(parked):  # at once: the store has answered none of them yet
        bench.tell(1, resume=resume(opened, [0, 0], 2 * at))
    heard = bench.hear(1)
    assert [one.handle for one in heard if isinstance(one, pb.Opened)] == [0]
    assert [why(one) for one in heard if isinstance(one, pb.Failure)] == ["TOO_MANY_OF_OWNER"] * 2
    assert why(bench.ask(0, open=pb.Open(model="recall", version=1, owner="ann"))) == "TOO_MANY_OF_OWNER"
    assert isinstance(bench.resume(0, parked[0], [0, 0]), pb.Opened), "those that are open give way to themselves"
    bench.hear(1)
    bench.tell(0, close=pb.Close(count=2))
    bench.world.quiet()
    bench.write()
    assert isinstance(bench.resume(1, parked[1], [0, 0]), pb.Opened)
    assert bench.keeper._registry._coming == {}


def test_a_resume_that_fails_for_a_fault_of_ours_says_so_and_holds_nothing(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    opened = bench.open(0, count=2)
    bench.park(count=2)

    def faulty(*_: object) -> None:
        raise ValueError("a fault")

    for place, name in ((bench.slots, "restore"), (bench.world.servers[0].shelf.models[1].watermarks, "come_back")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, faulty)
            assert why(bench.resume(1, opened, [0, 0])) == "INTERNAL"
        assert (bench.slots.in_use, len(bench.keeper._registry)) == (0, 0)
        assert "ValueError: a fault" in caplog.text
    assert isinstance(bench.resume(1, opened, [0, 0]), pb.Opened)


def test_a_checkpoint_whose_state_is_laid_out_otherwise_is_refused(make: Callable[..., Bench]) -> None:
    bench = make()
    opened = bench.open(0)
    bench.step(0, 0)
    bench.park()
    model = bench.world.loaded[1]
    other = Checkpoint("recall", 1, model.sha256, 1, np.zeros(model.graph.initial.size + 1, np.float32))
    bench.world.store.write([Write(opened.sequence_ids[0], 1, 1, encode(other))], bench.world.now)
    assert why(bench.resume(1, opened, [1])) == "WRONG_STATE"
    assert bench.slots.in_use == 0


# Another way ----------------------------------------------------------------------------------------------------------

OTHER = ROWS[::-1].copy()


def forked(make: Callable[..., Bench], count: int = 1) -> tuple[Bench, Any]:
    """Sequences with checkpoints after one step and after three, which stream 1 resumes after the first."""
    bench = make()
    opened = bench.open(0, count=count)
    for at in range(3):
        for handle in range(count):
            bench.step(0, at, handle)
        if at != 1:
            bench.write()
    again = bench.resume(1, opened, [1] * count)
    assert list(again.next_steps) == [1] * count
    bench.hear(0)
    return bench, again


def killed(bench: Bench) -> None:
    bench.world.kill(0)
    for who in range(2):
        bench.world.connect(who, 0)


def test_once_a_step_is_answered_after_an_earlier_one_no_later_checkpoint_of_before_is_gone_back_to(
    make: Callable[..., Bench],
) -> None:
    bench, again = forked(make)
    answers = [bench.step(1, at, rows=OTHER) for at in range(1, 5)]
    killed(bench)
    assert list(bench.resume(1, again, [4]).next_steps) == [1]
    assert [bench.step(1, at, rows=OTHER) for at in range(1, 5)] == answers


def test_a_fleet_that_goes_another_way_leaves_none_of_its_later_checkpoints(make: Callable[..., Bench]) -> None:
    bench, again = forked(make, 3)
    steps = pb.FleetSteps(
        handles=np.arange(3, dtype="<u4").tobytes(),
        steps=np.full(3, 1, "<u8").tobytes(),
        inputs=[wire.encode("x", OTHER[:3])],
    )
    assert isinstance(bench.ask(1, fleet=steps), pb.FleetAnswers)
    killed(bench)
    assert list(bench.resume(1, again, [4] * 3).next_steps) == [1] * 3


@pytest.mark.parametrize("leaves", ["parked", "cut", "killed", "late"])
def test_a_resume_after_which_no_step_comes_leaves_the_later_checkpoints(
    make: Callable[..., Bench], leaves: str
) -> None:
    bench, again = forked(make)
    match leaves:
        case "parked":
            bench.ask(1, close=pb.Close(park=True))
        case "cut":
            bench.world.cut(1)
            bench.world.quiet()
            bench.world.connect(1, 0)
        case "killed":
            killed(bench)
        case "late":  # it sleeps
            bench.world.now += 100.0
            bench.world.maintain(0)
    bench.write()
    assert list(bench.resume(0, again, [3]).next_steps) == [3]
    assert [bench.step(0, at, rows=ROWS).first_step for at in (3, 4)] == [3, 4]


def test_one_that_sleeps_before_its_first_step_goes_on_from_where_it_was_resumed(make: Callable[..., Bench]) -> None:
    bench, again = forked(make)
    bench.world.now += 100.0
    bench.world.maintain(0)
    assert bench.slots.in_use == 0
    answer = bench.step(1, 1, rows=OTHER)
    killed(bench)
    bench.resume(1, again, [2])
    assert bench.step(1, 1, rows=OTHER) == answer


@pytest.mark.parametrize("mood", ["dead", "late"])
def test_no_step_is_answered_while_the_store_may_hold_what_it_contradicts(
    make: Callable[..., Bench], mood: str
) -> None:
    bench, again = forked(make)
    bench.world.store.mood = mood
    bench.tell(1, steps=pb.Steps(first_step=1, inputs=[wire.encode("x", OTHER[1:2])]))
    released, refused = sorted(bench.hear(1), key=lambda heard: isinstance(heard, pb.Failure))  # in any order
    assert isinstance(released, pb.Released)
    assert released.error.reason == error_pb2.REASON_DRAINING, "it has to be resumed"
    assert isinstance(refused, pb.Failure)
    assert (bench.slots.in_use, len(bench.keeper._registry)) == (0, 0)
    bench.world.store.mood = "fine"
    assert isinstance(bench.resume(1, again, [1]), pb.Opened)
    assert isinstance(bench.step(1, 1, rows=OTHER), pb.Answers)


def test_a_store_that_has_lost_its_data_has_nothing_to_cut_off_and_is_filled_again(make: Callable[..., Bench]) -> None:
    bench, again = forked(make)
    bench.world.store._store = MemoryStore(Terms(keep=1))
    assert isinstance(bench.step(1, 1, rows=OTHER), pb.Answers)
    bench.write()
    killed(bench)
    assert list(bench.resume(1, again, [2]).next_steps) == [2]


def _not_ready(*_: object) -> None:
    raise ModelUnavailable("it is still loading")


def _state(bench: Bench, step: int) -> pb.State:
    """A state to begin from."""
    bench.open(0)
    state = bench.ask(0, read_state=pb.ReadState()).state
    bench.ask(0, close=pb.Close())
    state.step = step
    return state


@pytest.mark.parametrize("mood", ["fine", "dead", "late"])
def test_a_refused_resume_leaves_without_the_collector_of_cycles(make: Callable[..., Bench], mood: str) -> None:
    bench = make()
    gc.collect()
    gc.disable()
    try:
        unknown = bench.open(0)
        unknown.sequence_ids[:] = ["of-nobody"]
        bench.world.store.mood = mood
        assert isinstance(bench.resume(1, unknown, [0]), pb.Failure)
        bench.world.store.mood = "fine"
        bench.world.quiet()
        assert [each for each in gc.get_objects() if type(each) in (_Opening, ResumeRequest, SequenceGone)] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("call", ["read", "claim"])
def test_what_a_refused_resume_has_read_is_freed_in_pieces_and_not_with_its_error(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    bench = make(max_sequences=3_000)
    opened, kept, resumed = bench.open(0, count=1_500), list[int](), _Opening.__module__ + ".Opening._resumed"
    real = Opening._resumed

    def counted(opening: Opening, *given: Any) -> None:
        kept.append(sum(type(each) in (Restored, Kept) for each in gc.get_objects()))
        real(opening, *given)

    monkeypatch.setattr(resumed, counted)
    fail_after(monkeypatch, call, 1 if call == "read" else 0)
    assert why(bench.resume(1, opened, [0] * 1_500)) == "STORE_UNAVAILABLE"
    assert kept[0] <= PORTION


def fail_after(monkeypatch: pytest.MonkeyPatch, call: str, times: int) -> None:
    """Has the store fail at a call after so many of the same kind."""
    real, calls = getattr(MemoryStore, call), count()

    def failing(store: MemoryStore, *given: Any) -> Any:
        if next(calls) >= times:
            raise StoreFailed("it is full")
        return real(store, *given)

    monkeypatch.setattr(MemoryStore, call, failing)


def test_a_sequence_that_is_being_closed_takes_no_place_of_a_new_one(make: Callable[..., Bench]) -> None:
    bench = make(max_sequences=2)
    for handle in range(2):
        bench.open(0, handle)
        bench.step(0, 0, handle)
    bench.write()
    bench.hear(0)
    bench.tell(0, close=pb.Close(count=2))
    bench.world.quiet()
    bench.open(0, 2)
    bench.open(0, 3)
    assert why(bench.ask(0, open=pb.Open(handle=4, model="recall", version=1))) == "TOO_MANY_SEQUENCES"
    bench.write()
    assert [type(heard) for heard in bench.hear(0)] == [pb.Closed]
    assert why(bench.ask(0, open=pb.Open(handle=0, model="recall", version=1))) == "TOO_MANY_SEQUENCES"
    bench.ask(0, close=pb.Close(handle=2, count=2))
    bench.open(0, 0)
