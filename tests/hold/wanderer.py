"""A client whose sequences do everything that a sequence can do, at random, and whose answers are all compared."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import numpy as np

from tests.hold.inferring import Inferring
from tests.lab.streaming import Streaming
from tests.shelf import MODEL
from tests.surviving_client import CLOSED, SurvivingClient, Survivor
from tests.truth import Truth
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tidegate_pb2, tidegate_pb2_grpc

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from stepgraph.model import LoadedModel
    from tests.hold.tally import Tally

MOST = 12  # sequences at a time
LONG = 400  # steps after which a sequence is closed
FEATURES = 3
PACE = 0.03  # seconds at least between two things that a client does: two cores carry five of them beside the servers
REST = 5.0  # seconds at most without doing anything, longer than it takes a server to put its sequences to sleep
AGAIN = 0.1  # seconds from the loss of a connection to the next
PATIENCE = 20.0  # seconds without a word after which a connection is given up; killed servers are noticed at once


class Wanderer:
    """`address` says where a server is now, `before` whose sequences go on. Ends when told to, once all is answered."""

    def __init__(
        self,
        loaded: Mapping[int, LoadedModel],
        address: Callable[[], str],
        chance: random.Random,
        tally: Tally,
        before: Wanderer | None = None,
    ) -> None:
        self._loaded, self._address, self._chance, self._tally = loaded, address, chance, tally
        self.client = SurvivingClient()
        self.truth: dict[Survivor, Truth] = {}
        self.stop = asyncio.Event()
        self._next = 0.0  # when it does something again
        self._take_up(before)
        self._streaming = Streaming(
            self.client,
            address,
            done=self._done,
            act=self._act,
            bundle=lambda: chance.choice((1, 1, 2, 8)),
            patience=PATIENCE,
            again=AGAIN,
        )

    def _take_up(self, before: Wanderer | None) -> None:
        for one, truth in before.truth.items() if before else ():
            mine = self.client.take_up(one)
            mine.states = one.states
            self.truth[mine] = truth
            self._tally.count("sequences taken up by another client")

    async def run(self) -> None:
        """Until it is told to stop; whatever a server has done wrong is in the tally."""
        while len(self.client.all) < MOST / 2:
            self._open(self._chance.randint(1, 3))
        try:
            async with asyncio.TaskGroup() as tasks:
                inferring = Inferring(self._loaded, self._address, self._chance, self._tally)
                others = [tasks.create_task(self._predict()), tasks.create_task(inferring.run())]
                await self._streaming.run()
                for other in others:
                    other.cancel()
        except* AssertionError as found:
            self._tally.fault(str(found.exceptions[0]))
        for one in [one for one in self.client.all if one.gone]:
            self._compare(one)
        self._tally.cuts += self._streaming.streams
        self._tally.resumed += self.client.resumed
        self._tally.replayed += self.client.replayed

    def compare(self) -> None:
        """All that it has, at the end."""
        for one in list(self.truth):
            self._compare(one)

    @property
    def story(self) -> str:
        """What is not answered, and what became of the last streams."""
        left = [one for one in self.client.all if not one.settled]
        return "\n  ".join([str(left), *self._streaming.story])

    def _done(self) -> bool:
        alive = [one for one in self.client.all if not one.gone]
        return self.stop.is_set() and all(one.settled for one in alive)

    # What its sequences do --------------------------------------------------------------------------------------------

    def _act(self) -> None:
        for one, truth in self.truth.items():
            truth.cut(one.end)  # what a rewind has undone
        for one in [one for one in self.client.all if one.gone]:
            self._compare(one)
        for one in self.client.all:
            self.client.flush(one)  # what was refused for now
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PACE
        able = [s for s in self.client.all if not s.asked and s.version and s.end - s.answered < 64]
        if self.stop.is_set() or not able:
            return
        if len(self.client.all) < MOST and self._chance.random() < 0.05:
            self._open(self._chance.randint(1, 3))
        one = self._chance.choice(able)
        ways = {
            self._single: 300,
            self._chunk: 120,
            self._fleet: 120,
            self._read: 30,
            self._fork: 20,
            self._rewind: 20,
            self._move: 20,
            self._close: 10,
            self._rest: 1,
        }
        self._chance.choices(list(ways), list(ways.values()))[0](one)

    def _open(self, count: int, version: int = 0, state: pb.State | None = None) -> None:
        version = version or self._chance.choice((1, 2))
        for one in self.client.open(count, MODEL, version, state):
            row = None if state is None else _row(state)
            self.truth[one] = Truth(self._loaded, version, one.start, row)

    def _single(self, one: Survivor) -> None:
        self._give(one, 1, "single steps")

    def _chunk(self, one: Survivor) -> None:
        self._give(one, self._chance.randint(2, 40), "chunks")

    def _give(self, one: Survivor, count: int, kind: str) -> None:
        rows = self._rows(count)
        self._compute(one, rows)
        self.client.give(one, rows)
        self._tally.count(kind)

    def _fleet(self, one: Survivor) -> None:
        members = [s for s in self.client.all if s.version == one.version and not s.asked and not s.gone]
        rows = self._rows(len(members))
        for member, row in zip(members, rows, strict=True):
            self._compute(member, row[None])
        self.client.give_fleet(members, rows)
        self._tally.count("fleets")

    def _read(self, one: Survivor) -> None:
        if one.ready and one.version == one.wanted(one.sent):
            self.client.read(one)
            self._tally.count("states read")

    def _fork(self, one: Survivor) -> None:
        if one.states and len(self.client.all) < MOST and (state := one.states[-1]).step <= one.end:
            self._open(1, self._chance.choice((1, 2)), state)
            self._tally.count("forks")

    def _rewind(self, one: Survivor) -> None:
        if one.ready and not one.reads and one.sent == one.end > one.start:
            self.client.rewind(one, max(one.start, one.end - self._chance.randint(0, 60)))
            self._tally.count("rewinds")

    def _move(self, one: Survivor) -> None:
        if one.ready and not one.reads:
            self.client.move(one, 3 - one.wanted(one.end))
            self._tally.count("moves to another version")

    def _close(self, one: Survivor) -> None:
        if one.settled and (one.end - one.start > LONG or self._chance.random() < 0.3):
            self.client.close(one)
            self._tally.count("closes")

    def _rest(self, _: Survivor) -> None:
        self._next = time.monotonic() + self._chance.uniform(0, REST)
        self._tally.count("rests")

    def _rows(self, count: int) -> np.ndarray:
        return np.array([[self._chance.gauss(0, 1) for _ in range(FEATURES)] for _ in range(count)], np.float32)

    # What the answers have to be --------------------------------------------------------------------------------------

    def _compute(self, one: Survivor, rows: np.ndarray) -> None:
        truth = self.truth[one]
        for at, row in enumerate(rows):
            truth.version = one.wanted(one.end + at)
            truth.take(row)

    def _compare(self, one: Survivor) -> None:
        """At the end of a sequence."""
        truth = self.truth.pop(one, None)
        if truth is None:
            return
        self.client.all.remove(one)
        if one.gone not in ("", CLOSED):
            self._tally.fault(f"{one.id} is lost: {one.gone}")
        said = [b"|".join(each) for each in zip(truth.outputs, truth.traces, strict=True)]
        for step, (answer, right) in enumerate(zip(one.answers, said, strict=False)):
            if answer != right:
                self._tally.fault(f"{one.id}: the answer to step {one.start + step} differs")
                break
        for state in one.states:
            if not np.array_equal(_row(state), truth.states[state.step - one.start]):
                self._tally.fault(f"{one.id}: the state after step {state.step} differs")
        self._tally.sequences += 1
        self._tally.steps += len(one.answers)
        self._tally.states += len(one.states)

    async def _predict(self) -> None:
        """One prediction after the other, each of a sequence of its own."""
        while True:
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))
            truth, rows = Truth(self._loaded, 1), self._rows(self._chance.randint(1, 60))
            for row in rows:
                truth.take(row)
            request = tidegate_pb2.PredictRequest(model=MODEL, version=1, inputs=[wire.encode("", rows)])
            with suppress(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(self._address()) as channel:
                    answer = await tidegate_pb2_grpc.TidegateStub(channel).Predict(request, timeout=5)
                    if wire.decode(answer.outputs[0]).tobytes() != b"".join(truth.outputs):
                        self._tally.fault("a prediction differs")
                    self._tally.predicted += len(rows)
                    self._tally.count("predictions")


def _row(state: pb.State) -> np.ndarray:
    return np.concatenate([wire.decode(part.value).ravel() for part in state.parts])
