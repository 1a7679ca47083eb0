"""What is still to be written of sequences that left their streams: last states of parked ones, ends of closed ones.

Bounded in bytes: while the store does not answer, the oldest states of the account with the most are dropped first.
"""

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from math import inf

from server.caller import account_of
from server.durability.sequence import ServedSequence
from server.durability.snapshot import Snapshot, taken
from server.stores import store

log = logging.getLogger(__name__)

_MOST = 256 * 2**20  # bytes of states that may wait for a store that does not answer
_EACH = 1_024  # bytes that a parked sequence takes beside its state
_MOST_ENDS = 32 * 2**20  # bytes of ends that may wait
_END = 256  # bytes that an end takes beside its id
_ENDS_AT_ONCE = 4_000  # ends in one write


class Once:
    """Calls a function the first time that it is called itself, and drops its reference to it.

    If it fails, what follows a write is done for the others, too.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            try:
                call()
            except Exception:
                log.exception("what waited for the store failed")


class Outbox:
    """Parked sequences by the account of their clients, each in the order in which they left, and ends."""

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[Snapshot, None]] = {}  # by account; none is empty
        self._by_lag: dict[
            int, OrderedDict[Snapshot, None]
        ] = {}  # the same, by the number of bits of how far behind they are
        self._bytes: Counter[str] = Counter()  # by account
        self._total = 0  # of those
        self.unwritten = 0  # sequences that were parked and wait to be written
        self._ends: deque[tuple[store.End, bytes, Once | None]] = deque()  # and what is called when it is written
        self._end_bytes = 0
        self._digests = Counter[bytes]()  # of the tokens of all these, and of those that are being written

    def __bool__(self) -> bool:
        return bool(self._waiting or self._ends)

    def concerns(self, digests: Collection[bytes]) -> bool:
        """Whether the store does not know all yet of the sequences whose tokens have one of these digests."""
        return not self._digests.keys().isdisjoint(digests)

    def digests(self) -> Collection[bytes]:
        """Of the tokens of all sequences of which the store does not know all yet."""
        return frozenset(self._digests)

    def written(self, leaving: Snapshot) -> None:
        """What `take` returned is written, or will not be; says so."""
        self._forget(leaving.sequences)
        leaving.told()

    def _expect(self, sequences: Iterable[ServedSequence]) -> None:
        self._digests.update(sequence.digest for sequence in sequences)

    def _forget(self, sequences: Iterable[ServedSequence]) -> None:
        for sequence in sequences:
            self._forget_one(sequence.digest)

    def _forget_one(self, digest: bytes) -> None:
        self._digests[digest] -= 1
        if not self._digests[digest]:
            del self._digests[digest]

    # Parked -----------------------------------------------------------------------------------------------------------

    def park(self, sequences: Sequence[ServedSequence], told: Once) -> None:
        """Copies states of one model out of their slots; `told` is called once they are written.

        Of what the bound drops, the store keeps what it has.
        """
        self.add([replace(taken(sequences, awake=False), told=told)])

    def take(self, most: float = inf) -> list[Snapshot]:
        """Removes and returns what is to be written now: `most` sequences or a few more.

        The first of each account, so that nobody waits for all of another, and then the furthest behind.
        """
        those: list[Snapshot] = []
        count = 0
        firsts = deque(next(iter(waiting)) for waiting in self._waiting.values())
        while self._waiting and count < most:
            in_turn = bool(firsts)
            leaving = firsts.popleft() if in_turn else next(iter(self._by_lag[max(self._by_lag)]))
            self._pop(leaving)
            if in_turn and (account := _account(leaving)) in self._waiting:  # it goes behind the others
                self._waiting[account] = self._waiting.pop(account)
            those.append(leaving)
            count += len(leaving.sequences)
        return those

    def put_back(self, snapshots: Sequence[Snapshot]) -> None:
        """Puts back what `take` returned and could not be written."""
        for leaving in reversed(snapshots):
            for waiting in self._put(leaving):
                waiting.move_to_end(leaving, last=False)
        self._give_up()

    def add(self, snapshots: Iterable[Snapshot]) -> None:
        """Adds snapshots to what is to be written; they may have been written before."""
        for leaving in snapshots:
            self._put(leaving)
            self._expect(leaving.sequences)
        self._give_up()

    def _put(self, leaving: Snapshot) -> tuple[OrderedDict[Snapshot, None], ...]:
        account, lag = _account(leaving), leaving.behind.bit_length()
        both = self._waiting.setdefault(account, OrderedDict()), self._by_lag.setdefault(lag, OrderedDict())
        for waiting in both:
            waiting[leaving] = None
        self._count(leaving, account, 1)
        return both

    def _pop(self, leaving: Snapshot) -> None:
        account, lag = _account(leaving), leaving.behind.bit_length()
        self._count(leaving, account, -1)
        del self._waiting[account][leaving], self._by_lag[lag][leaving]
        if not self._by_lag[lag]:
            del self._by_lag[lag]
        if not self._waiting[account]:
            del self._waiting[account], self._bytes[account]

    def _count(self, leaving: Snapshot, account: str, sign: int) -> None:
        count = len(leaving.sequences)
        size = leaving.states.nbytes + _EACH * count
        self.unwritten += sign * count
        self._bytes[account] += sign * size
        self._total += sign * size

    def _give_up(self) -> None:
        while self._total > _MOST:
            ((largest, _),) = self._bytes.most_common(1)
            leaving = next(iter(self._waiting[largest]))
            self._pop(leaving)
            self.written(leaving)

    # Closed -----------------------------------------------------------------------------------------------------------

    def end(self, sequences: Sequence[ServedSequence], told: Once) -> bool:
        """Has the ends of closed sequences written; `told` is called once they are.

        Returns False if too many wait already: then the sequences stay in the store until they expire.
        """
        if self._end_bytes > _MOST_ENDS:
            return False
        ends = [store.End(sequence.id, sequence.fence, store.Reason.ENDED) for sequence in sequences]
        digests = [sequence.digest for sequence in sequences]
        self._ends += zip(ends, digests, [*[None] * (len(ends) - 1), told], strict=True)
        self._expect(sequences)
        self._end_bytes += sum(map(_end_size, ends))
        return True

    def ends(self) -> list[store.End]:
        """The next ends to write; to be written after all states, which may create the sequences."""
        return [end for end, *_ in islice(self._ends, _ENDS_AT_ONCE)]

    def ended(self, count: int) -> None:
        """The first `count` ends are written."""
        for _ in range(count):
            end, digest, told = self._ends.popleft()
            self._end_bytes -= _end_size(end)
            self._forget_one(digest)
            if told is not None:
                told()

    def wait_no_more(self) -> None:
        """The store fails: calls now what was to be called once states and ends are written."""
        calls = [leaving.told for waiting in self._waiting.values() for leaving in waiting]
        calls += [told for *_, told in self._ends if told is not None]
        for told in calls:
            told()


def _account(leaving: Snapshot) -> str:
    return account_of(leaving.sequences[0].owner)


def _end_size(end: store.End) -> int:
    return len(end.id) + _END
