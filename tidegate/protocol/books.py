"""What the books of a sequence and of a fleet have in common: how they end, and how they are opened anew. Pure."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Generic, TypeVar

import numpy as np

from tidegate.errors import ProtocolError, Refused, SequenceEnded, SequenceLost, TidegateError
from tidegate.inputs import Block
from tidegate.protocol.fleet_replay import FleetReplay
from tidegate.protocol.in_flight import FleetInFlight, InFlight
from tidegate.protocol.members import Steps
from tidegate.protocol.opening import Opening, Order
from tidegate.protocol.replay import Replay

N = TypeVar("N", int, Steps)
R = TypeVar("R", Replay, FleetReplay)
F = TypeVar("F", InFlight, FleetInFlight)


class CommonBooks(ABC, Generic[N, R, F]):
    """The number of a step is one number for a sequence, and an array [C] for a fleet.

    `next_step` is the number of the next step to be sent, `answered` that of the first step without an answer. With a
    `replay`, the inputs that a server may need again after a loss are kept.
    """

    what: str  # in a sentence
    next_step: N
    answered: N
    _back_at: N  # answers to steps from here
    _again: N  # to before there come a second time

    def __init__(self, opening: Opening, first: N, replay: R | None, in_flight: F) -> None:
        self.opening = opening
        self.next_step, self.answered = copy(first), copy(first)
        self._back_at = self._again = first
        self._replay: R | None = replay
        self._in_flight: F = in_flight
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
        return self._replay is not None

    @property
    def waiting(self) -> bool:
        return bool(self._in_flight)

    @property
    def caught_up(self) -> bool:
        """Whether an answer has come since it was resumed, or none is due."""
        return not self.parked and (not self._in_flight or bool(np.any(self.answered > self._again)))

    @property
    def sent_again(self) -> int:
        return int(np.sum(self._again - self._back_at))

    def loss(self, reason: str, message: str) -> SequenceLost:
        return SequenceLost(reason, message, int(np.min(self.answered)))

    def end(self, error: TidegateError) -> None:
        self.ended = self.ended or error

    def abandon(self, error: TidegateError) -> None:
        self.end(error)
        if self._replay is not None:
            self._replay.clear(forget=isinstance(error, SequenceEnded))
        self._in_flight.fail(error)

    def unknown(self, reason: str, message: str) -> None:
        if self.resumable:
            self.abandon(self.loss(reason, message))
        else:
            self.abandon(SequenceEnded(f"the server does not know this {self.what} any more: {message}"))

    def _lose(self, refusal: Refused, what: str) -> None:
        self.abandon(self.loss(refusal.reason, f"{what}: {refusal.message}"))

    # After a loss.

    @property
    def order(self) -> Order | None:
        """How to open it anew from its beginning, if every input since then is kept; else None."""
        order = self.opening.order
        return order if isinstance(order, Order) and self._replay is not None and self._replay.whole else None

    def _go_on_at(self, start: N, *, kept: bool) -> None:
        """Enters that it is open again. Raises ProtocolError, SequenceLost."""
        self._check_start(start, kept=kept)
        self.parked = False
        self._back_at, self._again = start, copy(self.answered)

    def _check_start(self, start: N, *, kept: bool) -> None:
        """Checks that the inputs from there on are kept. Raises ProtocolError, SequenceLost (CHECKPOINT_GONE)."""
        if np.any(start > self.answered):
            raise ProtocolError(f"the server goes on at a step of this {self.what} whose earlier answers are not here")
        if not kept:
            why = f"the server wants inputs of this {self.what} again that are not kept any more"
            raise self.loss("CHECKPOINT_GONE", why)

    def _cut(self, block: Block) -> list[Block]:
        self._most = self._most or self._rows_of_a_message()
        return block.cut(self._most)

    @abstractmethod
    def _rows_of_a_message(self) -> int:
        """The most rows that fit into one message. Raises BadInput: one row alone is larger than the server takes."""
