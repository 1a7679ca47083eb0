# ruff: noqa: ANN401 - stands in for an executor, a store and gRPC's context, whatever they are given
"""Servers that share a store, and clients that survive, as values in one event loop: nothing happens by itself.

The real conversations, streams, keepers, clerks and batchers; in place of gRPC two queues, in place of the clerk's
thread a list of calls that are carried out one by one, and in place of the clock a number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from server.caller import Caller
from server.durability.keeper import Keeper
from server.durability.store_thread import StoreThread
from server.edge.admission import Leaving
from server.edge.callers import address_of
from server.edge.exchanges.pace import Pace
from server.edge.exchanges.rounds import Rounds
from server.edge.native.requests import reader
from server.edge.native.service import exchange
from server.edge.refusals import Refusals
from server.errors import StoreFailed
from server.meter import NO_LIMITS, Limits, Meter
from server.runtime.loop_turn import LoopTurn
from server.runtime.turns import Turns
from server.settings import Settings
from server.stores.memory import MemoryStore
from server.stores.terms import Terms
from server.streams.allowance import Allowance
from stepgraph.loading import load
from stepgraph.model import LoadedModel
from tests.shelf import MODEL, Shelf
from tests.surviving_client import CLOSED, SurvivingClient, Survivor
from tests.truth import Truth
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from server.edge.exchanges.dialect import Listener

SOURCE = Path(__file__).parents[2] / "models" / MODEL / "1" / "model.onnx"
STOLEN = "STOLEN"
ROUNDS = 200
_READ = reader(2**24)
BACKOFF = 0.1  # seconds between two attempts of a client


@cache
def versions(folder: Path) -> dict[int, LoadedModel]:
    """The committed model, and one of the same shapes with other weights."""
    model = onnx.load(SOURCE)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array((values * np.float32(0.9)), tensor.name))
    other = folder / "other.onnx"
    onnx.save(model, other)
    return {1: load(SOURCE, 8, 1e-3), 2: load(other, 8, 1e-3)}


class Desk(Executor):
    """The clerk's thread: what it is asked to do waits until somebody says so, and is not done once it is `dead`."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.dead = False

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.dead:
            self.calls.append((future, lambda: call(*given, **named)))
        return future

    def work(self) -> None:
        """Carries out the oldest call."""
        future, call = self.calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
            del future, call  # the error refers to this frame


class Moody:
    """A store that can fail: before it does what it is asked (`dead`; `full`: cannot write), or after (`late`)."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.mood = "fine"

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if not callable(call) or name == "close":
            return call

        def carried_out(*given: Any, **named: Any) -> Any:
            if self.mood == "dead":
                raise StoreFailed("it is dead")
            if self.mood == "full" and name == "write":
                raise StoreFailed("it is full", definite=True)
            done = call(*given, **named)
            if self.mood == "late":
                raise StoreFailed("it is too late")
            return done

        return carried_out


class Line:
    """What an exchange takes for a call: requests come as `say` gives them, responses wait in `down`."""

    def __init__(self, host: str = "10.0.0.1") -> None:
        self.host = host
        self.up: deque[Any] = deque()
        self.down: deque[bytes] = deque()
        self.pushed = False  # whether messages come without being asked for, several at the same time
        self.reads = True  # else the first message stays on its way for ever
        self.serving: asyncio.Task[None]
        self.sockets: Sockets | None = None  # where it is read together with others
        self._listener: Listener | None = None

    def say(self, *requests: Any) -> None:
        for request in requests:
            self.up.append(_READ(request.SerializeToString()) if isinstance(request, pb.StreamRequest) else request)
        if self.sockets is not None:
            self.sockets.said(self)
        elif self._listener is not None:
            self._loop.call_soon(self.tell)

    def begin(self, listener: Listener) -> None:
        self._listener, self._loop = listener, asyncio.get_running_loop()
        self._loop.call_soon(self.tell)

    def end(self) -> None:
        self._listener = None

    def tell(self) -> None:
        if self._listener is not None:
            self._listener.came()

    def take(self) -> Any:
        return self.up.popleft() if self.up else None

    def send(self, message: bytes) -> None:
        self.down.append(message)

    @property
    def several(self) -> bool:
        return self.pushed and bool(self.up)

    @property
    def asks(self) -> bool:
        return not self.pushed

    @property
    def full(self) -> bool:
        return not self.reads and bool(self.down)

    def peer(self) -> str:
        return f"ipv4:{self.host}:1"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("tidegate-sequence", "route"),)


class Sockets:
    """Reads in one turn of the loop all lines on which something was said, as a server's sockets do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.turn = LoopTurn(loop.call_soon)
        self._loop = loop
        self._lines: dict[Line, None] = {}

    def said(self, line: Line) -> None:
        if not self._lines:
            self._loop.call_soon(self._read)
        self._lines[line] = None

    def _read(self) -> None:
        lines, self._lines = self._lines, {}
        self.turn.read(len(lines))
        for line in lines:
            line.tell()
        self.turn.end()


