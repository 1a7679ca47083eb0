"""Sequences come to be open whole, or not at all."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.caller import Caller
from server.durability.restored import ResumeRequest
from server.durability.takeover import Takeovers
from server.errors import Reason, SequenceGone
from server.runtime.turns import Turns
from server.streams.allowance import Allowance
from server.streams.stream import Stream
from server.streams.trace import Manner
from server.watermarks import Watermarks
from tests.server.world import World
from tidegate import wire
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.getbasetemp())
    world.connect(0, 0)
    yield world
    world.end()


def ask(world: World, request: pb.StreamRequest) -> pb.StreamResponse:
    """Says it past the client; the answer, once the store has done what was asked of it."""
    line = world.line(0)
    line.say(request)
    world.quiet()
    world.work(0)
    if request.HasField("close"):
        world.write(0)
    return pb.StreamResponse.FromString(line.down.pop())


def open_(state: pb.State | None = None, handle: int = 0) -> pb.StreamRequest:
    return pb.StreamRequest(open=pb.Open(handle=handle, model="recall", version=1, state=state))


def reason(response: pb.StreamResponse) -> str:
    assert response.failure.error.message
    return error_pb2.Reason.Name(response.failure.error.reason).removeprefix("REASON_")


def state(world: World) -> pb.State:
    """Of a sequence that begins."""
    ask(world, open_())
    found = ask(world, pb.StreamRequest(read_state=pb.ReadState())).state.state
    ask(world, pb.StreamRequest(close=pb.Close()))
    return found


@pytest.mark.parametrize("step", [2**52 + 1, 2**63 - 1, 2**63, 2**64 - 2])
def test_a_state_of_a_step_that_no_sequence_can_take_is_refused(world: World, step: int) -> None:
    late = state(world)
    late.step = step
    assert reason(ask(world, open_(late))) == "WRONG_STATE"
    world.servers[0].assert_empty()


def test_a_sequence_that_begins_as_late_as_it_may_is_kept_like_any_other(world: World) -> None:
    late = state(world)
    late.step = 2**52
    opened = ask(world, open_(late)).opened
    assert list(opened.next_steps) == [2**52]
    world.write(0)
    world.cut(0)
    world.quiet()
    world.write(0)
    world.connect(0, 1)
    line = world.line(0)
    resume = pb.Resume(sequence_ids=opened.sequence_ids, resume_token=opened.resume_token, answered=[2**52])
    line.say(pb.StreamRequest(resume=resume))
    world.quiet()
    world.work(1)
    assert list(pb.StreamResponse.FromString(line.down.pop()).opened.next_steps) == [2**52]
    line.say(pb.StreamRequest(close=pb.Close()))
    world.quiet()
    world.write(1)
    line.down.clear()


def test_an_opening_that_fails_for_whatever_reason_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(self: Watermarks, slots: np.ndarray, *_: object) -> None:
        self.held[slots] = True
        raise OverflowError("too large")

    with monkeypatch.context() as patched:
        patched.setattr(Watermarks, "begin", begin)
        assert reason(ask(world, open_())) == "INTERNAL"
    world.servers[0].assert_empty()
    opened = ask(world, open_()).opened
    world.write(0)
    ask(world, pb.StreamRequest(close=pb.Close(park=True)))
    world.write(0)
    resume = pb.StreamRequest(
        resume=pb.Resume(sequence_ids=opened.sequence_ids, resume_token=opened.resume_token, answered=[0])
    )
    with monkeypatch.context() as patched:
        patched.setattr(Watermarks, "begin", begin)
        assert reason(ask(world, resume)) == "INTERNAL"
    world.servers[0].assert_empty()
    assert ask(world, resume).opened.sequence_ids == opened.sequence_ids
    ask(world, pb.StreamRequest(close=pb.Close()))


def test_a_large_opening_and_its_end_are_done_in_turns_and_its_client_is_answered_in_order(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    count = 400
    world = World(tmp_path_factory.getbasetemp(), max_sequences=2 * count)
    world.servers[0].turns = Turns(world.loop.call_soon, 0.0)  # a piece a turn
    world.connect(0, 0)
    world.connect(1, 0)
    line, other = world.line(0), world.line(1)
    row = wire.encode("", np.zeros(3, np.float32))
    line.say(pb.StreamRequest(open=pb.Open(count=count, model="recall", version=1)))
    line.say(pb.StreamRequest(steps=pb.Steps(handle=count - 1, inputs=[row])))
    line.say(pb.StreamRequest(close=pb.Close(count=count)))
    line.say(pb.StreamRequest(open=pb.Open(count=count, model="recall", version=1)))
    world.tick(2)
    other.say(open_())
    world.tick(2)
    assert [pb.StreamResponse.FromString(m).WhichOneof("response") for m in other.down] == ["opened"]
    assert not line.down
    world.quiet()
    heard = [pb.StreamResponse.FromString(message) for message in line.down]
    assert [message.WhichOneof("response") for message in heard] == ["opened", "answers", "closed", "opened"]
    assert list(heard[2].closed.steps) == [0] * (count - 1) + [1]
    world.cut(0)
    world.cut(1)
    world.end()


def test_a_large_resume_is_done_in_turns_and_what_is_lost_meanwhile_is_told_of_afterwards(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    count = 400
    world = World(tmp_path_factory.getbasetemp(), max_sequences=2 * count)
    server = world.servers[0]
    server.turns = Turns(world.loop.call_soon, 0.0)  # a piece a turn
    world.connect(0, 0)
    world.connect(1, 0)
    line, other = world.line(0), world.line(1)
    opened = ask(world, pb.StreamRequest(open=pb.Open(count=count, model="recall", version=1))).opened
    ask(world, pb.StreamRequest(close=pb.Close(count=count, park=True)))
    world.write(0)
    line.down.clear()
    ids, token = opened.sequence_ids, opened.resume_token
    line.say(pb.StreamRequest(resume=pb.Resume(sequence_ids=ids, resume_token=token, answered=[0] * count)))
    world.tick(3)
    while server.keeper._registry.get(ids[0]) is None:
        if server.desk.calls:
            server.desk.work()
        world.tick()
    assert server.keeper._registry.get(ids[-1]) is None
    lost = server.keeper._registry.get(ids[0])
    assert lost is not None
    server.keeper._registry.lose([lost], Reason.TAKEN_OVER, "sequence '{}' goes on elsewhere")
    other.say(open_())
    world.tick(2)
    assert [pb.StreamResponse.FromString(m).WhichOneof("response") for m in other.down] == ["opened"]
    assert not line.down
    world.quiet()
    heard = [pb.StreamResponse.FromString(message) for message in line.down]
    assert [message.WhichOneof("response") for message in heard] == ["opened", "released"]
    assert list(heard[1].released.handles) == [0]
    line.down.clear()
    assert list(ask(world, pb.StreamRequest(close=pb.Close(handle=1, count=count - 1))).closed.steps) == [0] * (
        count - 1
    )
    world.cut(0)
    world.cut(1)
    world.end()


def test_a_large_resume_waits_for_the_slots_of_the_stream_that_gives_way(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    count = 400
    world = World(tmp_path_factory.getbasetemp(), max_sequences=count + 10)
    server = world.servers[0]
    server.turns = Turns(world.loop.call_soon, 0.0)  # a piece a turn
    world.connect(0, 0)
    world.connect(1, 0)
    other = world.line(1)
    opened = ask(world, pb.StreamRequest(open=pb.Open(count=count, model="recall", version=1))).opened
    world.write(0)
    ids, token = opened.sequence_ids, opened.resume_token
    other.say(pb.StreamRequest(resume=pb.Resume(sequence_ids=ids, resume_token=token, answered=[0] * count)))
    while not other.down:
        if server.desk.calls:
            server.desk.work()
        world.tick()
    heard = [pb.StreamResponse.FromString(message) for message in other.down]
    assert [message.WhichOneof("response") for message in heard] == ["opened"], heard
    assert list(heard[0].opened.sequence_ids) == list(ids)
    world.cut(0)
    world.cut(1)
    world.end()


def test_the_ids_of_a_large_resume_are_read_in_turns() -> None:
    read, told = list[int](), list[Any]()
    calls: deque[Callable[[], None]] = deque()

    class Ids(list[str]):
        def __getitem__(self, part: Any) -> Any:  # noqa: ANN401 - as a list has it
            read.append(len(found := super().__getitem__(part)))
            return found

    nothing: Any = None
    keeper = SimpleNamespace(takeovers=SimpleNamespace(claim=lambda wish: told.append(wish.ids)), parking=None)
    caller, allowed = Caller("ipv4:10.0.0.1"), Allowance(2**20)
    stream = Stream(nothing, keeper, 5_000, allowed, told.append, caller, turns=Turns(calls.append, 0.0))  # type: ignore[arg-type]
    ids = Ids(f"a-{n}" for n in range(5_000))
    stream.opening.resume(0, ids, "token", [0] * 5_000, Manner())
    assert 0 < sum(read) < 5_000
    assert not stream.working, "other requests go on meanwhile"
    while calls:
        calls.popleft()()
    assert told == [ids]


def test_a_client_that_resumes_without_end_waits_before_more_is_read(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ResumeRequest] = []
    monkeypatch.setattr(Takeovers, "claim", lambda _, wish: asked.append(wish))
    world = World(tmp_path_factory.getbasetemp(), max_sequences=1_000)
    world.connect(0, 0)
    line = world.line(0)
    resumes = [
        pb.StreamRequest(resume=pb.Resume(handle=at, sequence_ids=[f"id-{at}"], answered=[0])) for at in range(1_000)
    ]
    line.say(pb.StreamRequest(resume=resumes[0].resume, more=resumes[1:]))
    world.quiet()
    for expected in (256, 256, 256, 232):  # each time that those before are answered
        assert len(asked) == expected
        while asked:
            asked.pop().then(SequenceGone("it is not here"))
        world.quiet()
    assert len(line.down) == 1_000
    line.down.clear()
    world.cut(0)
    world.end()
