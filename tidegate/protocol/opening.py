"""The opening of sequences: what a client asks for, and what the server opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import index
from secrets import randbits
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import TraceLayout
from tidegate.errors import ProtocolError
from tidegate.inputs import InputLayout
from tidegate.messages import read_layout
from tidegate.protocol.route import new_route, route_of
from tidegate.state import State
from tidegate.trace import Trace
from tidegate.v1 import sequence_pb2 as pb

_USUAL_LIMIT = 4 * 2**20  # of a message, where a server does not say: gRPC's own
_MOST_HANDLES = 2**32  # a handle is a uint32


def new_seed() -> int:
    return randbits(64)


@dataclass(frozen=True, slots=True)
class Order:
    """What to open: `count` sequences of a model (version 0: the newest), and what their traces show.

    They begin from `state`, or at step 0. `owner` is a label for the server's limits. `seed` is what a model that draws
    random numbers draws them from; it is the same if they have to be opened anew.
    """

    model: str
    version: int
    count: int
    trace: Trace
    state: State | None = None
    owner: str = ""
    seed: int = field(default_factory=new_seed)

    def __post_init__(self) -> None:
        if not 0 <= whole("seed", self.seed) < 2**64:
            raise ValueError(f"seed={self.seed}: it is from 0 to 2**64 - 1")
        _check_text("model", self.model)
        _check_text("owner", self.owner)
        if not isinstance(self.state, State | None):
            raise TypeError(f"state={self.state!r}: a tidegate.State is wanted, as a sequence's state() gives it")
        if not 0 < whole("count", self.count) < _MOST_HANDLES:
            few = self.count < 1
            raise ValueError(f"a fleet of {self.count}: it {'needs at least one member' if few else 'is too large'}")
        if not 0 <= whole("version", self.version) < 2**64:
            raise ValueError(f"version {self.version}: versions are numbered from 1, and 0 is the newest")

    def route(self) -> str:
        return new_route()

    def request(self, handle: int) -> pb.StreamRequest:
        opening = pb.Open(
            handle=handle,
            count=self.count,
            model=self.model,
            version=self.version,
            trace=self.trace.message(),
            bundle=True,
            announce=True,
            state=None if self.state is None else self.state.message(),
            owner=self.owner,
            seed=self.seed,
        )
        return pb.StreamRequest(open=opening)


@dataclass(frozen=True, slots=True)
class Claim:
    """Sequences that were opened before, to be continued: `answered` says how many answers of each there are."""

    ids: tuple[str, ...]
    token: str
    answered: Sequence[int] | NDArray[np.uint64]
    trace: Trace

    def __post_init__(self) -> None:
        for id_ in self.ids:
            _check_text("sequence_id", id_)
        _check_text("token", self.token)
        for step in self.answered:
            if not 0 <= whole("answered", step) < 2**64:
                raise ValueError(f"answered={step}: it is the number of answers that there are, 0 or more")

    @property
    def count(self) -> int:
        return len(self.ids)

    def route(self) -> str:
        return route_of(self.ids[0])

    def request(self, handle: int) -> pb.StreamRequest:
        resume = pb.Resume(
            handle=handle,
            sequence_ids=self.ids,
            resume_token=self.token,
            answered=self.answered,
            trace=self.trace.message(),
            bundle=True,
            announce=True,
        )
        return pb.StreamRequest(resume=resume)


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """What was opened: its handles, and what is needed to write its inputs, to read its answers and to resume it.

    `order` asks for the same again, in the version that it got. `next_steps` [count] is the first step of each.
    An empty `token`: the server keeps no checkpoints.
    """

    handle: int
    count: int
    ids: tuple[str, ...]
    model: str
    version: int
    inputs: InputLayout
    layout: TraceLayout
    order: Order | Claim
    next_steps: NDArray[np.uint64]
    token: str = ""
    max_message_bytes: int = _USUAL_LIMIT

    @classmethod
    def read(cls, order: Order | Claim, opened: pb.Opened, inputs: InputLayout) -> "Opening":
        again = replace(order, version=opened.version) if isinstance(order, Order) else order
        layout = TraceLayout({}, order.trace.every)
        steps = np.zeros(order.count, np.uint64)
        new = cls(opened.handle, order.count, (), opened.model, opened.version, inputs, layout, again, steps)
        return new.renewed(opened)

    def renewed(self, opened: pb.Opened) -> "Opening":
        """The same sequences on another stream, as the server describes them there. Raises ProtocolError."""
        return replace(
            self,
            ids=tuple(opened.sequence_ids) or self.ids,
            version=opened.version,
            layout=read_layout(opened.trace, self.layout.every),
            next_steps=_next_steps(opened, self.count),
            token=opened.resume_token or self.token,
            max_message_bytes=opened.max_message_bytes or _USUAL_LIMIT,
        )

    def moved(self, moved: pb.Moved) -> "Opening":
        return replace(self, version=moved.version, layout=read_layout(moved.trace, self.layout.every))

    def claim(self, answered: Sequence[int] | NDArray[np.uint64]) -> Claim:
        return Claim(self.ids, self.token, answered, self.order.trace)


def whole(name: str, value: int) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: a whole number is wanted") from None


def _check_text(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: a str is wanted")


def _next_steps(opened: pb.Opened, count: int) -> NDArray[np.uint64]:
    steps: Any = opened.next_steps
    if len(steps) not in (0, count):
        raise ProtocolError(f"the server opened {count} sequences and told the next step of {len(steps)}")
    return np.array(steps, np.uint64) if len(steps) else np.zeros(count, np.uint64)
