"""Calls the store, one call after the other in a thread of its own: a slow or dead store delays no step.

A caller waits for a set time and no longer, however many calls its answer takes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from server.errors import StoreFailed, StoreSilent, TidegateError
from server.runtime.counters import Histogram
from server.stores.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

_TOOK = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 2.5, 10.0)  # seconds
_CROWD = 5_000  # sequences whose work may take as long again
_CALM = 3.0  # seconds in which no call fails until a store counts as working again: some call may work meanwhile

_until: ContextVar[float] = ContextVar("until")  # when the caller stops waiting, by the event loop's clock


class StoreThread:
    """Lives in the event loop; owns the store from `start` to `stop`.

    Args:
        open_store: makes the store; called in that thread.
        patience: how long a client waits for an answer of the store, in seconds.
    """

    def __init__(self, open_store: Callable[[], Store], patience: float) -> None:
        self._open = open_store
        self._patience = patience
        self._thread: Executor = _Thread()
        self._store: Store | None = None
        self.failing_since: float | None = None  # in seconds of the monotonic clock
        self.fault = ""  # why a call failed last; empty while the store counts as working
        self._works_since: float | None = None  # by the same clock: the first call after the last failure
        self.errors = 0
        self.took = Histogram(_TOOK)  # seconds of each call
        self.waited = Histogram(_TOOK)  # and from when it was asked for until it began
        self._under_way: set[asyncio.Task[None]] = set()  # the event loop itself does not hold on to its tasks

    async def start(self) -> None:
        """Opens the store.

        Raises:
            StoreFailed: its address means nothing, or what is there is no store of ours.
        """
        await self.ask(lambda _: None)

    async def ask(self, call: Callable[[Store], T]) -> T:
        """Carries out one call in the thread of the store, however long it takes.

        Raises:
            StoreFailed: the store could not do it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, call, time.monotonic())

    async def ask_soon(self, call: Callable[[Store], T]) -> T:
        """As `ask`, within the time that a client waits.

        Raises:
            StoreSilent: it failed, or took too long.
        """
        try:
            return await self.soon(lambda: self.ask(call))
        except StoreFailed as error:
            raise _silent(str(error), definite=error.definite) from error

    def check_time(self) -> None:
        """Whether half of the time that a client waits is left. Raises StoreSilent: nothing was asked of the store."""
        now = asyncio.get_running_loop().time()
        if _until.get(now + self._patience) - now < self._patience / 2:
            raise _silent("too slow", definite=True)

    async def soon(self, call: Callable[[], Awaitable[T]]) -> T:
        """Awaits what depends on the store, within the time that a client waits.

        Raises:
            StoreSilent: it took too long.
        """
        now = asyncio.get_running_loop().time()
        until = _until.get(now + self._patience)
        if until <= now:  # it is not even begun
            raise _silent("too slow", definite=True)
        try:
            async with asyncio.timeout_at(until):
                return await call()
        except TimeoutError as error:
            raise _silent("too slow") from error

    def run(
        self, work: Coroutine[Any, Any, T], then: "Callable[[T | TidegateError], None]", sequences: int = 1
    ) -> None:
        """Runs work of several calls, which together may take no longer than one; of a crowd longer.

        `then` is given the result or the error, and once more a failure if it raises.
        """
        task = asyncio.get_running_loop().create_task(_tried(self.in_time(work, sequences), then))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def in_time(self, work: Coroutine[Any, Any, T], sequences: int = 1) -> T:
        """See `run`."""
        patience = self._patience * (1 + sequences // _CROWD)
        begun = _until.set(asyncio.get_running_loop().time() + patience)
        try:
            return await work
        finally:
            _until.reset(begun)

    async def stop(self, seconds: float | None = None) -> None:
        """Closes the store after the last call; waits for that for so many seconds and no longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _timed(self, call: Callable[[Store], T], asked: float) -> T:
        begun = time.monotonic()
        self.waited.add(begun - asked)
        try:
            return self._carry_out(call)
        finally:
            self.took.add(time.monotonic() - begun)

    def _carry_out(self, call: Callable[[Store], T]) -> T:
        try:
            if self._store is None:
                self._store = self._open()
            done = call(self._store)
        except StoreFailed as error:
            self.errors += 1
            self._works_since = None
            self.fault = str(error)
            if self.failing_since is None:
                self.failing_since = time.monotonic()
                log.warning("the store of checkpoints fails: %s", self.fault)  # an error keeps its frames alive
            raise
        if self.failing_since is not None:
            self._note_working(self.failing_since, time.monotonic())
        return done

    def _note_working(self, failing_since: float, now: float) -> None:
        self._works_since = self._works_since or now
        if now - self._works_since >= _CALM:
            log.info("the store of checkpoints answers again after %.1f s", self._works_since - failing_since)
            self.failing_since, self.fault = None, ""

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()


class _Thread(Executor):
    """One thread, which the end of the process does not wait for: a store may hang."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        Thread(target=self._run, name="store", daemon=True).start()

    def submit(self, call: Callable[..., Any], /, *given: object, **named: object) -> Future[Any]:
        """See `Executor.submit`."""
        future: Future[Any] = Future()
        self._calls.put((future, partial(call, *given, **named)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - it never waits
        """Ends the thread after the calls that were made before."""
        self._calls.put(None)

    def _run(self) -> None:
        while self._run_one():
            pass

    def _run_one(self) -> bool:
        """Carries out the next call, which nothing refers to afterwards; whether there was one."""
        if (waiting := self._calls.get()) is None:
            return False
        future, call = waiting
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)
                del future, call, waiting  # the error refers to this frame
        return True


def _silent(why: str, *, definite: bool = False) -> StoreSilent:
    return StoreSilent(f"the store of checkpoints does not answer ({why}); try again", definite=definite)


async def _tried(call: Coroutine[Any, Any, T], then: "Callable[[T | TidegateError], None]") -> None:
    found: T | TidegateError
    failure = TidegateError("the server failed; its log has the details")
    try:
        found = await call
    except TidegateError as error:
        found = error
    except Exception:
        log.exception("something with the store failed")
        found = failure
    try:
        then(found)
    except Exception:
        log.exception("what came of something with the store could not be taken up")
        if found is not failure:
            then(failure)
