"""What the books of a sequence and of a fleet have in common: whether they go on, and how they end. Pure."""

import numpy as np

from tidegate.errors import SequenceEnded, SequenceLost, TidegateError
from tidegate.protocol.fleet_in_flight import FleetInFlight
from tidegate.protocol.fleet_replay import FleetReplay
from tidegate.protocol.in_flight import InFlight
from tidegate.protocol.members import Steps
from tidegate.protocol.opening import Opening
from tidegate.protocol.replay import Replay


class CommonBooks:
    """`answered` and the bounds of what is repeated are one number for a sequence, and an array [C] for a fleet."""

    what: str  # in a sentence
    answered: int | Steps
    _back_at: int | Steps  # answers to steps from here
    _again: int | Steps  # to before there come a second time
    _replay: Replay | FleetReplay | None
    _in_flight: InFlight | FleetInFlight

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.handle = opening.handle
        self.version = opening.version
        self.count = opening.count
        self._inputs = opening.inputs  # those that steps are written for
        self._most = 0  # rows of one message, once it is known
        self.ended: TidegateError | None = None
        self.closed = False  # the server has confirmed that it was closed
        self.parked = False  # there is no stream

    @property
    def resumable(self) -> bool:
        """Whether it can go on after a loss."""
        return self._replay is not None

    @property
    def waiting(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._in_flight)

    @property
    def caught_up(self) -> bool:
        """Whether it got on since it was resumed, or has nothing to get on with."""
        return not self.parked and (not self._in_flight or bool(np.any(self.answered > self._again)))

    @property
    def sent_again(self) -> int:
        """How many steps had to be repeated when it was resumed."""
        return int(np.sum(self._again - self._back_at))

    def loss(self, reason: str, message: str) -> SequenceLost:
        """Why it cannot go on."""
        return SequenceLost(reason, message, int(np.min(self.answered)))

    def end(self, error: TidegateError) -> None:
        """No more steps: whoever tries gets this error."""
        self.ended = self.ended or error

    def abandon(self, error: TidegateError) -> None:
        """Ends it and fails everything that is still waiting."""
        self.end(error)
        if self._replay is not None:
            self._replay.clear(forget=isinstance(error, SequenceEnded))
        self._in_flight.fail(error)

    def unknown(self, reason: str, message: str) -> None:
        """The server does not have it any more: nothing that is on its way will be answered."""
        if self.resumable:
            self.abandon(self.loss(reason, message))
        else:
            self.abandon(SequenceEnded(f"the server does not know this {self.what} any more: {message}"))
