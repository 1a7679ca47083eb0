"""Makes the calls to the store, one after the other in a thread of its own: a slow or dead store delays nobody else."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.errors import StoreFailed, StoreSilent
from server.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")


class Clerk:
    """Lives in the event loop; owns the store from `start` to `stop`.

    Args:
        open_store: makes the store; called in the clerk's own thread.
        patience: how long who waits for an answer of the store waits, in seconds.
    """

    def __init__(self, open_store: Callable[[], Store], patience: float) -> None:
        self._open = open_store
        self._patience = patience
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clerk")
        self._store: Store | None = None
        self.failing_since: float | None = None  # in seconds of the monotonic clock
        self.errors = 0

    async def start(self) -> None:
        """Opens the store.

        Raises:
            StoreFailed: its address means nothing, or what is there is no store of ours.
        """
        await self.ask(lambda _: None)

    async def ask(self, call: Callable[[Store], T]) -> T:
        """Carries out one call.

        Raises:
            StoreFailed: the store could not do it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._carry_out, call)

    async def ask_soon(self, call: Callable[[Store], T]) -> T:
        """The same for somebody who waits.

        Raises:
            StoreSilent: it failed, or took too long.
        """
        try:
            return await asyncio.wait_for(self.ask(call), self._patience)
        except (StoreFailed, TimeoutError) as error:
            raise StoreSilent(
                f"the store of checkpoints does not answer ({str(error) or 'too slow'}); try again"
            ) from error

    async def stop(self) -> None:
        """Lets go of the store after the last call."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _carry_out(self, call: Callable[[Store], T]) -> T:
        try:
            if self._store is None:
                self._store = self._open()
            done = call(self._store)
        except StoreFailed as error:
            self.errors += 1
            if self.failing_since is None:
                self.failing_since = time.monotonic()
                log.warning("the store of checkpoints fails: %s", error)
            raise
        if self.failing_since is not None:
            log.info("the store of checkpoints answers again after %.1f s", time.monotonic() - self.failing_since)
            self.failing_since = None
        return done

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
