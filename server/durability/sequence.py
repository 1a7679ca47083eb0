"""A sequence that is open here: its id, owner, model and slot, and its life as a table of moves. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat
from math import inf
from secrets import token_hex
from typing import TYPE_CHECKING, Protocol

import numpy as np

from server.caller import Caller
from server.errors import IllegalMove, OverLimit, TidegateError
from server.watermarks import Standing

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel


class Life(StrEnum):
    """Where a sequence is in its life."""

    OPENING = "being resumed"  # claimed, and not on its stream yet
    OPEN = "open"  # takes steps
    BRANCHED = "resumed before later checkpoints"  # the store has to forget those before it takes a step
    ASLEEP = "asleep"  # open without a slot, because no step came for long
    BUSY = "being rewound or moved"
    CLOSING = "leaving its stream"  # its last steps are not through; its state is not in the store
    LEAVING = "leaving its stream as it is in the store"
    PARKED = "parked"  # on no stream; its checkpoint stays
    ENDED = "ended"  # by its client
    LOST = "lost"  # expired, evicted, or taken over by another server: the reason is kept beside


class Move(StrEnum):
    """What can happen to a sequence."""

    READY = "take steps"
    BRANCH = "be found before later checkpoints"
    SLEEP = "fall asleep"
    TURN = "go to another step or version"
    CLOSE = "leave its stream"
    FORGET = "be forgotten by the store"
    PARK = "be parked"
    END = "be ended"
    LOSE = "be lost"


_MOVES: dict[Life, dict[Move, Life]] = {
    Life.OPENING: {Move.READY: Life.OPEN, Move.BRANCH: Life.BRANCHED},
    Life.OPEN: {Move.SLEEP: Life.ASLEEP, Move.TURN: Life.BUSY, Move.CLOSE: Life.CLOSING, Move.LOSE: Life.LOST},
    Life.BRANCHED: {
        Move.READY: Life.OPEN,
        Move.SLEEP: Life.ASLEEP,
        Move.CLOSE: Life.LEAVING,
        Move.FORGET: Life.OPEN,
        Move.LOSE: Life.LOST,
    },
    Life.ASLEEP: {
        Move.READY: Life.OPEN,
        Move.BRANCH: Life.BRANCHED,
        Move.CLOSE: Life.LEAVING,
        Move.LOSE: Life.LOST,
    },
    Life.BUSY: {Move.READY: Life.OPEN, Move.LOSE: Life.LOST},
    Life.CLOSING: {Move.PARK: Life.PARKED, Move.END: Life.ENDED, Move.LOSE: Life.LOST},
    Life.LEAVING: {Move.PARK: Life.PARKED, Move.END: Life.ENDED, Move.FORGET: Life.CLOSING, Move.LOSE: Life.LOST},
    Life.PARKED: {},
    Life.ENDED: {},
    Life.LOST: {},
}
UNREADY = frozenset({Life.ASLEEP, Life.BRANCHED})  # the store is asked before it takes a step


def after(life: Life, move: Move) -> Life:
    """Where a move leads.

    Raises:
        IllegalMove: it is not possible; the sentence says what is.
    """
    moves = _MOVES[life]
    if move not in moves:
        possible = ", ".join(moves) or "nothing any more"
        raise IllegalMove(f"a sequence that is {life} cannot {move}; it can {possible}")
    return moves[move]


CHOSEN = "oip-"  # begins the ids of sequences that are called by names of their clients
_NAMED = re.compile(f"{CHOSEN}[0-9a-f]{{32}}-")  # earlier releases let clients begin their own ids with "oip-", too
_UNSAYABLE = "\ud800"  # half a surrogate, which no message can hold
_FIT = re.compile("[0-9a-z]{1,32}")
_LONGEST = 128  # bytes of UTF-8 that an owner's name or an id may have; ours are much shorter


def new_ids(count: int, route: str) -> tuple[str, ...]:
    """Sequence ids that begin with a route, unique across servers and restarts. They say nothing of other sequences."""
    run = token_hex(8)
    return tuple(f"{route}-{run}-{number}" for number in range(count))


def fit_route(given: str) -> str:
    """The route that a client gave, if ids can begin with it; else one of our own making."""
    return given if _FIT.fullmatch(given) and f"{given}-" != CHOSEN else token_hex(4)


def check_name(what: str, name: str) -> None:
    """Whether an owner or an id may be called so: it is kept with each sequence. Raises OverLimit."""
    size = len(name.encode())
    if size > _LONGEST:
        raise OverLimit(f"{what} '{name:.40}...' has {size} bytes; {_LONGEST} is the limit")


def digest_of(resume_token: str, token: str = "") -> bytes:
    """What is kept of a resume token, which itself is known to the client alone.

    It is bound to the name of the `token` that the sequence was opened with: to all others it is a wrong one. A zero
    byte parts the two, so those that a client has put into the resume token are doubled: no name can be forged there.
    """
    shown = resume_token.replace("\0", "\0\0")
    bound = f"{shown}\0{token}" if token else shown
    return hashlib.sha256(bound.encode(errors="surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Identity:
    """Of a sequence that is called by a name which its client chose, and may choose again once it has ended.

    `fence` is above every one that a sequence under this id has had.
    """

    id: str
    token: str
    fence: int

    @classmethod
    def of(cls, digest: str, told: str, fence: int) -> Identity:
        """From the digest of account, model and name, and that name as logs tell it. Only the server resumes it."""
        return cls(f"{CHOSEN}{digest[:32]}-{told}", f"{_UNSAYABLE}{digest}", fence)


def may_ask_for(id_: str, token: str) -> bool:
    """Whether a sequence of this id is looked for with a resume token.

    Who knows an account and a name can work out the id of a sequence that its client has named; so a message that asks
    for one learns nothing, not even whether it is there.
    """
    return not _NAMED.match(id_) or token.startswith(_UNSAYABLE)


class Holder(Protocol):
    """The stream on which a sequence is open."""

    def tell(self) -> None:
        """Checkpoints have moved on; clients of idle sequences have no answer that would carry it."""

    def take_away(self, sequences: Sequence[ServedSequence], error: TidegateError) -> None:
        """These sequences are not here any more; the error says why."""

    def let_sleep(self, sequence: ServedSequence) -> bool:
        """Whether an idle sequence may give up its slot now, and stay open: nothing of it is under way."""


@dataclass(slots=True, eq=False)
class ServedSequence:
    """What is known of a sequence beside its state. `slot` is -1 while it is asleep, or on no stream.

    `Registry` changes it; `holder` and `handle` are its stream's.
    """

    id: str
    digest: bytes  # SHA-256 of its resume token
    owner: str
    model: ServedModel
    slot: int
    fence: int = 1
    stored: bool = False  # whether the store knows it
    life: Life = Life.OPEN
    holder: Holder | None = None
    handle: int = -1  # under which its holder has it
    steps: int = 0  # how many it had taken when it came here, or fell asleep
    standing: Standing | None = None  # what its client may count on, while it sleeps
    new: bool = False  # opened here, and not in the store yet
    resumed: bool = False  # it was opened before it came here
    held: float = -inf  # when the store was last told whether it is awake, in seconds of a monotonic clock
    origin: np.ndarray | None = None  # the state [W] that a new one came with; None: the model's initial one
    began: float = 0.0  # when it came here, by the same clock
    trace: str = ""  # the client's `traceparent`

    @property
    def place(self) -> tuple[str, int]:
        """The name and version of its model."""
        return self.model.name, self.model.version

    @property
    def taken(self) -> int:
        """How many steps it has taken in all."""
        return self.model.slots.done.item(self.slot) if self.slot >= 0 else self.steps

    def move(self, move: Move) -> None:
        """Goes on in its life. Raises IllegalMove."""
        self.life = after(self.life, move)


@dataclass(slots=True, eq=False)
class Cohort:
    """New sequences that are opened together, and resumed together."""

    model: ServedModel
    caller: Caller
    route: str  # begins their ids
    step: int = 0  # after which they begin
    # the state that they begin from, [W] or a row for each of the next ones; None: the model's initial one
    origin: np.ndarray | None = None
    seed: int | None = None  # the first one's, where they draw random numbers
    token: str = ""  # resumes them; empty before the first is there, or if nothing does
    identity: Identity | None = None  # of the only one, if it was chosen

    def sequences(self, slots: np.ndarray, digest: bytes = b"") -> list[ServedSequence]:
        """More of them, in these slots."""
        chosen = self.identity
        ids, fence = (new_ids(len(slots), self.route), 1) if chosen is None else ((chosen.id,), chosen.fence)
        owner, trace = self.caller.owner, self.caller.trace
        places = zip(ids, slots.tolist(), strict=True)
        one = self.origin is None or self.origin.ndim == 1
        origins = repeat(self.origin) if one else iter(self.origin)  # type: ignore[arg-type] # it is rows
        return [
            ServedSequence(
                id_, digest, owner, self.model, slot, fence, steps=self.step, new=True, origin=origin, trace=trace
            )
            for (id_, slot), origin in zip(places, origins, strict=False)
        ]
