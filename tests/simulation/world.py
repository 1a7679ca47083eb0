# ruff: noqa: ANN401 - settings are what they are
"""Clients and servers in one event loop whose time stands still: both real, and nothing happens by itself but them.

Real are the asyncio client as a user has it, and of the server everything from its gRPC edge to its clerk. Stood in for
are gRPC (`wire`), the clerk's thread (`Desk`), the store (in memory, with moods), the folder of models, and the clock.
"""

from __future__ import annotations

import asyncio
import random
from math import inf
from typing import TYPE_CHECKING, Any

from server.settings import Settings
from server.stores.fencing import Kept
from server.stores.terms import Terms
from tests.server.world import versions
from tests.simulation.loop import StandingLoop
from tests.simulation.server import Server, Store
from tests.simulation.users import Many, Single, Taker, User
from tests.simulation.wire import EVERY, Channel
from tidegate import AsyncClient, Resuming

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EPOCH = 1_700_000_000.0
RETENTION = 300.0  # seconds
ROUNDS = 100
SETTINGS: dict[str, Any] = {
    "max_sequences": 12,
    "spot_us": 1e9,  # no thread computes
    "checkpoint_steps": 4,
    "checkpoint_ms": 1_000.0,
    "idle_seconds": 10.0,
    "retention_hours": RETENTION / 3_600,
}


