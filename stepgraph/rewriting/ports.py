"""Inputs and outputs of a model, as one step of one sequence has them and as the original file has them. Pure numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stepgraph.file.precision import Precision
from stepgraph.file.window import Window
from tidegate.columns import NOTHING, Legend

_FAR = 1e6  # numbers of a range that goes beyond this are not tried all over it
_GAPS = 0.2  # so many of the numbers that may be missing are


def moved(x: np.ndarray, source: int, place: int) -> np.ndarray:
    """The array with one axis put elsewhere, both counted from the front. Takes a tenth of np.moveaxis."""
    order = list(range(x.ndim))
    order.insert(place, order.pop(source))
    return x.transpose(order)


@dataclass(frozen=True)
class Port:
    """An input or output of a model. `row` is its shape for one step of one sequence.

    `batch` is None where all sequences of a batch share one value. `time` is None where there is no time axis: an
    output that answers once for all steps so far, an input that is the same at every step, or a file that takes one
    step at a time. Where a step is a block of the time axis (K samples of audio), `block` is K and the block is part of
    `row`; else `block` is 0.
    """

    name: str
    dtype: np.dtype
    row: tuple[int, ...]
    batch: int | None
    time: int | None
    block: int = 0
    # what random values suit it
    below: tuple[int, ...] = ()  # by number of the row: it is whole and below this; 0: any, and 1 or 0 if it is whole
    positive: bool = False  # numbers are above zero: the file divides by them, or takes their logarithm
    legend: Legend = NOTHING  # what the file or model.toml says of its numbers
    start: tuple[float, ...] = ()  # of an input that is state: the numbers of its row in a new sequence; (): zeros
    # of an output
    early: int = 0  # so many of its first steps are left out, as others have no answer there
    unit: float = 0.0  # its numbers are rounded to whole multiples of this

    def shape(self, batch: int, time: int) -> tuple[int, ...]:
        """The tensor's shape for so many sequences of so many steps."""
        axes = list(self.row)
        inserted = [] if self.batch is None else [(self.batch, batch)]
        if self.time is not None and not self.block:
            inserted.append((self.time, time))
        for axis, size in sorted(inserted):
            axes.insert(axis, size)
        if self.time is not None and self.block:
            axes[self.time] *= time
        return tuple(axes)

    def original(self, x: np.ndarray) -> np.ndarray:
        """[T, B, ...row] in the original's own axes; what has no time axis is the same at every step."""
        steps = x[:, 0] if self.batch is None else moved(x, 1, 1 + self.step_batch)
        if self.time is None:
            return np.asarray(steps[-1])
        return moved(steps, 0, self.time).reshape(self.shape(x.shape[1], len(x)))

    def steps(self, y: np.ndarray) -> np.ndarray:
        """The steps [T, B, ...row] of a tensor in the original's own axes."""
        if self.time is None:
            y = y[np.newaxis]
        elif self.block:
            count = y.shape[self.time] // self.block
            y = np.take(y, range(count * self.block), self.time)
            y = y.reshape(*y.shape[: self.time], count, self.block, *y.shape[self.time + 1 :])
            y = moved(y, self.time, 0)
        else:
            y = moved(y, self.time, 0)
        y = y[self.early :] if self.early else y
        return y[:, np.newaxis] if self.batch is None else moved(y, 1 + self.step_batch, 1)

    def last(self, y: np.ndarray) -> np.ndarray:
        """The last step of a tensor in the original's own axes, [B, ...row]."""
        last: np.ndarray = self.steps(y)[-1]
        return last

    @property
    def begun(self) -> np.ndarray:
        """The row that a state has in a new sequence."""
        first = np.zeros(self.row, self.dtype)
        if self.start:
            first[...] = np.reshape(self.start, self.row)
        return first

    def fresh(self, batch: int) -> np.ndarray:
        """A state of so many new sequences in the original's own axes."""
        return self.original(np.full((1, batch, *self.row), self.begun))

    def sample(self, steps: int, batch: int, random: np.random.Generator) -> np.ndarray:
        """Random steps [T, B, ...row] that suit it."""
        shape = (steps, batch, *self.row)
        if self.dtype.kind == "f":
            single = self.dtype.type in (np.float32, np.float64)
            x = random.standard_normal(shape, self.dtype if single else np.float32).astype(self.dtype, copy=False)
            if self.positive:
                x = np.abs(x) + self.dtype.type(0.1)
        else:
            x = random.integers(int(self.positive), 2, shape).astype(self.dtype)
        if self.below:
            below = np.reshape(self.below, self.row)
            places = random.integers(int(self.positive), np.maximum(below, 1 + self.positive), shape)
            x = np.where(below > 0, places, x).astype(self.dtype)
        if self.legend.columns and self.dtype.kind == "f":
            self._as_said(x, random)
        if self.batch is None:
            x[:] = x[:, :1]
        return x

    def _as_said(self, x: np.ndarray, random: np.random.Generator) -> None:
        """Puts numbers of its range into columns that have one, and NaN where one may be missing."""
        columns = self.legend.columns
        rows = x.reshape(*x.shape[:2], -1, len(columns))  # a view: random numbers are contiguous
        for i, column in enumerate(columns):
            at = rows[..., i]
            if not column.categories and max(abs(column.lowest), abs(column.highest)) <= _FAR:
                at[...] = random.uniform(column.lowest, column.highest, at.shape)
            if column.missing:
                at[random.random(at.shape) < _GAPS] = np.nan

    @property
    def step_batch(self) -> int:
        """The batch axis of `row` with a batch axis: there is no time axis but that of a block."""
        assert self.batch is not None
        return self.batch - (self.time is not None and not self.block and self.time < self.batch)


