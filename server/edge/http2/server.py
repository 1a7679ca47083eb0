"""Listens, and serves the handlers of gRPC's services over HTTP/2."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from server.edge.http2.connection import Connection
from server.edge.http2.gate import Gate, TurnTime
from server.edge.http2.large import Rooms
from server.edge.http2.limits import Limits
from server.edge.http2.secure import SecureTransport
from server.edge.http2.sockets import Sockets
from server.edge.http2.timers import Timers
from server.meter import Places
from server.runtime.loop_turn import LoopTurn

if TYPE_CHECKING:
    import ssl

    from server.edge.http2.call import Call, Handler
    from server.edge.http2.fields import Metadata, Request

log = logging.getLogger(__name__)

_TURN = 0.002  # seconds of a turn of the loop in which connections are read
_LEAST = 0.002  # seconds likewise, whatever else has taken of it
_DECRYPTING = 0.001  # seconds likewise, in which many small records of TLS are decrypted
_BEGINNING = 0.0005  # seconds likewise, of those that have not begun a call yet
_WRITING = 0.001  # seconds likewise, in which large messages are written
_FEW = 16  # calls that an address may have under way, however many addresses have some
_LAST_BYTES = 1.0  # seconds in which clients may read what was said last, when the server stops


@dataclass(frozen=True)
class Options:
    """What bounds the clients of a server."""

    limits: Limits = field(default_factory=Limits)
    # connections at a time, and of one address: a further one is closed at once
    connections: int = 65_536
    connections_of_one: int = 52_428
    # calls under way of all addresses, in equal parts, and at most of one
    calls: int = 12_288
    calls_of_one: int = 3_072
    # for messages that are larger than a stream's window: bytes, and of one address
    large_messages: int = 2**30
    large_messages_of_one: int = 64 * 2**20
    # until a client has shown that it speaks HTTP/2
    silent_seconds: float = 20.0
    # without a call, after which a connection is closed
    idle_seconds: float = 600.0
    # without a byte, after which a client is asked whether it is there, and the time that it has to answer
    keepalive_seconds: float = 30.0
    ping_seconds: float = 10.0


class _Details(NamedTuple):
    """Of a call, as grpc's generic handlers ask for them: grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: Metadata


