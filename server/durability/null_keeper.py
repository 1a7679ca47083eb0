# ruff: noqa: ARG002 - it stands in for others, and takes what they take
"""What stands in a Keeper's place where no checkpoints are kept: sequences end with their stream. Has no store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from server.caller import Caller
from server.durability.loss_errors import gone
from server.durability.quota import Quota
from server.durability.sequence import Cohort, Move, ServedSequence
from server.durability.upkeep.null_upkeep import NullUpkeep
from server.errors import Reason, SequenceGone, TidegateError, WrongState
from server.lives import CLOSED, DISCONNECTED, NOT_OPENED, Lives
from server.meter import LimitsOf, unlimited
from server.runtime.turns import Work
from server.settings import Settings
from server.stores import store

if TYPE_CHECKING:
    from server.durability.restored import ResumeRequest
    from server.runtime.served_model import ServedModel


class NullKeeper:
    """Has the calls of `Keeper`, `Takeovers`, `Parking` and `Commits`; one serves any number of streams.

    `settings`: how many an owner and an address may have open; none: as by default.
    """

    monotonic = staticmethod(time.monotonic)

    def __init__(
        self, settings: Settings | None = None, limits_of: LimitsOf = unlimited, lives: Lives | None = None
    ) -> None:
        self._settings = settings or Settings()
        self._lives = lives or Lives()
        self._quota = Quota(limits_of)
        self._open: set[ServedSequence] = set()

    @property
    def upkeep(self) -> NullUpkeep:
        return NullUpkeep(self._open, self._lose)

    @property
    def takeovers(self) -> NullKeeper:
        return self

    @property
    def parking(self) -> NullKeeper:
        return self

    @property
    def commits(self) -> NullKeeper:
        return self

    def check(self, caller: Caller, count: int) -> None:
        self._quota.check(caller.owner, count, self._settings)

    def enrol(self, cohort: Cohort, slots: np.ndarray) -> list[ServedSequence]:
        self.check(cohort.caller, len(slots))
        self._quota.count(cohort.caller.owner, len(slots))
        new = cohort.sequences(slots)
        now = self.monotonic()
        for sequence in new:
            sequence.began = now
        self._lives.came(new)
        self._open.update(new)
        return new

    def turn_away(self, model: ServedModel, slots: np.ndarray) -> None:
        failed = set(slots.tolist())
        those = [sequence for sequence in self._open if sequence.model is model and sequence.slot in failed]
        self._lives.left(those, NOT_OPENED)
        self._remove(those)

    def _remove(self, sequences: Sequence[ServedSequence]) -> None:
        for sequence in self._open.intersection(sequences):
            self._open.remove(sequence)
            self._quota.count(sequence.owner, -1)

    def _lose(self, sequences: Sequence[ServedSequence]) -> None:
        """Who runs the server ends them."""
        self._lives.left(sequences, Reason.SEQUENCE_ENDED.name.lower())
        for sequence in sequences:
            if sequence.holder is not None:
                sequence.holder.take_away([sequence], gone(sequence.id, store.Reason.REMOVED))
            sequence.move(Move.LOSE)
        self._remove(sequences)

    def park(self, sequences: Sequence[ServedSequence], then: Callable[[], None], *, abandoned: bool = False) -> None:
        self._end(sequences, DISCONNECTED)
        then()

    def end(self, sequences: Sequence[ServedSequence], then: Callable[[], None]) -> None:
        self._end(sequences, CLOSED)
        then()

    def _end(self, sequences: Sequence[ServedSequence], why: str) -> None:
        self._lives.left(sequences, why)
        for sequence in sequences:
            sequence.move(Move.END)
        self._remove(sequences)

    def claim(self, request: ResumeRequest) -> None:
        request.then(SequenceGone("this server keeps no checkpoints, so no sequence can be resumed"))

    def settle(self, restored: Sequence[object], slots: np.ndarray) -> list[ServedSequence]:
        return []

    def make_room(self, model: ServedModel, wanted: int, account: str) -> Work:
        yield from ()

    def wake(self, sequences: Sequence[ServedSequence], then: Callable[[TidegateError | None], None]) -> None:
        then(None)

    def go_back(
        self, sequence: ServedSequence, step: int, wanted: Callable[[], bool], then: Callable[[TidegateError], None]
    ) -> None:
        then(WrongState("this server keeps no checkpoints", Reason.CHECKPOINT_GONE))

    def go_over(
        self,
        sequence: ServedSequence,
        model: ServedModel,
        step: int,
        row: np.ndarray,
        wanted: Callable[[], bool],
        then: Callable[[TidegateError | None], None],
    ) -> None:
        then(None)

    def relocate(self, sequence: ServedSequence, model: ServedModel, slot: int) -> None:
        before, sequence.model, sequence.slot = sequence.place, model, slot
        self._lives.moved(sequence, before)

    async def start(self) -> None: ...

    async def run(self) -> None: ...

    async def flush(self) -> bool:
        return True

    async def stop(self, seconds: float) -> None: ...

    def sample(self) -> None: ...
