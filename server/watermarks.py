"""How far the answers and checkpoints of a model's sequences are behind their steps: numbers of steps, by slot.

Streams set what clients acknowledge, durability what is written; the runtime carries the arrays with a model and reads
none. A checkpoint is announced to a client once the client has all answers up to the one that was announced before. So
none of the checkpoints that it may go back to is later than its answers; three of them are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NONE = -1  # no checkpoint
_FAR = np.uint64(2**62)  # beyond all steps


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the client of one sequence is; kept when the sequence leaves its slot. See `Watermarks`."""

    acked: int
    told: int
    before: int
    earlier: int
    had: int


class Watermarks:
    """Of one model. An array holds a number of steps where nothing else is said; NONE is no checkpoint."""

    def __init__(self, capacity: int) -> None:
        self.held = np.zeros(capacity, bool)  # whether the slot's sequence is kept beyond its stream
        self.seen = np.zeros(capacity)  # about when its last step came, in seconds of a monotonic clock
        self.safe_at = np.zeros(capacity)  # when its checkpoint was of its last step the last time, by the same clock
        self.acked = np.zeros(capacity, np.int64)  # how many answers its client has
        self.written = np.full(capacity, NONE)  # the newest checkpoint
        self.told = np.zeros(capacity, np.int64)  # the newest checkpoint that the client was told of
        self.before = np.zeros(capacity, np.int64)  # the one told before that
        self.earlier = np.zeros(capacity, np.int64)  # and before that
        self.fresh = np.zeros(capacity, bool)  # new, in the initial state of the model: nothing is to be written yet
        self.cohort = np.zeros(capacity, np.int64)  # a number that is the same for those that were opened together
        self.had = np.zeros(capacity, np.int64)  # how many answers the client had when the sequence was resumed
        self.retaken = np.zeros(capacity, np.int64)  # up to which step replayed ones are counted

    def begin(self, slots: np.ndarray, steps: np.ndarray | int, written: np.ndarray | int, now: float) -> None:
        """Sequences come into these slots after so many steps; their newest checkpoints are `written`."""
        self.held[slots] = True
        self.seen[slots] = self.safe_at[slots] = now
        self.acked[slots] = steps
        self.written[slots] = written
        self.told[slots] = np.maximum(written, 0)
        self.before[slots] = steps  # where a sequence begins is written together with its first checkpoint
        self.earlier[slots] = steps
        self.fresh[slots] = False
        self.had[slots] = 0
        self.retaken[slots] = steps

    def begin_afresh(self, slots: np.ndarray, cohort: int, now: float) -> None:
        """New sequences in the initial state, opened together: none is written before one of them has taken a step."""
        self.begin(slots, 0, 0, now)
        self.fresh[slots] = True
        self.cohort[slots] = cohort

    def acknowledge(self, slots: np.ndarray, answered: Sequence[int], expected: np.ndarray) -> None:
        """Clients say that they have so many answers; that may be any number, and counts up to the step `expected`."""
        self.acked[slots] = np.minimum(np.array(answered, np.uint64), expected.astype(np.uint64))

    def keep(self, slots: np.ndarray) -> None:
        """Has these written, and all that were opened together with them, because they are resumed together."""
        slots = slots[self.fresh[slots]]
        if len(slots):
            fresh, cohorts = np.flatnonzero(self.held & self.fresh), np.sort(self.cohort[slots])
            theirs = self.cohort[fresh]
            nearest = cohorts[np.minimum(np.searchsorted(cohorts, theirs), len(cohorts) - 1)]
            kept = fresh[nearest == theirs]
            self.fresh[kept] = False
            self.written[kept] = NONE

    def keep_begun(self, done: np.ndarray) -> None:
        """Has those written that have taken a step, and all that were opened together with them."""
        self.keep(np.flatnonzero(self.held & self.fresh & (done > 0)))

    def standing(self, slot: int) -> Standing:
        columns = self.acked, self.told, self.before, self.earlier, self.had
        return Standing(*(column.item(slot) for column in columns))

    def go_on(self, slot: int, standing: Standing, written: int, now: float) -> None:
        """A sequence comes from another slot, of this or another model, with its newest checkpoint at `written`.

        Its standing is kept: its client may not have all answers up to here.
        """
        self.begin(np.array([slot]), written, written, now)
        self.acked[slot], self.told[slot] = standing.acked, standing.told
        self.before[slot], self.earlier[slot] = standing.before, standing.earlier
        self.had[slot] = standing.had

    def go_back(self, slot: int, step: int) -> None:
        """The sequence goes on from an earlier checkpoint; those after it are gone, those before it stay."""
        self.written[slot] = step
        for steps in (self.acked, self.told, self.before, self.earlier):
            steps[slot] = min(steps[slot], step)

    def behind(self, done: np.ndarray, least: int = 1) -> np.ndarray:
        """The slots whose newest checkpoint is not of their last step.

        With `least` above 1 those that have so many steps since, or no checkpoint.
        """
        self.keep_begun(done)
        held = np.flatnonzero(self.held)
        written = self.written[held]
        slots: np.ndarray = held[(written == NONE) | (np.abs(done[held] - written) >= least)]
        return slots

    def first(self, slots: np.ndarray, accounts: np.ndarray, most: int, since: float) -> np.ndarray:
        """`most` of these slots, one of each account in turn: of an account, and of a turn, those seen longest ago.

        What was seen after `since` and has a checkpoint comes after all others: who has few needs none more often. A
        quarter are those seen longest ago of all: where there are more accounts than turns, who has many has some, too.
        Numbers are sorted, several times as fast as places by them in a stable order.
        """
        count = len(slots)
        oldest_first = slots[np.argsort(self.seen[slots])]
        account, age = np.divmod(np.sort(accounts[oldest_first] * count + np.arange(count)), count)
        begin = np.flatnonzero(np.diff(account, prepend=-1))  # where each account begins
        turn = np.arange(count) - np.repeat(begin, np.diff(begin, append=count))
        ordered = oldest_first[age]
        turn[(self.seen[ordered] > since) & (self.written[ordered] != NONE)] += count
        turn[age < most // 4] = -1
        taken: np.ndarray = ordered[np.argpartition(turn * count + age, most)[:most]]
        return taken

    def lag(self, done: np.ndarray) -> int:
        """The most steps that a sequence is ahead of its newest checkpoint."""
        slots = np.flatnonzero(self.held)
        return int((done[slots] - np.maximum(self.written[slots], 0)).max(initial=0))

    def lag_seconds(self, done: np.ndarray, now: float) -> float:
        """The longest time for which the last state of a sequence has not been written."""
        slots = np.flatnonzero(self.held)
        behind = slots[self.written[slots] != done[slots]]
        return float((now - self.safe_at[behind]).max(initial=0.0))

    def look(self, done: np.ndarray, now: float) -> None:
        """Notes which checkpoints are of the last step at this moment."""
        slots = np.flatnonzero(self.held)
        self.safe_at[slots[self.written[slots] == done[slots]]] = now

    def come_back(self, slots: np.ndarray, answered: Sequence[int]) -> None:
        """Clients resumed these, and say that they have so many answers, which may be any number."""
        self.had[slots] = np.minimum(np.array(answered, np.uint64), _FAR).astype(np.int64)

    def replaying(self) -> np.ndarray:
        """The slots of sequences whose next answer the client has already."""
        return np.flatnonzero(self.held & (self.retaken < self.had))

    def replayed(self, slots: np.ndarray, done: np.ndarray) -> int:
        """How many steps, of those taken since the last call, have answers that the clients had before."""
        again = np.maximum(np.minimum(done[slots], self.had[slots]) - self.retaken[slots], 0)
        self.retaken[slots] += again
        return int(again.sum())

    def kept(self, slots: np.ndarray) -> np.ndarray:
        """The steps [N, 3] whose checkpoints must stay beside a new one."""
        return np.stack([self.told[slots], self.before[slots], self.earlier[slots]], axis=1)

    def tell(self) -> np.ndarray:
        """Moves `told` on to the newest checkpoints where the clients have the answers for it; those slots."""
        slots = np.flatnonzero(self.held)
        slots = slots[(self.written[slots] > self.told[slots]) & (self.acked[slots] >= self.told[slots])]
        self.earlier[slots] = self.before[slots]
        self.before[slots] = self.told[slots]
        self.told[slots] = self.written[slots]
        return slots

    def idle(self, done: np.ndarray, since: float) -> np.ndarray:
        """The slots that have had no step since then and whose last state is written; the longest idle first."""
        slots = np.flatnonzero(self.held)
        slots = slots[self.seen[slots] <= since]
        self.keep(slots)
        slots = slots[self.written[slots] == done[slots]]
        return _sorted(slots, self.seen)

    def resting(self, slots: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Those of these slots whose last state is written; the longest without a step first."""
        slots = slots[self.held[slots] & ~self.fresh[slots] & (self.written[slots] == done[slots])]
        return _sorted(slots, self.seen)


def _sorted(slots: np.ndarray, by: np.ndarray) -> np.ndarray:
    in_order: np.ndarray = slots[np.argsort(by[slots], kind="stable")]
    return in_order
