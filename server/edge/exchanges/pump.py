"""A call that is read and written by coroutines, as grpc has it, made into a `Call` for an exchange."""

import asyncio
from collections import deque
from functools import partial
from typing import Any, Protocol

from server.edge.exchanges.dialect import Listener
from server.edge.pieces import Message


class Context(Protocol):
    """The part of grpc.aio.ServicerContext that is used here."""

    async def read(self) -> Any:  # noqa: ANN401 # what the method's deserialiser makes
        """The next message, or grpc.aio.EOF."""

    async def write(self, message: bytes, /) -> None:
        """Returns once the next message may be written."""


class Pump:
    """Two tasks, one for each direction. A message is read when it is asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._message: Any = None  # that came and was not taken
        self._wanted = asyncio.Event()
        self._answers = deque[bytes]()  # that have not left
        self._answered = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def begin(self, listener: Listener) -> None:
        """See Call."""
        self._wanted.set()
        self._tasks = tuple(asyncio.create_task(work(listener)) for work in (self._read, self._write))
        for task in self._tasks:
            task.add_done_callback(partial(_pass_on, listener))

    def take(self) -> Any:  # noqa: ANN401 # likewise
        """See Call."""
        message, self._message = self._message, None
        if message is None:
            self._wanted.set()
        return message

    @property
    def several(self) -> bool:
        """See Call: messages come one by one."""
        return False

    @property
    def asks(self) -> bool:
        """See Call: each message is read when it is asked for."""
        return True

    def send(self, message: Message) -> None:
        """See Call."""
        self._answers.append(bytes(message))
        self._answered.set()

    @property
    def full(self) -> bool:
        """See Call."""
        return bool(self._answers)

    def end(self) -> None:
        """See Call."""
        for task in self._tasks:
            task.cancel()
        self._tasks = ()  # they keep errors that refer to this

    async def _read(self, listener: Listener) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._message = await self._context.read()
            listener.came()

    async def _write(self, listener: Listener) -> None:
        while True:
            await self._answered.wait()
            self._answered.clear()
            while self._answers:
                await self._context.write(self._answers[0])
                self._answers.popleft()
            listener.writable()


def _pass_on(listener: Listener, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        listener.fail(error)
