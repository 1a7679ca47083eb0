"""Hundreds of sequences that open, step, pause, die with their client and are resumed, at random; all are compared."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

import stepgraph
import tidegate
from tests.running_server import ROOT
from tests.soak.line import Line

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

MODEL = "recall"
FILE = ROOT / "models" / MODEL / "1" / "model.onnx"
FEATURES = 3
SHARE = 20  # sequences of one client
LONGEST = 300  # steps after which a sequence is closed
FOR_GOOD = 0.2  # of the deaths, those after which another client takes up the sequences


class Home:
    """A client, and the line that leads to its server."""

    def __init__(self, address: str) -> None:
        self._line = Line(address)

    async def __aenter__(self) -> Self:
        await self._line.__aenter__()
        self.client = tidegate.AsyncClient(self._line.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self._line.__aexit__()

    async def die(self, *, for_good: bool) -> None:
        """The connection breaks. The client goes on over another one, or never comes back: a new one stands here."""
        self._line.cut()
        if for_good:
            dead, self.client = self.client, tidegate.AsyncClient(self._line.address)
            await dead.close()


@dataclass
class Past:
    """What a client keeps of a sequence: it goes on elsewhere with that alone."""

    id: str = ""
    token: str = ""
    closing: bool = False
    clients: int = 0  # that lost it: each may have sent a Resume that comes later than the next client's
    rows: list[np.ndarray] = field(default_factory=list)
    answers: list[np.ndarray] = field(default_factory=list)


class Population:
    """`count` lives at one server. `over` says when they end; `counts` is what they have done, `faults` what was wrong.

    Args:
        pause: the longest that a sequence takes no step, in seconds; beyond the server's idle time it is parked.
        death: the time between two deaths of clients, in seconds.
    """

    def __init__(
        self, address: str, count: int, chance: random.Random, *, pause: float, death: float, over: Callable[[], bool]
    ) -> None:
        self._homes = [Home(address) for _ in range(-(-count // SHARE))]
        self._count = count
        self._chance = chance
        self._pause = pause
        self._death = death
        self._over = over
        self._truth = stepgraph.load(FILE)
        self.counts = Counter[str]()
        self.faults: list[str] = []

    async def run(self) -> None:
        """Until it is over; every sequence is closed then."""
        async with AsyncExitStack() as stack:
            for home in self._homes:
                await stack.enter_async_context(home)
            dying = asyncio.create_task(self._die())
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._count):
                    tasks.create_task(self._live())
            dying.cancel()
            with suppress(asyncio.CancelledError):
                await dying

    async def _die(self) -> None:
        while True:
            await asyncio.sleep(self._death)
            for_good = self._chance.random() < FOR_GOOD
            await self._chance.choice(self._homes).die(for_good=for_good)
            self.counts["clients that died" if for_good else "connections that broke"] += 1

    async def _live(self) -> None:
        while not self._over():
            past = Past()
            while not await self._at_a_client(past):
                pass
            self._compare(past)

    async def _at_a_client(self, past: Past) -> bool:
        """Whether the sequence came to its end there; the client may die before."""
        client = self._chance.choice(self._homes).client
        try:
            sequence = await self._taken_up(client, past)
            while not self._over() and len(past.rows) < LONGEST:
                await self._act(sequence, past)
            past.closing = True
            await sequence.close()
        except tidegate.ConnectionLost:
            past.clients += 1
            return False
        except tidegate.SequenceLost as error:
            if error.reason == "TAKEN_OVER" and past.clients:
                past.clients -= 1
                return False
            if not (
                past.closing and error.reason == "SEQUENCE_ENDED"
            ):  # whose Closed was on its way when a client died
                self.faults.append(self._fault(past, error))
        except tidegate.TidegateError as error:
            self.faults.append(self._fault(past, error))
        self.counts["sequences"] += 1
        return True

    async def _taken_up(self, client: tidegate.AsyncClient, past: Past) -> tidegate.AsyncSequence:
        if not past.answers:  # the server keeps nothing of a sequence that never took a step
            sequence = await client.sequence(MODEL, trace=self._chance.random() < 0.5)
            past.rows = []
            return sequence
        del past.rows[len(past.answers) :]  # no answer came to them: the server may not have had them
        self.counts["resumes by another client"] += 1
        return await client.resume(
            past.id, past.token, answered=len(past.answers), inputs=lambda first: np.array(past.rows[first:])
        )

    async def _act(self, sequence: tidegate.AsyncSequence, past: Past) -> None:
        if (act := self._chance.random()) < 0.1:
            await asyncio.sleep(self._chance.uniform(0, self._pause))
            return
        rows = np.array([[self._chance.gauss(0, 1) for _ in range(FEATURES)] for _ in range(1 if act < 0.8 else 20)])
        past.rows += list(rows)
        if len(rows) == 1:
            past.answers.append((await sequence.step(rows[0])).output)
        else:
            past.answers += list((await sequence.chunk(rows)).output)
        past.id, past.token = sequence.id, sequence.resume_token
        self.counts["steps"] += len(rows)

    @staticmethod
    def _fault(past: Past, error: tidegate.TidegateError) -> str:
        return f"{past.id}, {len(past.rows)} sent, {len(past.answers)} answered: {error!r}"

    def _compare(self, past: Past) -> None:
        """Every answer that came; steps are left without one only where the sequence ended with a fault."""
        if len(past.rows) != len(past.answers) and not any(fault.startswith(past.id) for fault in self.faults):
            self.faults.append(f"{past.id}: {len(past.rows)} steps were sent, and {len(past.answers)} were answered")
        state = None
        for step, (row, said) in enumerate(zip(past.rows, past.answers, strict=False)):
            answer, state = self._truth.step(row, state)
            if not np.array_equal(answer.output, said):
                self.faults.append(f"{past.id}: the answer to step {step} is {said}; the file's is {answer.output}")
                break