@dataclass(frozen=True)
class Carried:
    """A state in the interface: what the output `returned` holds goes into the input `given` at the next step."""

    given: Port
    returned: Port


@dataclass(frozen=True, eq=False)
class LoopState:
    """A tensor that a `Loop` or `Scan` carries, or of which a node looks back at the last elements: a ring.

    It is an input and an output of the graph of one step. `start` is its value before the first step, in the shape of
    the port's row; `loop` is what a refusal calls the node, `tensor` what its body calls it.
    """

    carried: Carried
    start: np.ndarray
    loop: str
    tensor: str
    steps: int = 0  # of a ring: so many of them are in it


@dataclass(frozen=True)
class Pace:
    """How a cell runs within one step of the model.

    `inner`: how many time steps of its own it takes (an audio frame may be cut into several). `rows`: how many rows it
    has for each sequence (the bands of a spectrum, say). `streams`: whether it goes on from step to step by the file's
    own time axis; if not, its state is in the interface, or it begins anew. `computed`: which of its states the first
    step of a sequence computes. `lead`: it begins so many steps later, as the file drops their rows before.
    """

    inner: int = 1
    rows: int = 1
    streams: bool = True
    computed: frozenset[int] = frozenset()
    lead: int = 0


@dataclass(frozen=True, eq=False)
class Facts:
    """What was learnt from running a model.

    `inputs` and `outputs` are data and answers; `carried`, `starts` and `lengths` what else the interface holds.
    `initial[layer][state]` is the [rows * H] that a new sequence starts from, or None where the interface or a loop
    carries the state, or the step itself computes it. `alone`: why sequences cannot share a batch, or None if they can.
    `looped` are the states of loops, `rings` those of nodes that look back over steps. `holds` says of an input that is
    state which layers' states it holds, and which of them. `made_for` is the number of steps that the file's own axis
    of time is fixed to; 0: to none.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    carried: tuple[Carried, ...]
    starts: tuple[Port, ...]
    lengths: tuple[Port, ...]
    paces: tuple[Pace, ...]
    initial: tuple[tuple[np.ndarray | None, ...], ...]
    freed: str = ""  # which axes that the file fixes were freed
    left_out: tuple[str, ...] = ()  # outputs that clients are not sent
    untold: tuple[str, ...] = ()  # what the metadata says of inputs and outputs and is passed over, and why
    misread: str = ""  # what model.toml says of inputs or outputs and makes no sense; "" if all does
    alone: str | None = None
    looped: tuple[LoopState, ...] = ()
    rings: tuple[LoopState, ...] = ()
    holds: Mapping[str, frozenset[tuple[int, int]]] = field(default_factory=dict)
    window: Window | None = None
    weights: Precision | None = None  # the narrower type that they are kept in
    made_for: int = 0
    lead: int = 0  # so many steps at the beginning of a sequence have no answer: the file drops as many rows
    anew: tuple[str, ...] = ()  # cells that run over the last steps within each step, as messages call their nodes
    drawn: tuple[Port, ...] = ()  # inputs that hold random numbers, which are drawn from the state
    once: frozenset[str] = frozenset()  # those of them that are the same at every step of a sequence, or of a window

    @property
    def one_step(self) -> bool:
        return all(port.time is None for port in self.inputs)

    @property
    def through(self) -> tuple[Carried, ...]:
        """All states that are inputs and outputs of the graph of one step."""
        return (*self.carried, *(state.carried for state in (*self.looped, *self.rings)))

    def sample(self, steps: int, batch: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        return {port.name: port.sample(steps, batch, random) for port in self.inputs}

    def feeds(self, data: Mapping[str, np.ndarray], batch: int, time: int) -> dict[str, np.ndarray]:
        """The feeds of the original for sequences that begin: steps [T, B, ...row], and what states begin with."""
        time = 1 if self.one_step else time
        fresh = (*(c.given for c in self.carried), *self.starts)
        return (
            {port.name: port.original(data[port.name]) for port in self.inputs}
            | {port.name: port.fresh(batch) for port in fresh}
            | {port.name: np.full(port.shape(batch, time), time, port.dtype) for port in self.lengths}
        )
