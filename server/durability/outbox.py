"""Who has left and is not in the store yet: the last states of the parked, and the ends of those that were closed."""

from collections import deque
from collections.abc import Iterable, Sequence

from server.durability.sequence import ServedSequence
from server.durability.snapshot import Snapshot, taken
from server.stores import store

_MOST = 100_000  # parked states, and ends, that may wait for a store that does not answer


class Outbox:
    """What is still to be written of sequences that are not here any more, in the order in which they left."""

    def __init__(self) -> None:
        self._snapshots: deque[Snapshot] = deque()
        self._ends: list[store.End] = []

    def __bool__(self) -> bool:
        return bool(self._snapshots or self._ends)

    @property
    def unwritten(self) -> int:
        """How many sequences were parked and wait to be written."""
        return sum(len(leaving.sequences) for leaving in self._snapshots)

    def park(self, sequences: Sequence[ServedSequence]) -> None:
        """Copies states of one model out of their slots; if too many wait already, what the store has must do."""
        if self.unwritten < _MOST:
            self._snapshots.append(taken(sequences, awake=False))

    def end(self, sequences: Sequence[ServedSequence]) -> None:
        """They were closed; if too many wait already, they stay in the store until they expire."""
        if len(self._ends) < _MOST:
            self._ends.extend(store.End(sequence.id, sequence.fence, store.Reason.ENDED) for sequence in sequences)

    def take(self) -> list[Snapshot]:
        """Who is parked, to be written now."""
        taken = list(self._snapshots)
        self._snapshots.clear()
        return taken

    def put_back(self, snapshots: Sequence[Snapshot]) -> None:
        """These could not be written."""
        self._snapshots.extendleft(reversed(snapshots))

    def add(self, snapshots: Iterable[Snapshot]) -> None:
        """These have to be written once more."""
        self._snapshots.extend(snapshots)

    def ends(self) -> list[store.End]:
        """Who was closed. To be written after all states that may be creating them."""
        return list(self._ends)

    def ended(self, count: int) -> None:
        """The first of them are written."""
        del self._ends[:count]
