"""What connections for threads and for asyncio have in common: a conversation and its recoveries. Sends nothing."""

from typing import Any

from tidegate.protocol.budget import Budget
from tidegate.protocol.conversation import Conversation
from tidegate.protocol.promise import Promise
from tidegate.protocol.route import headers
from tidegate.transport.endpoint import Endpoint
from tidegate.transport.recovery import Pace, Recovery, Resuming, report

GOODBYE = 1.0  # seconds that a server may take to end a stream on which nothing is open


class Link:
    """One stream after the other to one server. `within`: for how many seconds it resumes; None: for ever."""

    def __init__(self, address: Endpoint, route: str, resuming: Resuming, within: float | None) -> None:
        self._address = address
        self._headers = headers(route)
        self._resuming = resuming
        self._within = within
        self._talk = Conversation(None if within == 0 else Budget(resuming.keep_bytes, resuming.keep_steps))
        self._waiting: set[Promise[Any]] = set()
        self._pace = Pace(resuming)
        self._recovery: Recovery | None = None

    @property
    def talk(self) -> Conversation:
        """What is said: how to build what `ask` sends."""
        return self._talk

    def _recover(self) -> Recovery:
        """The recovery that is under way, or else begins."""
        if self._recovery is None:
            self._recovery = Recovery(self._resuming, self._within, self._address, self._talk, self._pace)
        return self._recovery

    def _next_wait(self) -> float | None:
        """Seconds until the next attempt; None: the time is over, which runs only while somebody waits."""
        recovery = self._recover()
        if not self._waiting:
            recovery.begin_anew()
        return recovery.next_wait()

    def _give_up(self) -> None:
        self._talk.give_up(self._recover().why_over(self._talk))
        report(self._talk)

    def _note_recovered(self) -> None:
        """A message came: perhaps everything got on."""
        if self._recovery is not None and self._recovery.over(self._talk):
            self._recovery = None
        elif self._talk.resumption.casualties:
            report(self._talk)
