"""The server that lives through a whole run, under a client, fuzzed messages and every attack of the bench."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Self

from bench.attacks.speech import MODEL as ATTACKED
from bench.processes.child import Child, RigError
from tests.hold.cluster import IDLE, OFTEN
from tests.hold.fuzz import Fuzz
from tests.hold.goal import FUZZED
from tests.running_server import ROOT, RunningServer

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.hold.goal import Goal
    from tests.hold.tally import Tally

WATCH = 5.0  # seconds between two looks at the memory and the bystander
LONG = 200.0  # ms of a bystander's step that are worth a line in the log
PAUSE = 10  # seconds between two attacks
REFUSED = 30  # times that a bystander may be refused, a second apart


class Lived:
    """One server, and a bystander's process."""

    def __init__(self, models: Path, folder: Path, chance: random.Random, tally: Tally) -> None:
        self._models, self._folder, self._chance, self._tally = models, folder, chance, tally
        self._stack = ExitStack()
        self._over: list[str] = []  # attacks that have ended since the last look
        self._refused = 0  # times that the bystander was refused since it had a sequence

    async def __aenter__(self) -> Self:
        store = f"sqlite:{self._folder / 'lived.sqlite'}"
        server = RunningServer(self._models, "--store", store, *OFTEN, *IDLE)
        self._server = self._stack.enter_context(server)
        await asyncio.to_thread(server.ready)
        child = Child("bystander", ["bench.client.bystander"], self._folder / "bystander.log")
        self._bystander = self._stack.enter_context(child)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stack.close)

    def address(self) -> str:
        """Always the same."""
        return self._server.address

    def spared(self) -> AbstractContextManager[None]:
        """It is never killed."""
        return nullcontext()

    async def trouble(self, goal: Goal) -> None:
        """Fuzzed messages and attacks, until the run is over."""
        port = int(self.address().rpartition(":")[2])
        fuzz = Fuzz(self.address(), self._chance, self._tally)
        others = [asyncio.create_task(fuzz.run(FUZZED / 3600)), asyncio.create_task(self._attack(port))]
        while not goal.over(self._tally):
            if not await self._watched(port):
                continue
            await asyncio.sleep(WATCH)
            took = (await asyncio.to_thread(self._bystander.ask, {"ask": "end"}))["took"]
            self._tally.waited(took)
            self._tally.memory.append(self._server.resident)
            self._note(max(took, default=0.0))
            self._tally.load.append(os.getloadavg()[0])
        for task in others:
            task.cancel()
        for end in await asyncio.gather(*others, return_exceptions=True):
            if not isinstance(end, asyncio.CancelledError):
                self._tally.fault(f"fuzzing or attacking has ended: {end!r}")

    async def _watched(self, port: int) -> bool:
        """Whether a bystander has a sequence: an attack may have all streams of their address for some seconds."""
        question = {"ask": "begin", "port": port, "model": ATTACKED}
        try:
            await asyncio.to_thread(self._bystander.ask, question)
        except RigError as error:
            self._tally.notes.append(f"a bystander was refused: {error}")
            self._refused += 1
            if self._refused == REFUSED:
                self._tally.fault(f"a bystander was refused {REFUSED} times, one after the other: {error}")
            await asyncio.sleep(1)
            return False
        self._refused = 0
        return True

    def _note(self, longest: float) -> None:
        if self._over or longest > LONG:
            over = "; ".join(self._over) or "no attack has ended"
            self._tally.notes.append(
                f"{over}: a bystander waited up to {longest:.0f} ms, {self._tally.memory[-1]:.0f} MiB"
            )
        self._over.clear()

    def check(self) -> None:
        """That it lives, and has written nothing that it should not."""
        if self._server.process.poll() is not None:
            self._tally.fault(f"the server that was to live has ended:\n{self._server.log[-3000:]}")
        if "Traceback (most recent call last)" in self._server.log:
            self._tally.fault(f"a traceback in the log of the server that lived:\n{self._server.log[-3000:]}")

    async def _attack(self, port: int) -> None:
        command = [sys.executable, "-m", "bench.attacks", str(port), str(PAUSE)]
        attacker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert attacker.stdout is not None
        try:
            while said := await attacker.stdout.readline():
                self._tally.attacks += 1
                self._over.append(said.decode().strip())
        finally:
            attacker.kill()
            await attacker.wait()
        raise RuntimeError("the attacker's process has ended")
