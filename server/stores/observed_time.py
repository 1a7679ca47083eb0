"""The time by which a store counts ages: it moves on by what was seen to pass. A clock that jumps ages nothing; pure.

The time is kept in the store. Each server that uses it says how far it must be by now: as far as when it looked last,
and on by what its own clock says has passed since, at most `gap`. The furthest holds. So servers whose clocks differ do
not add up, and while no server runs nothing ages. Calls do not come in the order in which they looked at the clock:
that one looked a little earlier than the last is no sign that the clock was put back.
"""

_LATE = 45.0  # seconds: about as long as a large resume waits for the store


class ObservedTime:
    """One server's view. `gap`: the most that counts between two looks, in seconds."""

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._looked: float | None = None  # by the server's clock
        self._time: float | None = None  # of the store, then

    @property
    def last(self) -> float:
        """The store's time when it was looked at last."""
        assert self._time is not None, "it was settled"
        return self._time

    def proposed(self, now: float) -> float | None:
        """How far the store's time must be, now that the clock says `now`; None if this is the first look."""
        passed = 0.0 if self._looked is None else min(max(now - self._looked, 0.0), self._gap)
        if self._looked is None or not 0 <= self._looked - now <= _LATE:  # else it has been counted
            self._looked = now
        if self._time is not None:
            self._time += passed
        return self._time

    def settle(self, time: float) -> float:
        self._time = time
        return time

    def look(self, kept: float | None, now: float) -> float:
        """The store's time, where `kept` is what it has kept, None for nothing."""
        proposed = self.proposed(now)
        known = [time for time in (kept, proposed) if time is not None]
        return self.settle(max(known, default=now))
