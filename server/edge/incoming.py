"""The messages of calls, other than streams, while they come and are worked off: so many at a time; others wait unread.

gRPC takes a whole message of a call into memory, and only then shows it. What is not asked for is held back by HTTP/2's
flow control, after 64 KiB.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

import grpc

from server.caller import Caller
from server.edge.fields import Buffer
from server.errors import Refusal, Silent
from server.settings import Settings

_SMALL = 2**16  # bytes: a message of so many takes no place once it is here
_PART = 4  # of what an address may have, one part is for these messages
_ADDRESSES = 16  # so many may have as many at a time as one may


class Incoming:
    """Counts messages by address, each as if it were as large as one may be."""

    def __init__(self, settings: Settings) -> None:
        self._most = max(1, settings.address_bytes // _PART // settings.max_message_bytes)
        self._patience = settings.silent_seconds
        self._all = asyncio.Semaphore(self._most * _ADDRESSES)
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def message(self, caller: Caller, read: Callable[[], Awaitable[Any]]) -> AsyncIterator[Buffer]:
        """The message of a call, which counts during the block. Raises Refusal: there is none; Silent: none in time."""
        place = self._of.setdefault(caller.account, asyncio.Semaphore(self._most))
        async with AsyncExitStack() as places:
            await places.enter_async_context(place)
            await places.enter_async_context(self._all)
            try:
                async with asyncio.timeout(self._patience):
                    data = await read()
            except TimeoutError:
                raise Silent(f"the message of this call did not come within {self._patience:g} s") from None
            if data is grpc.aio.EOF:
                raise Refusal("a call came without a message")
            if len(data) <= _SMALL:
                await places.aclose()
            yield data
