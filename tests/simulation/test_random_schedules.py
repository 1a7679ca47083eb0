"""Random schedules of what users do and servers suffer: the real client and the real server against a plain list."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.simulation.users import Many, Single, Taker
from tests.simulation.world import RETENTION, World

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = int(os.environ.get("TIDEGATE_TEST_SCHEDULES", "30"))
ROWS = np.random.default_rng(5).normal(size=(997, 3)).astype(np.float32)

SLEEPY = 16.0  # seconds after which a sequence without steps sleeps

few = st.integers(1, 4)
which = st.integers(0, 5)
two = st.integers(0, 1)
orders = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.just(1)),
        st.tuples(st.just("chunk"), few),
        st.tuples(st.just("stream"), st.integers(1, 12), st.integers(1, 8)),
        st.tuples(st.just("rewind"), st.integers(0, 9)),
        st.tuples(st.just("move"), st.integers(1, 2)),
        st.tuples(st.sampled_from(["bad_step", "read", "fork", "come_back", "close"])),
    ),
    min_size=1,
    max_size=4,
)


class Schedules(RuleBasedStateMachine):
    """Users, servers that come and go, a store with moods, a wire that may be held or cut."""

    folder: Path

    @initialize(
        slots=st.sampled_from([12, 6]),
        parked=st.sampled_from([1_000_000, 2]),
        forgetful=st.booleans(),
        seed=st.integers(0, 9),
    )
    def begin(self, slots: int, parked: int, forgetful: bool, seed: int) -> None:
        self.world = World(self.folder, seed, max_sequences=slots, max_parked=parked)
        self.forgetful = forgetful
        self.at = 0
        self.world.open(0, 1)
        self.world.open(1, 1)
        self.world.settle()

    def rows(self, count: int) -> np.ndarray:
        self.at += count
        return ROWS[(self.at + np.arange(count)) % len(ROWS)]

    # What users do.

    @rule(who=two, version=st.integers(1, 2))
    def open(self, who: int, version: int) -> None:
        if not self.world.crowded:
            self.world.open(who, version)

    @rule()
    def open_private(self) -> None:
        if not self.world.crowded:
            self.world.open_private()

    @rule(who=two, count=st.integers(1, 3))
    def open_fleet(self, who: int, count: int) -> None:
        if not self.world.crowded and not any(isinstance(user, Many) for user in self.world.at_work):
            self.world.open_fleet(who, count)

    @rule(which=which, orders=orders)
    def tell(self, which: int, orders: list[tuple[Any, ...]]) -> None:
        singles = [user for user in self.world.at_work if isinstance(user, Single)]
        for word, *given in orders if singles else []:
            if word in ("step", "chunk", "stream"):
                given[0] = self.rows(given[0])
            singles[which % len(singles)].tell(word, *given)

    @rule(which=which, orders=orders, seconds=st.sampled_from([0.0, 0.1, 1.5]))
    def tell_and_wait(self, which: int, orders: list[tuple[Any, ...]], seconds: float) -> None:
        self.tell(which, orders)
        self.world.advance(seconds)

    @rule(
        which=which,
        orders=orders,
        seconds=st.sampled_from([0.0, 0.0, 1.5]),
        ticks=st.integers(1, 60),
        loss=st.sampled_from(["cut", "cut unnoticed", "kill", "stop"]),
        at=two,
    )
    def tell_and_lose(
        self, which: int, orders: list[tuple[Any, ...]], seconds: float, ticks: int, loss: str, at: int
    ) -> None:
        """In the midst of it."""
        self.world.advance(seconds)
        self.tell(which, orders)
        self.world.loop.tick(ticks)
        match loss:
            case "kill":
                self.world.kill(at)
                self.world.start(at)
            case "stop":
                self.world.stop(at)
            case _:
                self.world.cut(at, noticed=loss == "cut")

    @rule(members=st.lists(st.integers(0, 2), unique=True, min_size=1))
    def fleet_step(self, members: list[int]) -> None:
        for fleet in [user for user in self.world.at_work if isinstance(user, Many)]:
            chosen = [member for member in members if member < len(fleet.truths)] or [0]
            fleet.tell("step", chosen, self.rows(len(chosen)))

    @rule()
    def all_step_after_a_rest(self) -> None:
        """Whoever sleeps is called at once."""
        self.world.advance(SLEEPY)
        for user in self.world.at_work:
            if isinstance(user, Many):
                user.tell("step", list(range(user.size)), self.rows(user.size))
            else:
                user.tell("step", self.rows(1))

    @rule(which=which, count=st.integers(2, 4), at=two, loss=st.sampled_from(["cut", "kill"]))
    def read_late(self, which: int, count: int, at: int, loss: str) -> None:
        """Nobody hears the answers of a sequence that sleeps between its steps; and then what was not heard is lost."""
        for channel in range(2):
            self.world.hold_answers(channel)
        self.tell(which, [("stream", count, count, SLEEPY)])
        self.world.advance(count * SLEEPY)
        for channel in range(2):
            self.world.flow(channel) if channel != at else self.world.cut(channel)
        if loss == "kill":
            self.world.kill(at)
            self.world.start(at)
        self.world.flow(at)

    @rule(
        which=which,
        orders=orders,
        ticks=st.integers(1, 60),
        member=st.integers(0, 2),
        again=st.sampled_from([0, 0, 20]),
    )
    def tell_and_take_over(
        self, which: int, orders: list[tuple[Any, ...]], ticks: int, member: int, again: int
    ) -> None:
        """In the midst of it another takes a sequence over, and perhaps one more does."""
        self.tell(which, orders)
        self.world.loop.tick(ticks)
        users = [user for user in self.world.at_work if not isinstance(user, Taker)]
        for pause in [0, again][: 1 + bool(again)] if users else []:
            self.world.loop.tick(pause)
            self.world.take_over(users[which % len(users)], member)

    # What happens on the way.

    @rule(which=two, noticed=st.booleans())
    def cut(self, which: int, noticed: bool) -> None:
        self.world.cut(which, noticed=noticed)

    @rule()
    def notice(self) -> None:
        self.world.notice()

    @rule(which=two)
    def hold(self, which: int) -> None:
        self.world.hold(which)

    @rule(which=two, up=st.integers(0, 3), down=st.integers(0, 3))
    def let_through(self, which: int, up: int, down: int) -> None:
        self.world.let_through(which, up, down)

    @rule(which=two)
    def flow(self, which: int) -> None:
        self.world.flow(which)

    @rule(times=st.integers(1, 30))
    def tick(self, times: int) -> None:
        self.world.loop.tick(times)

    @rule()
    def quiet(self) -> None:
        self.world.quiet()

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(which=two, at=two)
    def lead(self, which: int, at: int) -> None:
        self.world.channels[which].home = at

    # What servers do and suffer.

    @rule(at=two)
    def kill(self, at: int) -> None:
        self.world.kill(at)

    @rule(at=two)
    def stop(self, at: int) -> None:
        self.world.stop(at)

    @rule(at=two)
    def start(self, at: int) -> None:
        self.world.start(at)

    @rule(at=two)
    def hang(self, at: int) -> None:
        self.world.hang(at)

    @rule(at=two, calls=few)
    def work(self, at: int, calls: int) -> None:
        self.world.work(at, calls)

    @rule(mood=st.sampled_from(["fine", "fine", "dead", "late"]))
    def store(self, mood: str) -> None:
        self.world.set_mood(mood)

    @rule()
    def be_away(self) -> None:
        """Longer than anything is kept."""
        if self.forgetful:
            self.world.settle()
            self.world.advance(1.1 * RETENTION)

    # What must be true.

    @rule()
    def settle(self) -> None:
        self.world.settle()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.end()


def test_whatever_happens_users_get_every_answer_once_and_nothing_stays_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    Schedules.folder = tmp_path_factory.getbasetemp()
    run_state_machine_as_test(
        Schedules,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None),
    )