class Server:
    """One server: catalogue, keeper and clerk."""

    def __init__(self, world: World) -> None:
        self.desk = Desk()
        self.leave = Leaving()
        self.turns = Turns(world.loop.call_soon)
        self.pace, self.sockets = Pace(world.loop.call_soon), Sockets(world.loop)
        self.rounds, self.meter = Rounds(self.sockets.turn), Meter()
        self.shelf = Shelf(world.loaded, replace(world.settings, max_per_address=world.of_one))
        self.shelf.start()
        store_thread = StoreThread(lambda: world.store, 1e6)  # type: ignore[arg-type, return-value] # it is one, with moods
        store_thread._thread.shutdown()
        store_thread._thread = self.desk  # type: ignore[assignment]
        self.keeper = Keeper(
            store_thread, world.settings, self.shelf, world.limits_of, lambda: world.now, lambda: world.now
        )
        self.settings = world.settings

    def assert_empty(self) -> None:
        """Nobody has a place here."""
        self.shelf.assert_empty()
        assert (len(self.keeper._registry), dict(self.keeper._registry.quota._counts)) == (0, {})
        assert not self.keeper._registry._by_slot
        assert not self.keeper.takeovers._outbox._digests


class World:
    """Two servers of one store and two clients; `now` is everybody's clock.

    `of_one`: how many sequences an address may have as far as slots are kept for others; else as it is set.
    """

    def __init__(self, folder: Path, of_one: int | None = None, **given: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.settings = Settings(**{"max_sequences": 12, "idle_seconds": 10.0, "spot_us": 1e9, **given})
        self.of_one = self.settings.max_per_address if of_one is None else of_one
        self.loaded = versions(folder)
        self.now = 1_700_000_000.0
        self.pushes = False  # messages come without being asked for, and at the same time as others
        self.limits: dict[str, Limits] = {}  # by account
        self.store = Moody(MemoryStore(Terms(keep=1, gap=inf)))
        self.servers = [self.run(self._make()) for _ in range(2)]
        self.clients = [SurvivingClient(self.settings.max_sequences) for _ in range(2)]
        self.lines: list[Line | None] = [None, None]
        self.at = [0, 0]  # the server that each client is, or was last, connected to
        self._killed: list[Server] = []  # what they have begun never ends
        self._background: list[asyncio.Task[None]] = []
        self.cut_lines: list[Line] = []  # that their server has not noticed
        self.truth: dict[Survivor, Truth] = {}
        self._contested: set[Survivor] = set()

    # Time -------------------------------------------------------------------------------------------------------------

    def limits_of(self, account: str) -> Limits:
        return self.limits.get(account, NO_LIMITS)

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(call)

    def tick(self, times: int = 1) -> None:
        async def ticks() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.run(ticks())

    def quiet(self) -> None:
        """Until nobody has anything to do but wait."""

        async def ticks() -> None:
            await asyncio.sleep(0)
            while self.loop._ready:  # type: ignore[attr-defined] # noqa: ASYNC110 - one turn of the loop after another
                await asyncio.sleep(0)

        self.run(ticks())

    # Servers ----------------------------------------------------------------------------------------------------------

    async def _make(self) -> Server:
        return Server(self)

    def kill(self, at: int) -> None:
        """As kill -9; another one starts in its place."""
        old = self.servers[at]
        old.desk.dead = True
        old.desk.calls.clear()
        for i, line in enumerate(self.lines):
            if line is not None and self.at[i] == at:
                self.cut(i)
        self.quiet()
        old.shelf.stop()
        self._killed.append(old)
        self.servers[at] = self.run(self._make())

    def drain(self, at: int) -> None:
        """As SIGTERM, to its end."""
        old = self.servers[at]
        old.leave.begin()
        for _ in range(ROUNDS):
            self.quiet()
            self.work(at)
            if all(line.serving.done() for line in self._lines_at(at)):
                break
        for i, line in enumerate(self.lines):
            if line is not None and self.at[i] == at:
                self.hear(i)
                self.cut(i)
        flushed = self.loop.create_task(old.keeper.flush())
        while not flushed.done():
            self.quiet()
            self.work(at)
        self.kill(at)

    def _lines_at(self, at: int) -> list[Line]:
        return [line for i, line in enumerate(self.lines) if line is not None and self.at[i] == at]

    def work(self, at: int, calls: int = 10**6) -> None:
        """The store does what this server has asked."""
        desk = self.servers[at].desk
        while desk.calls and calls:
            desk.work()
            self.quiet()
            calls -= 1

    def begin_to_write(self, at: int) -> None:
        self._errand(self.servers[at].keeper._checkpointer.checkpoint())

    def write(self, at: int) -> None:
        self.begin_to_write(at)
        self.quiet()
        self.work(at)

    def maintain(self, at: int) -> None:
        self._errand(self.servers[at].keeper.maintain())
        self.quiet()
        self.work(at)

    def _errand(self, call: Coroutine[Any, Any, None]) -> None:
        async def tried() -> None:
            with suppress(StoreFailed):  # as Keeper.run does
                await call

        self._background.append(self.loop.create_task(tried()))

    # The wire ---------------------------------------------------------------------------------------------------------

    def connect(self, who: int, at: int, host: str = "10.0.0.1") -> None:
        server = self.servers[at]
        self.now += BACKOFF

        async def begin() -> Line:
            line = Line(host)
            if self.pushes:
                line.pushed, line.sockets = True, server.sockets
            talk = exchange(
                server.shelf,
                server.keeper,
                self.settings,
                server.turns,
                server.pace,
                server.rounds,
                Allowance(self.settings.window_bytes),
                line,
                Caller(address_of(line.peer()), meter=server.meter),
                Refusals(),
            )
            line.serving = asyncio.create_task(talk.serve(server.leave))
            return line

        self.lines[who], self.at[who] = self.run(begin()), at
        self.clients[who].begin()

    def line(self, who: int) -> Line:
        """That of a client that is connected."""
        line = self.lines[who]
        assert line is not None
        return line

    def cut(self, who: int, *, noticed: bool = True) -> None:
        """The connection is gone; the server may not notice."""
        line, self.lines[who] = self.lines[who], None
        if line is None:
            return
        if noticed:
            line.serving.cancel()
        else:
            self.cut_lines.append(line)
        self.clients[who].lost()

    def notice(self) -> None:
        """Servers find out about all connections that were cut."""
        for line in self.cut_lines:
            line.serving.cancel()
        self.cut_lines.clear()
        self.quiet()

    def send(self, who: int, messages: int = 10**6) -> None:
        line, out = self.lines[who], self.clients[who].out
        while line is not None and out and messages:
            line.say(out.popleft())
            messages -= 1

    def hear(self, who: int, messages: int = 10**6) -> None:
        line = self.lines[who]
        while line is not None and line.down and messages:
            self.clients[who].hear(pb.StreamResponse.FromString(line.down.popleft()))
            messages -= 1
        self._forget()

    # Sequences --------------------------------------------------------------------------------------------------------

    def open(self, who: int, count: int = 1, version: int = 1, state: pb.State | None = None) -> list[Survivor]:
        fresh = self.clients[who].open(count, MODEL, version, state)
        for one in fresh:
            one.want = version
            self.truth[one] = Truth(self.loaded, version, one.start, None if state is None else _row(state))
        return fresh

    def give(self, who: int, one: Survivor, rows: np.ndarray) -> None:
        self._compute(one, rows)
        self.clients[who].give(one, rows)

    def give_fleet(self, who: int, members: list[Survivor], rows: np.ndarray) -> None:
        for one, row in zip(members, rows, strict=True):
            self._compute(one, row[np.newaxis])
        self.clients[who].give_fleet(members, rows)

    def steal(self, who: int, one: Survivor) -> Survivor:
        """Another client goes on with it, by what the first one knew."""
        other = self.clients[1 - who]
        mine = other.take_up(one)
        self.truth[mine] = self.truth[one].copy()
        one.gone = STOLEN
        self._contested.add(mine)
        if self.lines[1 - who] is not None:
            other.begin()
        return mine

    def _compute(self, one: Survivor, rows: np.ndarray) -> None:
        """What the answers have to be."""
        truth = self.truth[one]
        for at, row in enumerate(rows):
            truth.version = one.wanted(one.end + at)
            truth.take(row)

    def _forget(self) -> None:
        """What a rewind has undone."""
        for one, truth in self.truth.items():
            truth.cut(one.end)

    # The end ----------------------------------------------------------------------------------------------------------

    @property
    def _going_on(self) -> list[Survivor]:
        return [one for client in self.clients for one in client.all if not one.gone]

    def settle(self) -> None:
        """Everything is well again, until everybody has what they asked for."""
        self.store.mood = "fine"
        for turn in range(ROUNDS):
            for who in range(2):
                if turn % 10 == 9:  # its handles may all be taken by what it has lost
                    self.cut(who)
                if self.lines[who] is None:
                    self.connect(who, self.at[who])
                self.clients[who].begin()
                for one in self.clients[who].all:
                    self.clients[who].flush(one)
                self.send(who)
            self.quiet()
            self.now += 2 * self.settings.idle_seconds  # who has what it asked for makes room for the others
            for at in range(2):
                self.work(at)
                self.write(at)
                self.maintain(at)
            for who in range(2):
                self.hear(who)
            if all(one.settled for one in self._going_on):
                break
        self.check()
        for one in self._going_on:
            assert one.settled, one

    def check(self) -> None:
        """What was answered is right so far."""
        assert not self.faults, self.faults
        for one, truth in self.truth.items():
            # of two clients that want the same sequence, the one whose word came last has it
            assert one.gone in ("", CLOSED, STOLEN) or (one.gone == "TAKEN_OVER" and one in self._contested), one
            said = [b"|".join(each) for each in zip(truth.outputs, truth.traces, strict=True)]
            assert one.answers == said[: len(one.answers)], one
            for state in one.states:
                np.testing.assert_array_equal(_row(state), truth.states[state.step - one.start], str(one))

    def end(self) -> None:
        """Everybody leaves, and nothing stays behind."""
        try:
            self.settle()
            for who in range(2):
                self.cut(who)
            self.notice()
            for at in range(2):
                self.work(at)
                self.write(at)
            for server in self.servers:
                server.assert_empty()
            assert not self.faults, self.faults
        finally:
            self.close()

    def close(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.run(_all(tasks))
        for server in self.servers:
            server.shelf.stop()
        self.loop.close()


async def _all(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _row(state: pb.State) -> np.ndarray:
    from tidegate import wire

    return np.concatenate([wire.decode(part.value).ravel() for part in state.parts])
