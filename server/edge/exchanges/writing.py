"""The messages of one stream on their way to its client."""

import asyncio
from collections import deque
from functools import partial
from typing import Protocol

from server.edge.exchanges.dialect import Call, Dialect, Large, Outgoing, Whole
from server.edge.exchanges.pace import Pace


class Owner(Protocol):
    """The exchange that the messages are of."""

    def left(self, answers: int) -> None:
        """Answers of so many bytes have left, or other messages."""

    def fail(self, error: BaseException) -> None:
        """Ends the stream with an error."""


class Writing:
    """Writes them in their order, as soon as the client reads.

    Args:
        call: carries them.
        dialect: makes them.
        pace: says how long they may be written in one go.
        owner: is told of what has left, and of an error, which ends the stream.
    """

    __slots__ = (
        "_call",
        "_dialect",
        "_making",
        "_owner",
        "_pace",
        "_sent",
        "ended",
        "unwritten",
        "waiting",
        "will_write",
    )

    def __init__(self, call: Call, dialect: Dialect, pace: Pace, owner: Owner) -> None:
        self._call, self._dialect, self._pace, self._owner = call, dialect, pace, owner
        self.waiting: deque[Outgoing] | tuple[()] = ()  # an empty deque takes 760 bytes
        self.unwritten = 0  # the bytes of those that carry no answer
        self.will_write = False
        self._making: asyncio.Task[bytes] | None = None  # the next message, which is large
        self._sent = (0, 0)  # while the call is full: the bytes of the last messages, of answers and of others
        self.ended = False  # nothing is to be written any more

    def end(self) -> None:
        """Nothing is written any more."""
        self.ended, self.waiting = True, ()
        del self._owner  # they refer to each other
        if self._making is not None:
            self._making.cancel()

    def put(self, message: Outgoing) -> None:
        """The next one, which is written when `write` is called."""
        if isinstance(message, bytes):
            self.unwritten += len(message)
        elif isinstance(message, Large):
            self.unwritten += message.size
        elif self._call.full:
            message = message.kept()
        self.waiting = self.waiting or deque()
        self.waiting.append(message)

    def answer(self, message: bytes, size: int) -> None:
        """An answer that counts so many bytes: it is written, if no other waits."""
        if self.waiting or self._call.full:
            self.put(Whole(message, size))
        else:
            self._call.send(message)
            self._sent = size, 0
            if not self._call.full:
                self._sent = 0, 0
                self._owner.left(size)

    def write_later(self) -> None:
        """Together with what else comes in this turn of the loop."""
        if not self.will_write:
            self.will_write = True
            self._pace.soon(self.write)

    def write(self) -> None:
        """Writes until nothing is left, the client does not read, or others are to get their turn."""
        self.will_write = False
        try:
            while (waiting := self.waiting) and not self._call.full and not self.ended:
                if isinstance(large := waiting[0], Large):
                    return self._make(large)
                self._sent = self._write_next(waiting)
                if not self._call.full:
                    self._left()
                if self.waiting and self._pace.clock() > self._pace.ends():
                    return self.write_later()
        except Exception as error:  # noqa: BLE001 # it is the stream's
            self._owner.fail(error)

    def _make(self, large: Large) -> None:
        """Makes the next message in pieces, and then goes on."""
        if self._making is None:
            self._making = asyncio.get_running_loop().create_task(large.make())
            self._making.add_done_callback(partial(self._made, large))

    def _made(self, large: Large, making: asyncio.Task[bytes]) -> None:
        self._making = None
        if making.cancelled() or self.ended or not (waiting := self.waiting):
            return None
        if (error := making.exception()) is not None:
            return self._owner.fail(error)
        waiting[0] = made = making.result()
        self.unwritten += len(made) - large.size
        return self.write()

    def _write_next(self, waiting: deque[Outgoing]) -> tuple[int, int]:
        messages, count = self._dialect.bundle(waiting)
        answers = others = 0  # bytes
        for _ in range(count):  # the arrays are freed now: they are in the message
            sent = waiting.popleft()
            if isinstance(sent, bytes):
                others += len(sent)
            else:
                answers += sent.size
            del sent
        self.waiting = waiting or ()
        for message in messages:
            self._call.send(message)
        return answers, others

    def writable(self) -> None:
        """What was sent last has left."""
        if not self.ended:
            self._left()
            self.write()

    def _left(self) -> None:
        """Only now what was sent is not counted any more: until then the stream is not at its end."""
        (answers, others), self._sent = self._sent, (0, 0)
        self.unwritten -= others
        self._owner.left(answers)
