"""Recovery from a lost stream: when to try again, for how long, and with which error to give up. Connects nothing."""

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tidegate.errors import ConnectionLost, Refused
from tidegate.protocol.budget import KEEP_BYTES, KEEP_STEPS
from tidegate.protocol.conversation import SOON, Conversation
from tidegate.transport.endpoint import Endpoint

log = logging.getLogger("tidegate")

RESUME_WITHIN = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Resuming:
    """How a client goes on after a loss, where the server keeps checkpoints.

    Before attempt n it waits a random part of `first_wait` * 2^n seconds, of `longest_wait` at most.

    `keep_bytes` and `keep_steps` bound the inputs that it keeps for all its sequences together. At the bound, sending
    waits until the server announces a checkpoint. A chunk is never split for it, and a sequence whose every step is in
    a checkpoint may always send one: the bound may be exceeded by that much.

    `clock` (seconds) and `chance` (0 to 1) are there for tests.
    """

    first_wait: float = 0.05
    longest_wait: float = 2.0
    keep_bytes: int = KEEP_BYTES
    keep_steps: int = KEEP_STEPS
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.keep_bytes < 1 or self.keep_steps < 1:
            raise ValueError("keep_bytes and keep_steps must be at least 1")


USUAL = Resuming()


def patience(within: float | None, timeout: float | None) -> float | None:
    limits = [limit for limit in (within, timeout) if limit is not None]
    return min(limits, default=None)


class Pace:
    """How long to wait before each attempt, over all losses of one client.

    Where one loss follows the other it gets slower, whether or not each was recovered from: half of `longest_wait`
    without a loss makes up for one attempt.
    """

    def __init__(self, resuming: Resuming) -> None:
        self._how = resuming
        self._tried = 0.0
        self._well_since: float | None = None

    def next_wait(self) -> float:
        how = self._how
        if self._well_since is not None:
            forgotten = 2 * (how.clock() - self._well_since) / max(how.longest_wait, 1e-3)
            self._tried = max(0.0, self._tried - forgotten)
            self._well_since = None
        wait: float = how.chance() * min(how.longest_wait, how.first_wait * 2.0 ** min(self._tried, 60.0))
        self._tried += 1
        return wait

    def well(self) -> None:
        self._well_since = self._how.clock()


_AGAIN = {*SOON, "TOO_FAST"}  # refusals after which the same is asked for again


class Attempts:
    """When to try again, until `within` seconds after the last success; None: for ever."""

    def __init__(self, resuming: Resuming, within: float | None, pace: Pace | None = None) -> None:
        self._resuming = resuming
        self._within = within
        self._pace = pace or Pace(resuming)
        self._since = resuming.clock()
        self.made = 0

    def next_wait(self, least: float = 0.0) -> float | None:
        """Seconds, at least so many; None: so long is not left."""
        left = math.inf if self._within is None else self._within - (self._resuming.clock() - self._since)
        if left <= least:
            return None
        wait = self._pace.next_wait()
        self.made += 1
        return max(least, min(wait, left))

    def wait_after(self, error: ConnectionLost | Refused) -> float | None:
        if isinstance(error, Refused) and error.reason not in _AGAIN:
            return None
        return self.next_wait(error.retry_after if isinstance(error, Refused) else 0.0)

    def good_news(self) -> None:
        self._since = self._resuming.clock()


class Recovery:
    """One loss, of a stream or of some sequences, from when it is noticed until every sequence has an answer again.

    Its time begins with the first attempt, which is always made.
    """

    def __init__(
        self, resuming: Resuming, within: float | None, address: Endpoint, talk: Conversation, pace: Pace
    ) -> None:
        self._clock = resuming.clock
        self._within = within  # seconds; None: for ever
        self._address = address
        self._before = (talk.resumption.resumed, talk.resumption.sent_again)
        self._began = resuming.clock()
        self._pace = pace
        self._attempts = Attempts(resuming, within, pace)
        self._behind = 0
        if talk.broken is not None:
            log.warning("connection to %s lost (%s); resuming what is open", address, talk.broken)

    def next_wait(self, *, anew: bool = False) -> float | None:
        """Seconds to wait before the next attempt; None: the time is over. `anew`: it begins now."""
        if anew or not self._attempts.made:
            self._attempts.good_news()
        return self._attempts.next_wait()

    def why_over(self, talk: Conversation) -> str:
        return f"not resumed within {self._within:g} s: {talk.broken}"

    def over(self, talk: Conversation) -> bool:
        report(talk)
        if talk.broken is not None or talk.lost is not None:
            return False
        if talk.recovering < self._behind:
            self._attempts.good_news()
        self._behind = talk.recovering
        if talk.recovering:
            return False
        self._pace.well()
        resumed, sent_again = self._before
        log.info(
            "resumed %d sequences at %s after %.3f s, in attempt %d; sent %d steps again",
            talk.resumption.resumed - resumed,
            self._address,
            self._clock() - self._began,
            self._attempts.made,
            talk.resumption.sent_again - sent_again,
        )
        return True


def report(talk: Conversation) -> None:
    for casualty in talk.resumption.casualties:
        log.warning("a sequence is lost: %s", casualty)
    talk.resumption.casualties.clear()