class World:
    """Two servers of one store; two clients that users share, and more that one user has alone."""

    def __init__(self, folder: Path, seed: int = 0, **given: Any) -> None:
        self.loop = StandingLoop()
        self.settings = Settings(**{**SETTINGS, **given})
        self.loaded = versions(folder)
        self.store = Store(self, Terms(keep=1, retention=RETENTION, tombstone=100 * RETENTION, gap=inf))
        self.users: list[User] = []
        self.closed: set[str] = set()  # ids
        self.settling = False  # then nobody takes their time
        self.taken: set[str] = set()  # ids that somebody else took over
        self.careless = False  # whether a server may have forgotten, or been too late to say, that one was closed
        self.channels: list[Channel] = []
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._killed: list[Server] = []  # what they have begun never ends
        self.servers: list[Server | None] = [None, None]
        for at in range(2):
            self.start(at)
        self._clients: list[AsyncClient] = []
        self._shared = [self.loop.run(self._make_client()) for _ in range(2)]

    # Time -------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The servers' clocks, in seconds since 1970."""
        return EPOCH + self.loop.now

    def quiet(self) -> None:
        """Until nobody has anything to do but wait, for time, for the store or for the wire."""
        self.loop.quiet()
        while any(self._serve_desk(server) for server in self.servers):
            pass
        self.check()

    def _serve_desk(self, server: Server | None, calls: int = 10**9) -> bool:
        if server is None or not server.desk.calls or not (server.prompt or calls < 10**9):
            return False
        while server.desk.calls and calls:
            server.desk.work()
            self.loop.quiet()
            calls -= 1
        return True

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.loop.advance(seconds, self.quiet)

    # Servers ----------------------------------------------------------------------------------------------------------

    def start(self, at: int) -> None:
        """Starts a server where there is none."""
        if self.servers[at] is None:
            self.servers[at] = self.loop.run(self._make_server())

    async def _make_server(self) -> Server:
        return Server(self)

    def kill(self, at: int) -> None:
        """As kill -9."""
        server = self.servers[at]
        if server is None:
            return
        server.desk.dead = True
        server.desk.calls.clear()
        for task in (server.keeping, server.stopping):
            if task is not None:
                task.cancel()
        self.bury(at)
        self.hang_up(server)
        self.quiet()

    def stop(self, at: int) -> None:
        """As SIGTERM; it takes its time."""
        server = self.servers[at]
        if server is not None and server.stopping is None:
            server.stopping = self.loop.create_task(server.stop(self, at))

    def bury(self, at: int) -> None:
        """It is gone."""
        server, self.servers[at] = self.servers[at], None
        if server is not None:
            server.shelf.stop()
            self._killed.append(server)

    def hang_up(self, server: Server) -> None:
        """All of its connections are gone."""
        for channel in self.channels:
            for line in channel.lines:
                if line.server is server:
                    line.cut(noticed=True)

    def set_mood(self, mood: str) -> None:
        """How the store is from now on."""
        self.careless = self.careless or mood != "fine"
        self.store.mood = mood

    def hang(self, at: int) -> None:
        """The store does not do what a server asks it, or does it again."""
        self.careless = True
        if (server := self.servers[at]) is not None:
            server.prompt = not server.prompt

    def work(self, at: int, calls: int) -> None:
        """The store does a few things that a server has asked it."""
        self._serve_desk(self.servers[at], calls)

    # Clients ----------------------------------------------------------------------------------------------------------

    async def _make_client(self) -> AsyncClient:
        return self.client()

    def client(self) -> AsyncClient:
        """One more, which is led to any server."""
        channel = Channel(self._chance.randrange(2), self._led_to)
        self.channels.append(channel)
        resuming = Resuming(clock=self.loop.time, chance=self._chance.random)
        by_channel = [("grpc.enable_http_proxy", 0)]  # any option of gRPC has its channel taken
        client = AsyncClient("servers:50051", resume_within=None, resuming=resuming, options=by_channel)
        client._new_channel = lambda _: channel
        self._clients.append(client)
        return client

    def shared(self, who: int) -> AsyncClient:
        """One that users share."""
        return self._shared[who]

    def _led_to(self, home: int) -> Server | None:
        """Where a balancer leads a client: home, or to the other server while that one does not serve."""
        serving = [server for server in self.servers if server is not None and server.stopping is None]
        return self.servers[home] if self.servers[home] in serving else next(iter(serving), self.servers[home])

    def open(self, who: int, version: int) -> None:
        """A user on a client that others share."""
        self._user(lambda: Single(self, self._shared[who], version))

    def open_private(self) -> None:
        """A user with a client of its own."""
        self._user(lambda: Single(self, self.client(), private=True))

    def open_fleet(self, who: int, count: int) -> None:
        """A user with a fleet."""
        self._user(lambda: Many(self, self._shared[who], count))

    def take_over(self, user: User, member: int = 0) -> None:
        """Somebody else takes over what a user has."""
        if isinstance(user, Single) and hasattr(user, "sequence"):
            name, token, answered = user.sequence.id, user.sequence.resume_token, user.sequence.answered
        elif isinstance(user, Many) and hasattr(user, "fleet"):
            member %= user.size
            name, token = user.fleet.ids[member], user.fleet.resume_token
            answered = int(user.fleet.answered[member])
        else:
            return
        self.taken.add(name)
        self._user(lambda: Taker(self, name, token, answered))

    def _user(self, make: Callable[[], User]) -> None:
        async def made() -> None:
            self.users.append(make())

        self.loop.run(made())

    # The wire ---------------------------------------------------------------------------------------------------------

    def cut(self, which: int, *, noticed: bool = True) -> None:
        """A client's connection is gone."""
        if (line := self.channels[which].line) is not None:
            line.cut(noticed=noticed)

    def notice(self) -> None:
        """Servers find out about all connections that were cut."""
        for channel in self.channels:
            for line in channel.lines:
                line.be_noticed()

    def hold(self, which: int) -> None:
        """From now on nothing crosses by itself, on the next streams neither."""
        self.channels[which].held = True
        if (line := self.channels[which].line) is not None:
            line.hold()

    def hold_answers(self, which: int) -> None:
        """From now on a client says what it has to say, and hears nothing on this stream."""
        self.hold(which)
        self.let_through(which, EVERY, 0)

    def let_through(self, which: int, up: int, down: int) -> None:
        """So many messages may cross each way."""
        if (line := self.channels[which].line) is not None:
            line.send(up)
            line.hear(down)

    def flow(self, which: int) -> None:
        """Everything crosses again."""
        self.channels[which].held = False
        if (line := self.channels[which].line) is not None:
            line.flow()

    # The end ----------------------------------------------------------------------------------------------------------

    @property
    def at_work(self) -> list[User]:
        return [user for user in self.users if not user.over]

    @property
    def crowded(self) -> bool:
        """Whether there are enough of them: a stream has no more handles than a server has slots."""
        return sum(user.size for user in self.at_work) + 3 > self.settings.max_sequences

    def check(self) -> None:
        """Nobody has seen anything that must not be."""
        for user in self.users:
            if user.task.done():
                user.task.result()
        for client in self._clients:
            connection = client._connection
            if connection is not None and connection._reader.done():
                connection._reader.result()
        assert not self.loop.faults, self.loop.faults

    def heal(self) -> None:
        """Everything is well again."""
        self.store.mood = "fine"
        for channel in self.channels:
            channel.held = False
            for line in channel.lines:
                line.flow()
        for at in range(2):
            self.start(at)
            server = self.servers[at]
            assert server is not None
            server.prompt = True
        self.quiet()

    def settle(self) -> None:
        """Heals, and waits until everybody has what they asked for."""
        self.heal()
        self.settling = True
        for _ in range(ROUNDS):
            if all(user.idle for user in self.users):
                self.settling = False
                return
            self.advance(2.0)
            self.heal()
        raise AssertionError(f"these never came to their end: {[vars(user) for user in self.users if not user.idle]}")

    def end(self) -> None:
        """Everybody closes what they have, and nothing stays behind."""
        try:
            self.settle()
            for user in self.at_work:
                user.tell("close")
            self.settle()
            for client in self._clients:
                closing = self.loop.create_task(client.close())
                while not closing.done():
                    self.advance(0.5)
            for channel in self.channels:
                for line in channel.lines:
                    line.cut(noticed=True)
            self.advance(2.0)
            for server in self.servers:
                assert server is not None
                server.assert_empty()
            if not self.careless:
                entries = self.store.memory.tables.entries(self.closed - self.taken)
                assert not [id_ for id_, entry in entries.items() if isinstance(entry, Kept)]
            self.check()
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of everything."""
        for _ in range(ROUNDS):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.loop.advance(1.0, self.loop.quiet)
        for at in range(2):
            self.bury(at)
        self.loop.close()
