"""What comes at the same time on several streams is computed together, and answered as if each had come by itself."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import Mock

import numpy as np
import pytest

from server.edge.exchanges.exchange import Exchange
from server.edge.exchanges.rounds import Rounds
from server.edge.native import dialect
from server.edge.native.responses import Writer
from server.meter import Limits, Meter
from server.runtime.loop_turn import LoopTurn
from server.streams.joined import join
from tests.end_to_end.test_bundles import odd, outcome
from tests.raw_stream import NO_TRACE, close, fleet, open_, selection, steps
from tests.server.world import World
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.server.world import Line

MANY = 12
ROW = np.zeros(3, np.float32)
ANN, BOB = Meter(), Meter()


class Crowd:
    """Streams of one server, each with a sequence under handle 0."""

    def __init__(self, world: World, trace: pb.TraceSelection | None, *, bundle: bool = False) -> None:
        self.world = world
        self.lines: list[Line] = []
        for _ in range(MANY):
            world.connect(0, 0)
            line = world.line(0)
            line.say(open_(0, model="recall", trace=trace, bundle=bundle))
            self.lines.append(line)
        self.hear()
        self.say([[steps(0, 9, ROW)]] * MANY)  # is refused; from now on the layout is known
        self.hear()

    def hear(self) -> list[list[Any]]:
        """What each is told by now."""
        self.world.quiet()
        told = []
        for line in self.lines:
            messages = [pb.StreamResponse.FromString(bytes(message)) for message in line.down]
            line.down.clear()
            parts = [part for message in messages for part in (message, *message.more)]
            told.append(sorted((outcome(part) for part in parts if not part.HasField("opened")), key=repr))
        return told

    def say(self, requests: Sequence[Sequence[pb.StreamRequest]]) -> None:
        """These, to each line its own, at the same time."""
        for line, those in zip(self.lines, requests, strict=True):
            line.say(*those)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often so many steps were taken as one block."""
    counted = Counter[int]()

    def counting(members: Any, *given: Any) -> None:  # noqa: ANN401 - as `join` has them
        join(members, *given)
        counted[len(members)] += 1

    monkeypatch.setattr(dialect, "join", counting)
    return counted


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.getbasetemp(), max_sequences=4 * MANY)
    world.pushes = True
    yield world
    assert not world.faults
    world.close()


def single(step: int, at: int, rows: np.ndarray) -> list[pb.StreamRequest]:
    return [steps(0, step, rows[step, at])]


def test_single_steps_of_several_streams_are_one_block_each_time(world: World, joined: Counter[int]) -> None:
    crowd, rows = Crowd(world, NO_TRACE), np.random.default_rng(1).standard_normal((3, MANY, 3), dtype=np.float32)
    for step in range(3):
        crowd.say([single(step, at, rows) for at in range(MANY)])
        assert [[one[:3] for one in told] for told in crowd.hear()] == [[("answers", 0, step)]] * MANY
    assert joined == {MANY: 3}


@pytest.mark.parametrize("bundle", [False, True], ids=["an answer a message", "bundled answers"])
@pytest.mark.parametrize("trace", [NO_TRACE, selection(every=2), None], ids=["no trace", "every other", "trace"])
def test_whatever_comes_at_the_same_time_is_answered_to_the_byte_as_if_it_had_come_alone(
    world: World, joined: Counter[int], trace: pb.TraceSelection | None, bundle: bool
) -> None:
    random = np.random.default_rng(7)
    apart, together = Crowd(world, trace, bundle=bundle), Crowd(world, trace, bundle=bundle)
    due, kinds = [0] * MANY, Counter[str]()
    for number in range(30):
        requests = [[steps(0, step, random.standard_normal(3, dtype=np.float32))] for step in due]
        for at in range(MANY):
            if number % 4 and random.random() < 0.15:
                requests[at] = odd(random, 0, due[at])
        for at, those in enumerate(requests):
            for request in those:
                apart.lines[at].say(request)
                world.quiet()
        alone = apart.hear()
        together.say(requests)
        assert together.hear() == alone
        for at, told in enumerate(alone):
            kinds.update(one[0] for one in told)
            for one in told:
                due[at] += one[3] if one[0] == "answers" else one[0] == "fleet"
    assert kinds["answers"] > 250
    assert kinds["failure"] > 10
    assert (joined[MANY] > 5) is (trace is None or trace.every < 2)


def test_a_client_that_does_not_read_gets_its_answer_later_and_no_other_waits_for_it(
    world: World, joined: Counter[int]
) -> None:
    crowd, rows = Crowd(world, NO_TRACE), np.random.default_rng(1).standard_normal((3, MANY, 3), dtype=np.float32)
    late = crowd.lines[4]
    late.reads = False
    late.down.append(b"")  # it is full
    crowd.say([single(0, at, rows) for at in range(MANY)])
    world.quiet()
    late.down.clear()
    late.reads = True
    assert [len(told) for told in crowd.hear()] == [1] * 4 + [0] + [1] * 7
    exchange = late._listener
    assert isinstance(exchange, Exchange)
    exchange.writable()
    assert [len(told) for told in crowd.hear()] == [0] * 4 + [1] + [0] * 7
    crowd.say([single(1, at, rows) for at in range(MANY)])
    assert [len(told) for told in crowd.hear()] == [1] * MANY
    assert joined == {MANY: 2}


