"""Keeps the sequences of this server beyond their streams; `run` writes checkpoints, renews leases, enforces limits.

Runs in the event loop; the store in a thread of its own. Streams call `takeovers`, `parking` and `commits` directly,
and are called through `Holder`. Knows no gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import TYPE_CHECKING

import numpy as np

from server.caller import Caller
from server.durability.checkpointer import Checkpointer
from server.durability.commits import Commits
from server.durability.leases import Leases
from server.durability.limits import Limits, Lookups
from server.durability.null_keeper import NullKeeper
from server.durability.outbox import Once, Outbox
from server.durability.parking import Parking
from server.durability.registry import Registry
from server.durability.sequence import Cohort, Life, Move, ServedSequence, digest_of
from server.durability.takeover import Takeovers
from server.durability.upkeep.upkeep import Upkeep
from server.errors import StoreFailed
from server.lives import CLOSED, DISCONNECTED, NOT_OPENED, PARKED, Lives
from server.meter import LimitsOf, unlimited
from server.runtime.counters import Histogram
from server.settings import Settings
from server.watermarks import NONE

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread
    from server.durability.takeover import ModelLookup
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)

_HOUSEKEEPING = 5.0  # seconds between two looks at limits and retention
_GLANCE = 0.5  # seconds between two looks whether the store has lost its data
_BACKOFF = 0.1, 2.0  # seconds: the first and the longest wait after a failure of the store


@dataclass(frozen=True, eq=False)
class StoreSample:
    """The store, as far as this server knows. `sequences` and `bytes` are of all servers that share it."""

    answers: bool
    errors: int
    sequences: int
    bytes: int
    parked: int  # of the sequences
    unwritten: int  # sequences that were parked here and wait to be written
    limit: int  # of the bytes
    took: Histogram  # seconds of each call
    waited: Histogram  # and from when it was asked for until it began
    lost: Mapping[str, int]  # sequences that ended here against their clients' will, by reason


class Keeper:
    """All sequences that are open here. Call `start`, `run`, `flush`, `stop` in this order."""

    def __init__(
        self,
        store_thread: StoreThread,
        settings: Settings,
        models: ModelLookup,
        limits_of: LimitsOf = unlimited,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        lives: Lives | None = None,
    ) -> None:
        self.monotonic = monotonic
        self._store = store = store_thread
        self._patience = settings.store_seconds
        self._most_bytes = int(settings.max_store_mib * 2**20)
        # books
        self._registry = registry = Registry(clock, monotonic, limits_of, lives)
        self._outbox = outbox = Outbox()
        # parts
        steps, seconds = settings.checkpoint_steps, settings.checkpoint_ms / 1e3
        self._checkpointer = writer = Checkpointer(store, registry, outbox, steps, seconds)
        self._leases = Leases(store, registry)
        self._limits = limits = Limits(store, registry, settings, limits_of)
        self.parking = Parking(store, registry, settings.idle_seconds)
        lookups = Lookups(settings.max_per_address)
        self.takeovers = Takeovers(store, registry, outbox, writer, limits, self.parking, models, lookups)
        self.commits = Commits(store, registry, writer)
        self.upkeep = Upkeep(store, registry, outbox, writer)

    # A sequence comes and goes ----------------------------------------------------------------------------------------

    def check(self, caller: Caller, count: int) -> None:
        """Checks that a client may open so many. Raises OverLimit: its owner has too many, or the store is full."""
        self._limits.check(caller, count)

    def enrol(self, cohort: Cohort, slots: np.ndarray) -> list[ServedSequence]:
        """Takes in new sequences, more of a cohort, which live in these slots.

        Raises:
            OverLimit: the owner has too many, or the store is full.
        """
        self._limits.check(cohort.caller, len(slots))
        cohort.token = cohort.token or token_urlsafe(18)
        sequences = cohort.sequences(slots, digest_of(cohort.token, cohort.caller.token))
        if cohort.origin is None:
            self._registry.add_fresh(sequences, slots)
        else:
            self._registry.add(sequences, slots, cohort.step, NONE)
        self._checkpointer.hurry()
        return sequences

    def turn_away(self, model: ServedModel, slots: np.ndarray) -> None:
        """Forgets the sequences in these slots: opening them failed."""
        here = self._registry.at(model)
        failed = [here[slot] for slot in slots.tolist() if slot in here]
        self._registry.lives.left(failed, NOT_OPENED)
        self._registry.remove(failed)

    def park(self, sequences: Sequence[ServedSequence], then: Callable[[], None], *, abandoned: bool = False) -> None:
        """These sequences of one model leave their stream, after all of its steps; their last states are written.

        Not if they were `abandoned` before they, or any that were opened with them, took a step: nothing is lost then.
        `then` is called once they are written, or after `store_seconds`, or at once while the store fails.
        """
        model = sequences[0].model
        self._registry.lives.left(sequences, DISCONNECTED if abandoned else PARKED)
        watermarks, done = model.watermarks, model.slots.done
        slots = np.array([s.slot for s in sequences if s.slot >= 0], np.intp)
        if not abandoned:
            watermarks.keep(slots)
        elif watermarks.fresh[slots].any():
            watermarks.keep_begun(done)
        moved = [s for s in sequences if s.life is Life.CLOSING and not watermarks.fresh[s.slot]]
        for sequence in sequences:
            sequence.move(Move.PARK)
        model.counters.parked += len(moved)
        told = Once(then)
        if moved:
            self._outbox.park(moved, told)
        self._registry.remove(sequences)
        self._wait(told, bool(moved))

    def end(self, sequences: Sequence[ServedSequence], then: Callable[[], None]) -> None:
        """The client has closed these sequences of one model.

        `then` is called once the store knows it, or after `store_seconds`, or at once while the store fails.
        """
        self._registry.lives.left(sequences, CLOSED)
        fresh = sequences[0].model.watermarks.fresh
        known = [s for s in sequences if s.slot < 0 or not fresh[s.slot]]  # the store does not know the others
        for sequence in sequences:
            sequence.move(Move.END)
        self._registry.remove(sequences)
        told = Once(then)
        self._wait(told, bool(known) and self._outbox.end(known, told))

    def _wait(self, told: Once, writing: bool) -> None:
        """Bounds how long a client waits for what is being written, if anything is."""
        if writing and self._store.failing_since is None:
            asyncio.get_running_loop().call_later(self._patience, told)
        else:
            told()
        if writing:
            self._checkpointer.hurry()

    # Start, run, flush, stop ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the store. Raises StoreFailed: it is no store of ours, or its address means nothing."""
        await self._store.start()

    async def run(self) -> None:
        """Writes checkpoints every so often, enforces limits and retention; until cancelled."""
        wait, everything, (first, longest) = 0.0, True, _BACKOFF
        housekept = looked = self.monotonic()
        while True:
            if wait:
                await asyncio.sleep(wait)
            else:
                everything = await self._checkpointer.rest()
            try:
                if self.monotonic() - looked >= _GLANCE:
                    await self._checkpointer.look_for_losses()
                    looked = self.monotonic()
                await self._checkpointer.checkpoint(everything)
                wait = 0.0
            except StoreFailed:
                wait = min(longest, 2 * wait or first)
            except Exception:
                log.exception("writing checkpoints failed; trying again")
                wait = longest
            if self.monotonic() - housekept >= _HOUSEKEEPING:  # although nothing can be written: it may make room
                housekept = self.monotonic()
                await self._try_to_maintain()

    async def _try_to_maintain(self) -> None:
        try:
            await self.maintain()
        except StoreFailed:
            pass  # the next time
        except Exception:
            log.exception("enforcing limits failed; trying again")

    async def maintain(self) -> None:
        """Parks what is idle, renews leases, expires what was parked for too long, and evicts where a limit is passed.

        Raises:
            StoreFailed.
        """
        await self.parking.park_idle()
        await self._leases.renew()
        await self._limits.enforce()

    async def flush(self) -> bool:
        """Writes all there is, a thousand or two at a time; whether that succeeded.

        Gives up once one write takes `store_seconds`: where there is much to write, all of it takes longer.
        """
        try:
            while True:
                async with asyncio.timeout(self._patience):
                    await self._checkpointer.checkpoint()
                if not (self._outbox or self._checkpointer.cut):  # nor what left meanwhile
                    break
        except (StoreFailed, TimeoutError):
            return False
        except Exception:
            log.exception("writing checkpoints failed")
            return False
        return True

    async def stop(self, seconds: float) -> None:
        """Closes the store after the last call; waits for that for so many seconds and no longer."""
        await self._store.stop(seconds)

    def sample(self) -> StoreSample:
        """The store in numbers; its usage is that of the last enforcement of the limits."""
        thread, usage = self._store, self._limits.usage
        return StoreSample(
            thread.failing_since is None,
            thread.errors,
            usage.sequences,
            usage.taken,
            usage.parked,
            self._outbox.unwritten,
            self._most_bytes,
            thread.took.copy(),
            thread.waited.copy(),
            Counter(self._registry.lost),
        )


AnyKeeper = Keeper | NullKeeper
