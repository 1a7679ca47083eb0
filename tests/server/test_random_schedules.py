"""Random schedules of what clients can do and servers can suffer, against a plain list of steps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from server.durability import takeover
from server.durability.limits import PORTION
from tests.server.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.surviving_client import Survivor

EXAMPLES = int(os.environ.get("TIDEGATE_TEST_SCHEDULES", "75"))
MOST = 5  # sequences of a client
ROWS = np.random.default_rng(5).normal(size=(997, 3)).astype(np.float32)

few = st.integers(1, 4)
which = st.integers(0, MOST - 1)
two = st.integers(0, 1)


class Schedules(RuleBasedStateMachine):
    """Two clients, two servers, one store."""

    folder: Path
    hosts = "10.0.0.1", "10.0.0.2"

    @initialize(
        slots=st.sampled_from([12, 6, 8]),
        of_one=st.sampled_from([0, 6]),
        count=few,
        pushes=st.booleans(),
        portion=st.sampled_from([PORTION, 1]),
    )
    def begin(self, slots: int, of_one: int, count: int, pushes: bool, portion: int) -> None:
        takeover.PORTION = portion  # type: ignore[attr-defined] # what a resume reads at a time
        self.world = World(self.folder, max_sequences=slots, of_one=of_one)  # with 6 the last of 8 is kept
        self.world.pushes = pushes
        self.at = 0
        for who in range(2):
            self.world.connect(who, 0 if pushes else who, self.hosts[who])
            self.world.open(who, min(count, slots // 4))
        self.world.settle()

    def rows(self, count: int) -> np.ndarray:
        self.at += count
        return ROWS[(self.at + np.arange(count)) % len(ROWS)]

    def one(self, who: int, which: int) -> Survivor | None:
        """One that its user may do something with."""
        able = [s for s in self.world.clients[who].all if not s.gone and not s.asked and s.version]
        return able[which % len(able)] if able else None

    # What clients do.

    @rule(who=two, count=st.integers(1, 2), version=st.integers(1, 2))
    def open(self, who: int, count: int, version: int) -> None:
        if sum(not one.gone for one in self.world.clients[who].all) + count <= MOST:
            self.world.open(who, count, version)

    @rule(which=which)
    def both_step(self, which: int) -> None:
        """At the same time."""
        for who in range(2):
            if one := self.one(who, which):
                self.world.give(who, one, self.rows(1))
        self.flow()

    @rule(who=two, which=which, count=few)
    def give(self, who: int, which: int, count: int) -> None:
        if one := self.one(who, which):
            self.world.give(who, one, self.rows(count))

    @rule(who=two, members=st.sets(which, min_size=1))
    def give_fleet(self, who: int, members: set[int]) -> None:
        chosen = list(dict.fromkeys(one for at in sorted(members) if (one := self.one(who, at))))
        if len({one.version for one in chosen}) == 1:
            self.world.give_fleet(who, chosen, self.rows(len(chosen)))

    @rule(who=two, which=which)
    def read(self, who: int, which: int) -> None:
        one = self.one(who, which)
        if one is not None and one.ready and one.version == one.wanted(one.sent):
            self.world.clients[who].read(one)

    @rule(who=two, which=which, version=st.integers(1, 2))
    def fork(self, who: int, which: int, version: int) -> None:
        one = self.one(who, which)
        if one is not None and one.states and sum(not s.gone for s in self.world.clients[who].all) < MOST:
            state = one.states.pop()
            if state.step <= one.end:
                self.world.open(who, 1, version, state)

    @rule(who=two, which=which, back=st.integers(0, 9))
    def rewind(self, who: int, which: int, back: int) -> None:
        one = self.one(who, which)
        if one is not None and one.ready and not one.reads and one.sent == one.end > one.start:
            self.world.clients[who].rewind(one, max(one.start, one.end - back))

    @rule(who=two, which=which)
    def move(self, who: int, which: int) -> None:
        one = self.one(who, which)
        if one is not None and one.ready and not one.reads:
            self.world.clients[who].move(one, 3 - one.wanted(one.end))

    @rule(who=two, which=which)
    def close(self, who: int, which: int) -> None:
        one = self.one(who, which)
        if one is not None and one.settled:
            self.world.clients[who].close(one)

    @rule(who=two, which=which)
    def steal(self, who: int, which: int) -> None:
        one = self.one(who, which)
        if one is not None and sum(not s.gone for s in self.world.clients[1 - who].all) < MOST:
            self.world.steal(who, one)

    # What happens on the way.

    @rule(who=two, messages=few)
    def send(self, who: int, messages: int) -> None:
        self.world.send(who, messages)

    @rule(who=two, messages=few)
    def hear(self, who: int, messages: int) -> None:
        self.world.hear(who, messages)

    @rule(times=few)
    def tick(self, times: int) -> None:
        self.world.tick(times)

    @rule()
    def flow(self) -> None:
        for who in range(2):
            self.world.send(who)
        self.world.quiet()
        for who in range(2):
            self.world.hear(who)

    @rule(who=two, noticed=st.booleans(), at=two)
    def cut(self, who: int, noticed: bool, at: int) -> None:
        self.world.cut(who, noticed=noticed)
        self.world.connect(who, at, self.hosts[who])

    @rule()
    def notice(self) -> None:
        self.world.notice()

    # What servers do and suffer.

    @rule(at=two, calls=few)
    def work(self, at: int, calls: int) -> None:
        self.world.work(at, calls)

    @rule(at=two)
    def write(self, at: int) -> None:
        self.world.write(at)

    @rule(at=two)
    def begin_to_write(self, at: int) -> None:
        self.world.begin_to_write(at)

    @rule(at=two, seconds=st.sampled_from([0.0, 30.0]))
    def rest(self, at: int, seconds: float) -> None:
        self.world.now += seconds
        self.world.maintain(at)

    @rule(at=two)
    def kill(self, at: int) -> None:
        self.world.kill(at)

    @rule(at=two)
    def drain(self, at: int) -> None:
        self.world.drain(at)

    @rule(mood=st.sampled_from(["fine", "fine", "dead", "late"]))
    def store(self, mood: str) -> None:
        self.world.store.mood = mood

    # What must be true.

    @precondition(lambda self: hasattr(self, "world"))
    @rule()
    def settle(self) -> None:
        self.world.settle()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.end()
        takeover.PORTION = PORTION  # type: ignore[attr-defined]


def test_whatever_happens_every_step_is_answered_once_and_nothing_stays_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    Schedules.folder = tmp_path_factory.getbasetemp()
    run_state_machine_as_test(
        Schedules,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None),
    )