def test_a_client_that_is_gone_while_its_step_runs_harms_no_other(world: World, joined: Counter[int]) -> None:
    crowd, rows = Crowd(world, NO_TRACE), np.random.default_rng(1).standard_normal((3, MANY, 3), dtype=np.float32)
    crowd.say([single(0, at, rows) for at in range(MANY)])
    world.tick(2)
    crowd.lines[3].serving.cancel()
    told = crowd.hear()
    assert [len(each) for at, each in enumerate(told) if at != 3] == [1] * (MANY - 1)
    assert joined[MANY] == 1


def test_a_stream_that_fails_while_it_is_answered_ends_alone(
    world: World, joined: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, rows = Crowd(world, NO_TRACE), np.random.default_rng(1).standard_normal((3, MANY, 3), dtype=np.float32)

    def broken(_: bytes) -> None:
        raise RuntimeError("the socket is gone")

    monkeypatch.setattr(crowd.lines[3], "send", broken)
    crowd.say([single(0, at, rows) for at in range(MANY)])
    told = crowd.hear()
    assert [len(each) for at, each in enumerate(told) if at != 3] == [1] * (MANY - 1)
    assert joined == {MANY: 1}
    with pytest.raises(RuntimeError, match="the socket is gone"):
        world.run(crowd.lines[3].serving)


def broken(*_: Any) -> NoReturn:  # noqa: ANN401 - whatever it stands in for is given
    raise RuntimeError("broken")


def test_steps_of_which_nobody_knows_whether_they_are_taken_end_their_streams_and_are_not_taken_again(
    world: World, joined: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, rows = Crowd(world, NO_TRACE), np.random.default_rng(1).standard_normal((3, MANY, 3), dtype=np.float32)
    other = Crowd(world, selection())
    model = world.servers[0].shelf.models[2]
    with monkeypatch.context() as patch:
        patch.setattr(model.batcher, "submit", broken)
        crowd.say([single(0, at, rows) for at in range(MANY)])
        assert crowd.hear() == [[]] * MANY
    for line in crowd.lines:
        with pytest.raises(RuntimeError, match="broken"):
            world.run(line.serving)
    assert not model.slots.done.any()
    assert not joined
    other.say([single(0, at, rows) for at in range(MANY)])
    assert [len(told) for told in other.hear()] == [1] * MANY
    assert joined == {MANY: 1}


def test_answers_that_cannot_be_written_end_their_streams_so_that_no_client_waits_for_them(
    world: World, joined: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, rows = Crowd(world, NO_TRACE), np.random.default_rng(1).standard_normal((3, MANY, 3), dtype=np.float32)
    monkeypatch.setattr(Writer, "several", broken)
    crowd.say([single(0, at, rows) for at in range(MANY)])
    assert crowd.hear() == [[]] * MANY
    assert sum(joined.values()) == 1
    for line in crowd.lines:
        with pytest.raises(RuntimeError, match="broken"):
            world.run(line.serving)


def test_inputs_that_cannot_be_looked_at_together_are_taken_one_by_one(
    world: World, joined: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, rows = Crowd(world, NO_TRACE), np.random.default_rng(1).standard_normal((3, MANY, 3), dtype=np.float32)
    monkeypatch.setattr(world.servers[0].shelf.models[2].check, "singles", broken)
    crowd.say([single(0, at, rows) for at in range(MANY)])
    assert [[one[:3] for one in told] for told in crowd.hear()] == [[("answers", 0, 0)]] * MANY
    assert not joined


def test_after_a_stream_that_fails_those_behind_it_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    later: list[Any] = []
    turn = LoopTurn(later.append, most=1e-9)
    rounds, noted = Rounds(turn), list[int]()
    readers: list[Any] = [Reader(noted, number) for number in range(200)]
    readers[3].go_on = broken
    turn.read(200)
    assert all(rounds.add(reader, ANN) for reader in readers)
    turn.end()
    while later:
        later.pop(0)()
    assert noted == [0, 1, 2, -3, *range(4, 200)]
    assert "a stream failed" in caplog.text


def later(what: str) -> pb.StreamRequest:
    return {
        "steps": steps(0, 1, ROW),
        "read_state": pb.StreamRequest(read_state=pb.ReadState(handle=0)),
        "close": close(0),
    }[what]


@pytest.mark.parametrize("what", ["steps", "read_state", "close"])
@pytest.mark.parametrize("as_fleet", [True, False], ids=["a fleet", "single steps"])
def test_what_comes_for_a_row_that_has_run_is_answered_after_its_block_of_which_others_wait(
    world: World, as_fleet: bool, what: str
) -> None:
    """The engine takes eight rows at a time."""
    many = 3 * MANY
    for ticks in range(1, 9):
        world.connect(0, 0)
        line = world.line(0)
        line.say(open_(0, model="recall", trace=NO_TRACE, count=many))
        world.quiet()
        line.down.clear()
        if as_fleet:
            line.say(fleet(range(many), [0] * many, np.zeros((many, 3), np.float32)))
        else:
            line.say(*(steps(handle, 0, ROW) for handle in range(many)))
        world.tick(ticks)
        line.say(later(what))
        world.quiet()
        told = [pb.StreamResponse.FromString(bytes(message)) for message in line.down]
        of_first = [one.WhichOneof("response") for one in told if one.fleet.handles or not one.answers.handle]
        expected = ["fleet" if as_fleet else "answers"]
        assert of_first == [*expected, {"steps": "answers", "read_state": "state", "close": "closed"}[what]]
        assert [one.answers.first_step for one in told if one.HasField("answers") and not one.answers.handle] == (
            [0] * (not as_fleet) + [1] * (what == "steps")
        )
        world.cut(0)
        world.quiet()
        world.work(0)


class Reader:
    """In place of an exchange: notes that it reads."""

    def __init__(self, noted: list[int], number: int) -> None:
        self._noted, self._number = noted, number

    def single(self) -> None:
        """None: it takes what came by itself."""

    def go_on(self, _: object) -> None:
        self._noted.append(self._number)

    def fail(self, _: Exception) -> None:
        self._noted.append(-self._number)


def test_hundreds_of_streams_share_the_turns_of_the_loop() -> None:
    later: list[Any] = []
    turn = LoopTurn(later.append, most=1e-9)
    rounds, noted = Rounds(turn), list[int]()
    turn.read(200)
    assert all(rounds.add(Reader(noted, number), ANN) for number in range(200))  # type: ignore[arg-type]
    assert noted == []
    turn.end()
    assert noted == list(range(64))
    while later:
        later.pop(0)()
    assert noted == list(range(200))


def test_who_has_one_stream_does_not_wait_for_the_hundreds_of_another_account() -> None:
    later: list[Any] = []
    turn = LoopTurn(later.append, most=1e-9)
    rounds, noted = Rounds(turn), list[int]()
    for many, account in ((range(1, 500), ANN), (range(-1, 0), BOB)):
        turn.read(2)
        assert all(rounds.add(Reader(noted, number), account) for number in many)  # type: ignore[arg-type]
        turn.end()
    assert noted == list(range(1, 65))
    later.pop(0)()
    assert noted == [*range(1, 66), -1, *range(66, 128)]
    while later:
        later.pop(0)()
    assert sorted(noted) == [-1, *range(1, 500)]


def test_while_one_socket_is_read_nothing_is_to_wait_for() -> None:
    turn = LoopTurn(lambda _: None)
    rounds, noted = Rounds(turn), list[int]()
    assert not rounds.add(Reader(noted, 0), ANN)  # type: ignore[arg-type]
    turn.read(1)
    assert not rounds.add(Reader(noted, 0), ANN)  # type: ignore[arg-type]
    turn.end()
    assert noted == []


def test_several_calls_of_one_connection_are_waited_for_as_several_sockets_are() -> None:
    turn = LoopTurn(lambda _: None)
    rounds, noted = Rounds(turn), list[int]()

    def came(number: int) -> None:
        assert rounds.add(Reader(noted, number), ANN)  # type: ignore[arg-type]

    turn.read_all([partial(came, number) for number in range(3)])
    assert noted == [0, 1, 2]
    turn.read(2)
    turn.read_all([partial(came, number) for number in range(3, 5)])
    came(5)
    assert noted == [0, 1, 2]
    turn.end()
    assert noted == [0, 1, 2, 3, 4, 5]


class Taken:
    """In place of an exchange: gives away a step of an account, and notes how it was taken."""

    def __init__(self, account: Meter, blocks: list[list[Meter]]) -> None:
        self._account = account
        self.dialect = self
        self._blocks = blocks
        self.alone = 0

    def single(self) -> Any:  # noqa: ANN401 # of the dialect's kind
        return Mock(kind="same", account=self._account)

    def join(self, singles: Sequence[Any], _: object) -> bool:
        self._blocks.append([single.account for single in singles])
        return True

    def go_on(self, _: object) -> None:
        self.alone += 1


def test_accounts_with_few_steps_share_a_block_and_those_with_many_or_another_weight_have_their_own() -> None:
    few, many, heavy = [Meter() for _ in range(6)], Meter(), Meter(Limits(weight=3.0))
    given = [*(account for account in few for _ in range(4)), *[many] * 5, heavy, heavy]
    turn, blocks = LoopTurn(lambda _: None), list[list[Meter]]()
    rounds, streams = Rounds(turn), [Taken(account, blocks) for account in given]
    turn.read(len(streams))
    for stream, account in zip(streams, given, strict=True):
        assert rounds.add(stream, account)  # type: ignore[arg-type]
    turn.end()
    assert sorted(map(len, blocks)) == [2, 5, 24]
    assert [set(block) for block in blocks] == [set(few), {many}, {heavy}]
    assert not any(stream.alone for stream in streams)
