"""Servers that are killed and started again, each at moments of its own: one with SQLite, or three with one Valkey."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tests.running_server import RunningServer
from tests.valkey_server import RunningValkey

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hold.goal import Goal
    from tests.hold.tally import Tally

OFTEN = ("--checkpoint-ms", "20", "--checkpoint-steps", "16", "--keep-checkpoints", "20", "--keep-versions", "2")
IDLE = ("--idle-seconds", "2")
CALM = (0.1, 1.5)  # seconds at least between a server's start and its kill


@dataclass(frozen=True)
class Kind:
    """`share`: of all kills, those of each of its servers."""

    name: str
    replicas: int
    share: float
    host: (
        str  # of its own: the port of a server that was killed may be another program's at once, and clients ask there
    )


KINDS = (Kind("sqlite", 1, 0.4, "127.0.0.2"), Kind("valkey", 3, 0.2, "127.0.0.3"))


class Cluster:
    """`address` is that of any of its servers, whether it is alive or not."""

    def __init__(self, kind: Kind, models: Path, folder: Path, chance: random.Random, tally: Tally) -> None:
        self.kind = kind
        self._models, self._folder, self._chance, self._tally = models, folder, chance, tally
        self._stack = ExitStack()
        self._up: list[RunningServer] = []
        self._spared = 0
        self._may_kill = asyncio.Event()
        self._may_kill.set()

    async def __aenter__(self) -> Self:
        self._folder.mkdir()
        self._store = f"sqlite:{self._folder / 'hold.sqlite'}"
        if self.kind.replicas > 1:
            valkey = RunningValkey(self._folder)
            await asyncio.to_thread(self._stack.enter_context, valkey)
            self._store = valkey.url
        self._up = [self._start() for _ in range(self.kind.replicas)]
        for one in self._up:
            await asyncio.to_thread(one.ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self._up:
            await asyncio.to_thread(self._gone, one)
        await asyncio.to_thread(self._stack.close)

    def _start(self) -> RunningServer:
        return RunningServer(self._models, "--host", self.kind.host, "--store", self._store, *OFTEN, *IDLE)

    def address(self) -> str:
        """Of any of them."""
        return self._chance.choice(self._up).address

    @contextmanager
    def spared(self) -> Iterator[None]:
        """None of its servers is killed meanwhile."""
        self._spared += 1
        self._may_kill.clear()
        try:
            yield
        finally:
            self._spared -= 1
            if not self._spared:
                self._may_kill.set()

    async def kill(self, goal: Goal) -> None:
        """Kills all of them again and again, each at a random moment of its spans, until the run is over."""
        async with asyncio.TaskGroup() as tasks:
            for at in range(self.kind.replicas):
                tasks.create_task(self._kill(at, goal))

    async def _kill(self, at: int, goal: Goal) -> None:
        number = 0
        while not goal.over(self._tally):
            due = goal.due(number, self.kind.share, self._chance.random())
            await asyncio.sleep(max(self._chance.uniform(*CALM), due))
            await self._may_kill.wait()
            if goal.over(self._tally):
                return
            number += 1
            await self._replace(at)

    async def _replace(self, at: int) -> None:
        """Kills one, and waits until another one serves in its place."""
        old, began = self._up[at], time.monotonic()
        if old.process.poll() is not None:
            self._tally.fault(f"a server of {self.kind.name} has ended by itself:\n{old.log[-3000:]}")
        old.process.kill()
        self._tally.kills += 1
        fresh = self._start()
        await asyncio.to_thread(self._gone, old)
        await asyncio.to_thread(fresh.ready)
        self._up[at] = fresh
        self._tally.starts.append(time.monotonic() - began)

    def _gone(self, server: RunningServer) -> None:
        """Its process and its pipe are given up; what it should never write is a fault."""
        server.__exit__()
        if "Traceback (most recent call last)" in server.log:
            self._tally.fault(f"a traceback in the log of {self.kind.name}:\n{server.log[-3000:]}")
