"""Random schedules of what a client can do and a server can suffer, against a plain list of rows.

The real books on one side, the fake server and its store as values on the other; what is on its way is delivered or
lost as the schedule says. In `tests/simulation` the whole client meets the whole server.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.tidegate.fake_server import expected
from tests.tidegate.world import World
from tidegate.errors import Refused, SequenceLost
from tidegate.protocol import replay, sequence_books
from tidegate.protocol.in_flight import StepsPromise
from tidegate.protocol.sequence_books import SequenceBooks

COUNT = 3  # members of the fleet
ROWS = np.random.default_rng(5).normal(size=(997, 2)).astype(np.float32)
NAN = np.array([np.nan, 0], np.float32)

few = st.integers(1, 6)
which = two = st.integers(0, 1)


@dataclass
class Told:
    """What was asked of a sequence, and the list that the answers are compared with."""

    sequence_books: SequenceBooks
    sent: list[tuple[StepsPromise, np.ndarray]] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)  # those that were answered, by their steps
    moved_at: int = 2**62

    def take(self) -> None:
        """Moves what is settled into the list."""
        for promise, rows in self.sent:
            assert promise.done
            try:
                block = self.sequence_books.answers(promise)
            except Refused as error:
                if error.reason != "WRONG_STEP" and not (error.reason == "NOT_FINITE" and np.isnan(rows).any()):
                    raise
                continue
            except SequenceLost as error:
                if error.reason != "TAKEN_OVER" or self.sequence_books.ended is None:
                    raise
                continue
            assert block.first_step == len(self.rows)
            self.rows += list(rows)
            wanted = expected(np.array(self.rows), self.moved_at)[block.first_step :]
            np.testing.assert_array_equal(block.output[:, 0], wanted)
            assert len(block.layer[0].hidden) == len(rows)
        self.sent.clear()


class Losses(RuleBasedStateMachine):
    """Two sequences and a fleet on one conversation."""

    @initialize(
        every=st.sampled_from([0, 1, 3, 4]),
        part=st.sampled_from([1, 2, 100]),
        backwards=st.booleans(),
        together=st.sampled_from([2, 3, replay.TOGETHER]),
        ahead=st.sampled_from([1, 4, 1024]),
    )
    def begin(self, every: int, part: int, backwards: bool, together: int, ahead: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sequence_books, "_AHEAD", ahead)
        self.patch.setattr(sequence_books, "_PART", 2 * ROWS[0].nbytes)
        self.patch.setattr(replay, "TOGETHER", together)
        self.world = World(every=every, part=part, backwards=backwards)
        self.told = [Told(self.world.sequence()) for _ in range(2)]
        self.fleet = self.world.fleet(COUNT)
        self.fleet_sent: list[tuple] = []
        self.fleet_rows: list[list[np.ndarray]] = [[] for _ in range(COUNT)]
        self.at = 0

    def row(self) -> np.ndarray:
        self.at += 1
        return ROWS[self.at % len(ROWS)]

    def alive(self, which: int) -> Told:
        """One of the sequences; if it was lost, another takes its place."""
        if self.told[which].sequence_books.ended is not None:
            self.settle()
        return self.told[which]

    # What the client does.

    @rule(which=which)
    def step(self, which: int) -> None:
        told, row = self.alive(which), self.row()
        told.sent.append((self.world.step(told.sequence_books, row), row[np.newaxis]))

    @rule(which=which, count=few)
    def chunk(self, which: int, count: int) -> None:
        told, rows = self.alive(which), np.array([self.row() for _ in range(count)])
        told.sent.append((self.world.chunk(told.sequence_books, rows), rows))

    @rule(which=which)
    def bad_step(self, which: int) -> None:
        told = self.alive(which)
        told.sent.append((self.world.step(told.sequence_books, NAN), NAN[np.newaxis]))

    @rule(members=st.lists(st.integers(0, COUNT - 1), unique=True, min_size=1))
    def fleet_step(self, members: list[int]) -> None:
        if self.fleet.ended is not None:
            self.settle()
        rows = np.array([self.row() for _ in members])
        self.fleet_sent.append((self.world.tell(self.fleet.send(rows, members)), members, rows))

    @rule(which=which, at=st.floats(0, 1))
    def rewind(self, which: int, at: float) -> None:
        self.settle()
        told = self.told[which]
        first = told.sequence_books.kept()[0]
        asked = self.world.tell(
            self.world.talk.rewind(told.sequence_books, first + round(at * (len(told.rows) - first)))
        )
        self.world.serve(1 if at > 0.5 else 0)
        self.world.kill()
        self.world.settle()
        try:
            step = asked.result().rewound.next_step
        except Refused as error:
            if error.reason != "CHECKPOINT_GONE":
                raise
            return
        assert told.sequence_books.next_step == step
        if told.moved_at != 2**62:  # it stays on its version
            told.moved_at = min(told.moved_at, step)
        del told.rows[step:]

    @rule(which=which)
    def move(self, which: int) -> None:
        told = self.alive(which)
        if (
            told.sequence_books.version == 1
            and told.moved_at == 2**62
            and not any(np.isnan(rows).any() for _, rows in told.sent)
        ):
            told.moved_at = told.sequence_books.next_step
            self.world.tell(self.world.talk.move(told.sequence_books, 2))

    @rule(which=which, served=two, heard=two, cut=st.booleans())
    def close_and_open(self, which: int, served: int, heard: int, cut: bool) -> None:
        self.settle()
        sequence_books = self.told[which].sequence_books
        closed = [self.world.tell(self.world.talk.close(sequence_books)) for _ in range(2)]
        self.world.serve(served)
        self.world.hear(heard)
        closed.append(self.world.tell(self.world.talk.close(sequence_books)))
        if cut:
            self.world.cut()
        closed.append(self.world.tell(self.world.talk.close(sequence_books)))
        self.world.settle()
        for promise in closed:
            assert promise.result().handle == sequence_books.handle
        self.told[which] = Told(self.world.sequence())

    @rule(which=which)
    def close_while_taken(self, which: int) -> None:
        """Another takes it over, and its client closes it before it hears of that."""
        told = self.alive(which)
        self.world.take_over(told.sequence_books)
        closed = [self.world.tell(self.world.talk.close(told.sequence_books)) for _ in range(2)]
        self.told[which] = Told(self.world.sequence())
        assert all(promise.done for promise in (*closed, *(promise for promise, _ in told.sent)))

    # What the wire and the server do.

    @rule(which=which)
    def take_over(self, which: int) -> None:
        self.world.take_over(self.told[which].sequence_books)

    @rule(member=st.integers(0, COUNT - 1))
    def take_over_member(self, member: int) -> None:
        self.world.take_over(self.fleet, member)

    @rule()
    def release(self) -> None:
        self.world.release()

    @rule(messages=few)
    def serve(self, messages: int) -> None:
        if self.world.talk.broken is None:
            self.world.serve(messages)

    @rule(messages=few)
    def hear(self, messages: int) -> None:
        self.world.hear(messages)

    @rule(handle=st.integers(0, 1 + COUNT))
    def write(self, handle: int) -> None:
        if handle in self.world.session.lives and not self.world.down:
            self.world.down.append(self.world.session.write(handle))

    @rule()
    def cut(self) -> None:
        self.world.cut()

    @rule()
    def kill(self) -> None:
        self.world.kill()

    @rule()
    def reconnect(self) -> None:
        if self.world.talk.broken is not None:
            self.world.reconnect()

    # What must be true.

    @rule()
    def settle(self) -> None:
        self.world.settle()
        for at, told in enumerate(self.told):
            told.take()
            if told.sequence_books.ended is not None:
                self.told[at] = Told(self.world.sequence())
        self.take_fleet()
        self.check_handles()

    def check_handles(self) -> None:
        """Those that are taken are those of what is open."""
        registry = self.world.talk._registry
        assert not registry.closing
        free = registry._handles._free
        taken = set(range(int(free[-1][0]))).difference(*(range(int(first), int(end)) for first, end in free[:-1]))
        assert taken == {
            handle for books in registry.all() for handle in range(books.handle, books.handle + books.count)
        }
        assert len(taken) == 2 + COUNT

    def take_fleet(self) -> None:
        for promise, members, rows in self.fleet_sent:
            try:
                block = self.fleet.answers(promise)
            except SequenceLost as error:
                if error.reason != "TAKEN_OVER" or self.fleet.ended is None:
                    raise
                continue
            for at, member in enumerate(members):
                assert block.steps[at] == len(self.fleet_rows[member])
                self.fleet_rows[member].append(rows[at])
                assert block.output[at, 0] == expected(np.array(self.fleet_rows[member]))[-1]
        self.fleet_sent.clear()
        if self.fleet.ended is not None:
            self.fleet = self.world.fleet(COUNT)
            self.fleet_rows = [[] for _ in range(COUNT)]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.settle()
            assert {lost.reason for lost in self.world.talk.resumption.casualties} <= {"TAKEN_OVER"}
        finally:
            self.patch.undo()


Losses.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestLosses = Losses.TestCase
