"""What an open sequence or fleet tells about itself: the same words in both clients."""

from abc import ABC
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidegate.protocol.fleet_books import FleetBooks
from tidegate.protocol.sequence_books import SequenceBooks

L = TypeVar("L", SequenceBooks, FleetBooks)


class Facts(ABC, Generic[L]):
    """What sequences and fleets have in common."""

    _books: L

    @property
    def model(self) -> str:
        """The model's name."""
        return self._books.opening.model

    @property
    def version(self) -> int:
        """The version of the model that it runs on, to its end or until it is moved."""
        return self._books.version

    @property
    def resume_token(self) -> str:
        """The secret that, with an id, lets a client continue after a loss; "" if the server keeps no checkpoints."""
        return self._books.opening.token


class SequenceFacts(Facts[SequenceBooks]):
    """What a sequence tells."""

    @property
    def id(self) -> str:
        """The server's name for it, unique across servers and restarts; "" if the server gave none."""
        return next(iter(self._books.opening.ids), "")

    @property
    def next_step(self) -> int:
        """The number that the next step will have."""
        return self._books.next_step

    @property
    def answered(self) -> int:
        """How many steps are answered: the number of the first step without an answer."""
        return self._books.answered

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id or '?'} of {self.model} {self.version}, step {self.next_step} next>"

    def kept(self) -> tuple[int, dict[str, NDArray[Any]]]:
        """The inputs that a server may want again: the first step of them, and [K, ...row] by name.

        They begin at the last checkpoint but one, or where the sequence moved to a version with other inputs, and end
        with the last step that was sent. With `id`, `resume_token` and `answered` they are all that another process
        needs to go on; see `Client.resume`. For how long they do, once more steps are taken, is for `hold` to say.
        """
        return self._books.kept()

    def hold(self, answered: int) -> None:
        """Says that the caller has put so many answers in a safe place, and may have to go on from there.

        The server then keeps what that takes, until it is called with more. Without it, every answer is taken to be
        safe as soon as it is here, and what was `kept` a while ago may not suffice any more.
        """
        self._books.held = answered


class FleetFacts(Facts[FleetBooks]):
    """What a fleet tells."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The server's names for the members, in their order."""
        return self._books.opening.ids

    @property
    def next_steps(self) -> NDArray[np.uint64]:
        """The number that the next step of each member will have, [members]."""
        return self._books.next_steps.copy()

    @property
    def answered(self) -> NDArray[np.uint64]:
        """How many steps of each member are answered, [members]."""
        return self._books.answered.copy()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} sequences of {self.model} {self.version}>"

    def __len__(self) -> int:
        return self._books.count
