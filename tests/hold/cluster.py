"""Servers that are killed: one with SQLite, or three replicas that share a Valkey."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from tests.running_server import RunningServer
from tests.valkey_server import RunningValkey

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.hold.tally import Tally

OFTEN = ("--checkpoint-ms", "20", "--checkpoint-steps", "16", "--keep-checkpoints", "20", "--keep-versions", "2")


class Cluster:
    """Each server is started again as soon as it was killed."""

    def __init__(self, models: Path, folder: Path, replicas: int, chance: random.Random, tally: Tally) -> None:
        self._models, self._folder, self._replicas = models, folder, replicas
        self._chance, self._tally = chance, tally
        self._stack = ExitStack()
        self._up: list[RunningServer] = []

    async def __aenter__(self) -> Self:
        self._store = f"sqlite:{self._folder / 'hold.sqlite'}"
        if self._replicas > 1:
            self._store = self._stack.enter_context(RunningValkey(self._folder)).url
        self._up = [self._start() for _ in range(self._replicas)]
        for one in self._up:
            await asyncio.to_thread(one.ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stack.close)

    def _start(self) -> RunningServer:
        return self._stack.enter_context(RunningServer(self._models, "--store", self._store, *OFTEN))

    def address(self) -> str:
        """Of any of them."""
        return self._chance.choice(self._up).address

    async def kill(self) -> None:
        """Kills any of them, and waits until another one serves in its place."""
        at = self._chance.randrange(self._replicas)
        self._up[at].process.kill()
        self._tally.kills += 1
        fresh = self._start()
        await asyncio.to_thread(fresh.ready)
        self._up[at] = fresh
