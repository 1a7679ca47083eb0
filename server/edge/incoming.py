"""The messages of calls, other than streams, while they come and are worked off: so many at a time; others wait unread.

gRPC takes a whole message of a call into memory, and only then shows it. What is not asked for is held back by HTTP/2's
flow control, after 64 KiB. Where that can be seen, a call takes a place once a large message has begun, and never waits
behind those of which nothing comes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakValueDictionary

import grpc

from server.caller import Caller
from server.edge.fields import Buffer
from server.errors import Refusal, Silent
from server.settings import Settings

_SMALL = 2**16  # bytes: a message of so many takes no place once it is here
_PART = 4  # of what an address may have, one part is for these messages
_ADDRESSES = 16  # so many may have as many at a time as one may

T = TypeVar("T")


@runtime_checkable
class Watched(Protocol):
    """A call that tells when its message begins to come: our own HTTP/2's."""

    @property
    def small(self) -> bool:
        """Whether the message is here, as it is, and no larger than its window."""

    async def begun(self) -> None:
        """Returns once it is here, or a large one has begun, or none will come."""


class Incoming:
    """Counts messages by address, each as if it were as large as one may be."""

    def __init__(self, settings: Settings) -> None:
        self._most = max(1, settings.address_bytes // _PART // settings.max_message_bytes)
        self._patience = settings.silent_seconds
        self._all = asyncio.Semaphore(self._most * _ADDRESSES)
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def message(
        self, caller: Caller, read: Callable[[], Awaitable[Any]], call: object = None
    ) -> AsyncIterator[Buffer]:
        """The message of a call, which counts during the block. Raises Refusal: there is none; Silent: none in time."""
        watched = call if isinstance(call, Watched) else None
        if watched is not None:
            await self._in_time(watched.begun())
        place = self._of.setdefault(caller.account, asyncio.Semaphore(self._most))
        async with AsyncExitStack() as places:
            if watched is None or not watched.small:
                await places.enter_async_context(place)
                await places.enter_async_context(self._all)
            data = await self._in_time(read())
            if data is grpc.aio.EOF:
                raise Refusal("a call came without a message")
            if len(data) <= _SMALL:
                await places.aclose()
            yield data

    async def _in_time(self, come: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._patience):
                return await come
        except TimeoutError:
            raise Silent(f"the message of this call did not come within {self._patience:g} s") from None