class Http2Server:
    """One listener. The interface is that of `grpc.aio.Server`, as far as services use it.

    Args:
        options: what bounds its clients.
        turn: of the event loop that it will be started in; without one, nothing else in it counts.
    """

    def __init__(self, options: Options, turn: LoopTurn | None = None) -> None:
        self.options = options
        self.turn = turn or LoopTurn(self._later)
        self.rooms = Rooms(options.large_messages, options.large_messages_of_one)
        self.loop: asyncio.AbstractEventLoop
        self.timers: Timers
        self.gate = Gate(self._later)  # that calls begin and end by
        self.ends = Gate(self._later, 1)  # that lost connections end their calls by, and handshakes go on
        self.beginners = TurnTime(_BEGINNING, self.turn)  # of connections that have not begun a call yet
        self.others = TurnTime(_TURN, self.turn, _LEAST)
        self.decrypting = TurnTime(_DECRYPTING, self.turn, _DECRYPTING)  # of connections with TLS, before they are read
        self.writers = TurnTime(_WRITING, self.turn)  # of connections with large messages to write
        self._generic: list[Any] = []  # grpc.GenericRpcHandler
        self._found: dict[str, Handler] = {}
        self._sockets: list[socket.socket] = []
        self._open: Sockets | None = None
        self._connections: set[Connection] = set()
        self._places = Places(options.connections, options.connections_of_one)
        self._calls: set[Call] = set()
        self._calls_of = Counter[str]()  # by address
        self._to_flush: list[Connection] = []
        self._stops = False
        self._fewer = asyncio.Event()  # calls or connections

    def _later(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call)

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Registers services."""
        self._generic += handlers

    def bind_path(self, path: str) -> None:
        """Takes a Unix socket. Raises OSError."""
        made = socket.socket(socket.AF_UNIX)
        self._sockets.append(made)
        made.bind(path)

    def bind(self, host: str, port: int, shared: bool = False) -> int:
        """Takes a port, 0 for a free one, and returns it; `shared` with other processes. Raises OSError."""
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            made = socket.socket(family, kind, protocol)
            self._sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((address[0], port, *address[2:]))
            port = made.getsockname()[1]  # further addresses of the host get the same
        return port

    async def start(self, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        """Accepts connections from now on; with TLS each has the context that there is when it comes."""
        self.loop, options = asyncio.get_running_loop(), self.options
        soonest = min(options.silent_seconds, options.keepalive_seconds, options.ping_seconds)
        self.timers = Timers(self.loop, min(1.0, soonest / 20))

        def made() -> asyncio.Protocol:
            connection = Connection(self)
            return connection if tls is None else SecureTransport(connection, tls())

        self._open = Sockets(self.loop, self._begin_reading, self.turn.end)
        for listening in self._sockets:
            self._open.listen(listening, made)

    def _begin_reading(self, sockets: int) -> None:
        for kind in (self.decrypting, self.beginners, self.others):
            kind.begin()
        self.turn.read(sockets)

    async def stop(self, grace: float) -> None:
        """Takes nothing further, lets calls end within `grace` seconds, and cancels the others."""
        if self._open is not None:
            self._open.stop_listening()
        self._stops = True
        for made in self._sockets:
            made.close()
        for connection in tuple(self._connections):
            connection.retire("the server is stopping")
        await self._until_none(self._connections, grace)  # clients close them once their calls have ended
        if tasks := [call.task for call in self._calls if call.task is not None]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for connection in tuple(self._connections):
            connection.close()
        await self._until_none(self._connections, _LAST_BYTES)
        for connection in tuple(self._connections):
            connection.abort()
        if self._open is not None:
            self._open.close()
            self._open = None

    async def _until_none(self, those: set[Call] | set[Connection], seconds: float) -> None:
        """Waits until there are none of them any more, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while those:
                    self._fewer.clear()
                    await self._fewer.wait()

    # What connections use ---------------------------------------------------------------------------------------------

    def find(self, request: Request) -> Handler | None:
        """The handler of a method; None if there is none."""
        if (found := self._found.get(request.path)) is not None:
            return found
        details = _Details(request.path, request.metadata)
        for generic in self._generic:
            if (handler := generic.service(details)) is not None:
                self._found[request.path] = handler
                return handler
        return None

    def take_in(self, connection: Connection) -> bool:
        """False: there are too many, or the server stops."""
        if self._stops or not self._places.take(connection.address):
            return False
        self._connections.add(connection)
        return True

    def let_go(self, connection: Connection) -> None:
        """It is lost: its calls end in a turn of the loop that no other such connection has."""
        self._connections.discard(connection)
        self._places.give_back(connection.address)
        self._fewer.set()
        self.ends.take(connection.end_calls)

    def has_room(self, address: str) -> bool:
        """For a call from there. Once all have as many as may be, who has few is still not refused."""
        options, of = self.options, self._calls_of
        part = options.calls // (len(of) + (address not in of)) if len(self._calls) < options.calls else 0
        return of[address] < min(options.calls_of_one, max(part, _FEW))

    def begun(self, call: Call) -> None:
        self._calls.add(call)
        self._calls_of[call.client.address] += 1
        self.gate.take(call.start)

    def ended(self, call: Call) -> None:
        self._calls.discard(call)
        address = call.client.address
        self._calls_of[address] -= 1
        if not self._calls_of[address]:
            del self._calls_of[address]
        self._fewer.set()

    def will_flush(self, connection: Connection) -> None:
        """Has it flushed in this turn of the loop, after whatever else it puts."""
        if not self._to_flush:
            self.loop.call_soon(self._flush)
        self._to_flush.append(connection)

    def _flush(self) -> None:
        connections, self._to_flush = self._to_flush, []
        self.turn.counted(_flush_all, connections)


def _flush_all(connections: list[Connection]) -> None:
    for connection in connections:
        try:
            connection.flush()
        except Exception:
            log.exception("a connection failed")
            connection.abort()
