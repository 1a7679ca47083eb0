"""Keeps the sequences of this server beyond their streams: checkpoints them, parks, restores and ends them.

Joins those who do that, and is what a stream asks of them; `run` is their round. Lives in the event loop. Knows no
gRPC; who holds a sequence hears through `Holder`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_urlsafe

import numpy as np

from server.caller import Caller
from server.durability.checkpoint import Checkpoint
from server.durability.checkpointer import Checkpointer
from server.durability.commits import Commits
from server.durability.leases import Leases
from server.durability.limits import Limits
from server.durability.outbox import Outbox
from server.durability.parking import Parking
from server.durability.registry import Registry
from server.durability.sequence import Life, Move, ServedSequence, digest_of, new_ids
from server.durability.store_thread import BackgroundCalls, StoreThread
from server.durability.takeover import ModelLookup, Restored, Takeovers
from server.errors import StoreFailed, TidegateError
from server.runtime.served_model import ServedModel
from server.runtime.watermarks import NONE
from server.settings import Settings
from server.stores import store

log = logging.getLogger(__name__)

_HOUSEKEEPING = 5.0  # seconds between two looks at limits and retention
_BACKOFF = 0.1, 2.0  # seconds: the first and the longest wait after a failure of the store


@dataclass(frozen=True, eq=False)
class Enrolled:
    """Sequences that were opened together: their ids, and the secret that resumes them."""

    sequences: tuple[ServedSequence, ...]
    token: str


class Keeper:
    """All sequences that are open here.

    Args:
        store_thread: asks the store.
        settings: how often, how many, how long.
        models: finds the model of a checkpoint.
        clock: seconds since 1970, for the store.
        monotonic: seconds, for what is idle.
    """

    def __init__(
        self,
        store_thread: StoreThread,
        settings: Settings,
        models: ModelLookup,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.monotonic = monotonic
        self._rest = settings.checkpoint_ms / 1e3
        self._patience = settings.store_seconds
        # books
        self._registry = Registry(monotonic)
        self._outbox = Outbox()
        # who does what
        background = BackgroundCalls()
        self._checkpointer = Checkpointer(
            store_thread, self._registry, self._outbox, settings.checkpoint_steps, clock, monotonic
        )
        self._parking = Parking(store_thread, self._registry, background, settings.idle_seconds, clock, monotonic)
        self._leases = Leases(store_thread, self._registry, clock, monotonic)
        self._limits = Limits(store_thread, self._registry, settings, clock)
        self._takeovers = Takeovers(
            store_thread, self._registry, self._outbox, self._checkpointer, background, self._limits, models, clock
        )
        self._commits = Commits(store_thread, self._registry, self._checkpointer, background, clock)

    # Coming -----------------------------------------------------------------------------------------------------------

    def enrol(
        self,
        model: ServedModel,
        slots: np.ndarray,
        caller: Caller,
        route: str,
        steps: int = 0,
        origin: np.ndarray | None = None,
    ) -> Enrolled:
        """Takes in new sequences that live in these slots after so many steps, with this state [W] or the initial one.

        Their ids begin with `route`.

        Raises:
            OverLimit: the owner has too many, or the store is full.
        """
        self._limits.check(caller, len(slots))
        token = token_urlsafe(18)
        digest = digest_of(token)
        sequences = tuple(
            ServedSequence(name, digest, caller.owner, model, slot, steps=steps, new=True, origin=origin)
            for name, slot in zip(new_ids(len(slots), route), slots.tolist(), strict=True)
        )
        self._registry.add(sequences, slots, steps, NONE)
        self._checkpointer.hurry()
        return Enrolled(sequences, token)

    def claim(
        self,
        caller: Caller,
        ids: Sequence[str],
        token: str,
        answered: Sequence[int],
        admit: Callable[[list[Restored]], None],
        then: Callable[[list[Restored] | TidegateError], None],
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Takes over sequences that were opened before; `then` hears of all of them, or why not.

        `admit` is asked first, with what they would go on from as far as that is known, and raises a Refusal if they
        cannot be taken in. Then those that are open here on another stream leave it. Their states still have to be put
        into slots, and `settle` be called, by `then` itself. Of several that want the same sequence the one that came
        last gets it, however slow the store is; none who says that it is not `wanted` any more.
        """
        self._takeovers.claim(caller, ids, token, answered, admit, then, wanted)

    def settle(self, restored: Sequence[Restored], slots: np.ndarray) -> None:
        """What was claimed lives in these slots from now on."""
        self._takeovers.settle(restored, slots)

    def giving_way(self, model: ServedModel, ids: Sequence[str]) -> int:
        """How many slots of a model are free once these sequences are resumed: those that they have now."""
        here = [self._registry.get(id_) for id_ in ids]
        return sum(sequence is not None and sequence.slot >= 0 and sequence.model is model for sequence in here)

    def turn_away(self, model: ServedModel, slots: np.ndarray) -> None:
        """Who has moved into these slots just now does not stay after all."""
        here = self._registry.at(model)
        self._registry.remove([here[slot] for slot in slots.tolist() if slot in here])

    # Staying ----------------------------------------------------------------------------------------------------------

    def make_room(self, model: ServedModel, wanted: int) -> None:
        """Parks those that are idle, the longest idle first, if the slots would not do."""
        self._parking.make_room(model, wanted)

    def sleep(self, sequence: ServedSequence) -> None:
        """An open sequence gives up its slot; what it holds is written."""
        self._parking.sleep(sequence)

    def wake(self, sequences: Sequence[ServedSequence], then: Callable[[TidegateError | None], None]) -> None:
        """Makes sequences ready for a step; `then` hears when they are, or why not.

        Those that sleep are put back into slots; of those that are branched, what they take anew is cut off.
        """
        self._parking.wake(sequences, then)

    def go_back(self, sequence: ServedSequence, step: int, then: Callable[[Checkpoint | TidegateError], None]) -> None:
        """Makes the newest checkpoint of an open sequence at or before a step its last one; `then` puts it in place."""
        self._commits.go_back(sequence, step, then)

    def gone_back(self, sequence: ServedSequence) -> None:
        """A sequence goes on from where `go_back` said."""
        sequence.model.watermarks.go_back(sequence.slot, int(sequence.model.slots.done[sequence.slot]))

    def commit_move(
        self,
        sequence: ServedSequence,
        model: ServedModel,
        step: int,
        row: np.ndarray,
        then: Callable[[TidegateError | None], None],
    ) -> None:
        """Writes that a sequence goes on with another version of its model from this step and state [W] on."""
        self._commits.go_over(sequence, model, step, row, then)

    def relocate(self, sequence: ServedSequence, model: ServedModel, slot: int) -> None:
        """A sequence goes on in a slot of another model, where it is anchored."""
        self._registry.relocate(sequence, model, slot)

    # Leaving ----------------------------------------------------------------------------------------------------------

    def park(self, sequences: Sequence[ServedSequence]) -> None:
        """These sequences leave their stream, after all of its steps; their last states are written."""
        for sequence in sequences:
            if sequence.life is not Life.PARKED:
                sequence.move(Move.PARK)
                sequence.model.counters.parked += 1
        moved = [sequence for sequence in sequences if sequence.slot >= 0 and not (sequence.branched and sequence.born)]
        if moved:
            self._outbox.park(moved)
            self._checkpointer.hurry()
        self._registry.remove(sequences)

    def end(self, sequences: Sequence[ServedSequence]) -> None:
        """The client has closed these sequences."""
        for sequence in sequences:
            sequence.move(Move.END)
        self._registry.remove(sequences)
        self._outbox.end(sequences)
        self._checkpointer.hurry()

    # Writing and keeping house ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Writes checkpoints every so often, looks after limits and retention; until cancelled."""
        wait, everything, (first, longest) = 0.0, True, _BACKOFF
        housekept = self.monotonic()
        while True:
            if wait:
                await asyncio.sleep(wait)
            else:
                everything = await self._checkpointer.rest(self._rest)
            try:
                await self._checkpointer.checkpoint(everything)
                wait = 0.0
            except StoreFailed:
                wait = min(longest, 2 * wait or first)
            except Exception:
                log.exception("writing checkpoints failed; trying again")
                wait = longest
            if self.monotonic() - housekept >= _HOUSEKEEPING:  # although nothing can be written: it may make room
                housekept = self.monotonic()
                await self._try_to_keep_house()

    async def _try_to_keep_house(self) -> None:
        try:
            await self.keep_house()
        except StoreFailed:
            pass  # the next time
        except Exception:
            log.exception("keeping house failed; trying again")

    async def checkpoint(self) -> None:
        """Writes the states of all sequences that have moved since, in one write.

        Raises:
            StoreFailed: nothing is lost: they are written the next time.
        """
        await self._checkpointer.checkpoint()

    async def flush(self, seconds: float | None = None) -> bool:
        """Writes all there is, within so many seconds or as long as anybody waits; whether that succeeded."""
        try:
            async with asyncio.timeout(self._patience if seconds is None else seconds):
                await self.checkpoint()
                while self.unwritten:  # who left meanwhile
                    await self.checkpoint()
        except (StoreFailed, TimeoutError):
            return False
        except Exception:
            log.exception("writing checkpoints failed")
            return False
        return True

    async def keep_house(self) -> None:
        """Parks what is idle, renews leases, ends what nobody came back to, and makes room where a limit is passed.

        Raises:
            StoreFailed.
        """
        self._parking.park_idle()
        await self._leases.renew()
        await self._limits.enforce()

    # In numbers -------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many sequences are open here, sleeping ones among them."""
        return len(self._registry)

    @property
    def unwritten(self) -> int:
        """How many sequences have left while the store did not answer, and wait to be written."""
        return self._outbox.unwritten

    @property
    def lost(self) -> Counter[str]:
        """How many have left against their clients' will, by reason."""
        return self._registry.lost

    @property
    def usage(self) -> store.Usage:
        """Of the store, when the house was kept last."""
        return self._limits.usage

    def count_replayed(self, model: ServedModel) -> None:
        """Brings the tally of steps that were taken again up to date."""
        model.counters.replayed += model.watermarks.replayed(model.watermarks.replaying(), model.slots.done)
