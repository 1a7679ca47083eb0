"""Writes the log's line for each sequence that leaves and for each refusal; beyond a rate one line for many of them.

What the lines say costs nothing while sequences step; of 50,000 that end at once the first hundred get a line each, and
the others are counted.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic

from server.edge.refusals import Refused
from server.errors import Reason
from server.lives import Living

log = logging.getLogger("server.sequences")
refusals = logging.getLogger("server.refusals")

SEQUENCES, REFUSALS = 100, 20  # lines a second, and as many at once
_GRAVE = {Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED, Reason.WRONG_TOKEN}  # it may be an attempt to guess
_NAMED = 8  # ids of a refusal that are written


class Budget:
    """So many lines a second; what goes beyond is counted by kind, of which there are few.

    Args:
        rate: lines a second, and the most at once.
        clock: seconds.
    """

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._left, self._since = float(rate), clock()
        self._out: Counter[str] = Counter()

    def take(self, wanted: int, kind: str) -> int:
        """How many of `wanted` lines may be written now; the others count as left out."""
        now = self._clock()
        self._left = min(self._rate, self._left + (now - self._since) * self._rate)
        self._since = now
        granted = min(wanted, int(self._left))
        self._left -= granted
        if granted < wanted:
            self._out[kind] += wanted - granted
        return granted

    def left_out(self) -> Counter[str]:
        """What was left out since the last call."""
        out, self._out = self._out, Counter()
        return out


class Journal:
    """A `lives.Watcher`, and what `Refusals` tells. Call `sum_up` every few seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._sequences, self._refusals = Budget(SEQUENCES, clock), Budget(REFUSALS, clock)

    def came(self, those: Sequence[Living]) -> None:
        if log.isEnabledFor(logging.DEBUG):
            how = "resumed" if those[0].resumed else "opened"
            for one in islice(those, self._sequences.take(len(those), f"{_named(*those[0].place)} {how}")):
                self._write(one, how, logging.DEBUG)

    def kept(self, those: Sequence[Living], steps: Sequence[int]) -> None:
        """Checkpoints are not logged."""

    def moved(self, one: Living, before: tuple[str, int]) -> None:
        if self._sequences.take(1, f"{_named(*before)} moved"):
            self._write(one, f"moved from version {before[1]}", logging.INFO)

    def left(self, those: Sequence[Living], why: str) -> None:
        if log.isEnabledFor(logging.INFO):
            for one in islice(those, self._sequences.take(len(those), f"{_named(*those[0].place)} {why}")):
                self._write(one, why, logging.INFO)

    def gone(self, ids: Sequence[str], why: str) -> None:
        for id_ in islice(ids, self._sequences.take(len(ids), f"parked {why}")):
            fields = {"event": "sequence", "id": id_, "why": why, "was": "parked"}
            log.info("sequence %s, which was parked: %s", id_, why, extra={"fields": fields})

    def refused(self, refused: Refused) -> None:
        """Writes a refusal."""
        reason = refused.reason.name
        if not self._refusals.take(1, f"{reason} of {refused.owner_class}"):
            return
        ids = refused.ids(_NAMED)
        fields = {
            "event": "refusal",
            "reason": reason,
            "request": refused.request,
            "owner": refused.owner,
            "ids": ids,
        }
        refusals.log(
            logging.WARNING if refused.reason in _GRAVE else logging.INFO,
            "%s of %s: %s: %s%s",
            refused.request or "a request",
            refused.owner,
            reason,
            refused.sentence,
            f" (sequence {', '.join(ids)})" if ids else "",
            extra={"fields": fields},
        )

    def sum_up(self) -> None:
        """Writes how many lines were left out since the last time, by kind."""
        for logger, budget, what in (
            (log, self._sequences, "sequences"),
            (refusals, self._refusals, "refusals"),
        ):
            if out := budget.left_out():
                said = ", ".join(f"{count:,} {kind}" for kind, count in out.most_common(10))
                fields = {"event": "left_out", "what": what, "count": out.total(), "kinds": dict(out.most_common(10))}
                logger.info(
                    "%s more %s have no line of their own: %s", f"{out.total():,}", what, said, extra={"fields": fields}
                )

    def _write(self, one: Living, why: str, level: int) -> None:
        (name, version), seconds = one.place, self._clock() - one.began
        fields = {
            "event": "sequence",
            "id": one.id,
            "owner": one.owner,
            "model": name,
            "version": version,
            "steps": one.taken,
            "seconds": round(seconds, 3),
            "resumed": one.resumed,
            "why": why,
        }
        log.log(
            level,
            "sequence %s of %s (%s): %s after step %d, %.1f s after it was %s",
            one.id,
            _named(name, version),
            one.owner,
            why,
            one.taken,
            seconds,
            "resumed" if one.resumed else "opened",
            extra={"fields": fields},
        )


def _named(name: str, version: int) -> str:
    return f"{name}/{version}"
