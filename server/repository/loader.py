"""Loads models side by side, a thread each. Runs in the event loop.

What is known comes first, then what is quick, then what takes long; what a client waits for goes before its equals.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread

from stepgraph.errors import ModelRefused
from stepgraph.isolation.intake import Effort
from stepgraph.model import LoadedModel

log = logging.getLogger(__name__)

Outcome = LoadedModel | ModelRefused | None  # None: it takes long; another outcome follows


@dataclass(slots=True, eq=False)
class _Job:
    key: Hashable
    load: Callable[[Effort], LoadedModel | None]
    then: Callable[[Outcome], None]
    effort: Effort = Effort.KNOWN
    urgent: bool = False


class Loader:
    """Up to `at_once` loads at a time; of these, one stays free for what is quick.

    `close` lets go of what only loading needs, in any thread; a load that is under way is refused then.
    """

    def __init__(self, close: Callable[[], None], at_once: int) -> None:
        self._close = close
        self._at_once = at_once
        self._jobs: dict[Hashable, _Job] = {}  # that wait or run, in the order in which they came
        self._running: set[Hashable] = set()
        self._used = False  # whether there is something to let go of
        self._stopped = False
        self._tried, self._idle, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tell()

    def load(
        self, key: Hashable, load: Callable[[Effort], LoadedModel | None], then: Callable[[Outcome], None]
    ) -> None:
        """Has `load` called in a thread with more and more effort, and `then` with what came of it.

        A key that is being loaded already is left alone.
        """
        if key in self._jobs or self._stopped:
            return
        self._jobs[key] = _Job(key, load, then)
        self._next()

    def hurry(self, key: Hashable) -> None:
        if job := self._jobs.get(key):
            job.urgent = True

    def drop(self, key: Hashable) -> None:
        """It need not be loaded, unless that has begun."""
        if key not in self._running:
            self._jobs.pop(key, None)

    def is_loading(self, key: Hashable) -> bool:
        """Whether an outcome is still to come."""
        return key in self._jobs

    def is_quick(self, key: Hashable) -> bool:
        """Whether an outcome is still to come, and soon as far as is known."""
        job = self._jobs.get(key)
        return job is not None and job.effort < Effort.PATIENT

    @property
    def has_tried(self) -> bool:
        """Whether everything has been tried, so that only what takes long is left."""
        return all(job.effort == Effort.PATIENT for job in self._jobs.values())

    async def tried(self) -> None:
        """Returns once everything has been tried."""
        await self._tried.wait()

    async def idle(self) -> None:
        await self._idle.wait()

    async def settled(self, key: Hashable) -> None:
        """Returns once no outcome of this key is to come."""
        while key in self._jobs:
            self._news.clear()
            await self._news.wait()

    def stop(self) -> None:
        """Loads nothing any more; what is under way is not waited for."""
        self._stopped = True
        self._jobs.clear()
        self._tell()
        self._close()

    def _next(self) -> None:
        """Starts what there is room for."""
        while len(self._running) < self._at_once and (waiting := self._startable()):
            job = min(waiting, key=lambda each: (each.effort, not each.urgent))  # the first of equals
            self._used = True
            self._start(job.key, partial(job.load, job.effort))
        if self._used and not self._jobs and not self._running:
            self._used = False
            self._start(None, self._close)
        self._tell()

    def _startable(self) -> list[_Job]:
        if None in self._running:  # it is being let go of
            return []
        slow = sum(self._jobs[key].effort == Effort.PATIENT for key in self._running if key in self._jobs)
        waiting = [job for key, job in self._jobs.items() if key not in self._running]
        return [job for job in waiting if job.effort < Effort.PATIENT or slow < max(1, self._at_once - 1)]

    def _start(self, key: Hashable, work: Callable[[], LoadedModel | None]) -> None:
        self._running.add(key)
        loop = asyncio.get_running_loop()

        def run() -> None:
            outcome = _outcome(work)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._done, key, outcome)

        Thread(target=run, daemon=True).start()  # a process that ends does not wait for it

    def _done(self, key: Hashable, outcome: Outcome) -> None:
        self._running.remove(key)
        job = self._jobs.get(key)
        if job is not None and outcome is None and job.effort < Effort.PATIENT:
            job.effort = Effort(job.effort + 1)
            if job.effort == Effort.PATIENT:
                job.then(None)
        elif job is not None:
            del self._jobs[key]
            job.then(outcome)
        if not self._stopped:
            self._next()

    def _tell(self) -> None:
        self._news.set()
        for event, quiet in ((self._tried, self.has_tried), (self._idle, not self._jobs)):
            event.set() if quiet else event.clear()


def _outcome(work: Callable[[], LoadedModel | None]) -> Outcome:
    try:
        return work()
    except ModelRefused as refusal:
        return refusal
    except Exception as error:
        log.exception("loading failed")
        return ModelRefused(f"the server failed to load it ({type(error).__name__}); its log has the details")
