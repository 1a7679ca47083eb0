"""What is known of a tensor: its axes, whether it depends on the data, and on which steps and rows of them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import numpy as np

from stepgraph.rules.axes import ROWS, Axes, Axis, Time, has_time, length, time_of, with_time
from stepgraph.rules.size import ITERATION, STEPS, Size

COUNTED = "depends on the number of the step"
NO_RULE = "has no rule"


@dataclass(frozen=True)
class Finding:
    """What a node does that one step of one sequence cannot, or that no rule tells; `words` go on from the node's name.

    `advice`: what to do about it, if more can be said than of any such node.
    "mixes": other steps; "rows": other sequences; "random": equal sequences differ; "unknown": it may do any of these.
    """

    kind: Literal["mixes", "rows", "random", "unknown"]
    node: str  # its name, or its first output's
    label: str
    words: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.label} {self.words}"


class Found(Exception):  # no error: what a rule has found
    """Raised by a rule: what its node does, as `Finding` has it."""

    def __init__(self, kind: Literal["mixes", "rows", "random", "unknown"], words: str, advice: str = "") -> None:
        super().__init__(words)
        self.kind: Literal["mixes", "rows", "random", "unknown"] = kind
        self.words, self.advice = words, advice


def mixes(words: str, advice: str = "") -> Found:
    return Found("mixes", words, advice)


def mixes_rows(words: str) -> Found:
    return Found("rows", words)


def random() -> Found:
    return Found("random", "draws random numbers: equal sequences get different answers")


def unknown(words: str) -> Found:
    return Found("unknown", words)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor. What is `live` depends on the data; else it is the same for all, or `varies` says how it is not.

    An element of step t depends on the steps from t - `back` to t + `ahead` of the data, and on its own row alone. What
    has no axis of time is of the last step if `last`, of the step that a loop is at within its body, else of none.
    `number` is what it holds where that is known and small: as an array, or one number for all elements.
    `ramp`: it holds whole numbers that count along its axis of time, or of sequences, from these on (of length 1 along
    that axis).
    It `repeats` if what stands before the first step is the first element of that step again. Its elements along time
    are those of the tensor `origin`, perhaps fewer or at other places; it is the `first` of them, held at every step.
    `given` and `ends` are states of the interface: it is what such a state was, or what it becomes.
    """

    axes: Axes
    live: bool = False
    back: float = 0
    ahead: float = 0
    last: bool = False
    varies: str = ""
    number: np.ndarray | None = None
    ramp: np.ndarray | None = None
    repeats: bool = False
    origin: str = ""
    first: bool = False
    given: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()
    reaching: Finding | None = None  # the node because of which it reaches further than its own step
    finding: Finding | None = None  # then nothing else here counts
    listed: bool = False  # a list of tensors: the first axis counts its elements
    name: str = ""  # of a constant tensor of the file, whose value can be asked for

    @property
    def shape(self) -> tuple[Size | int, ...]:
        return tuple(length(axis) for axis in self.axes)

    @property
    def timed(self) -> bool:
        return any(map(has_time, self.axes))

    @property
    def far(self) -> bool:
        return bool(self.back or self.ahead)

    def settled(self) -> "Value":
        """The same with its elements counted from the first step on, where there are as many as steps."""
        time = time_of(self.axes)
        if not self.live or time is None or time.extra or not time.shift:
            return self
        back, ahead = moved(self, Time(time.rate))
        return replace(self, axes=with_time(self.axes, Time(time.rate)), back=back, ahead=ahead)


def in_order(value: Value) -> bool:
    """Whether it holds the places of all sequences of a batch, in their order."""
    return value.axes == ((ROWS,),) and value.ramp is not None and value.ramp.tolist() == [0]


def nothing(finding: Finding) -> Value:
    return Value((), live=True, finding=finding)


def moved(value: Value, to: Time) -> tuple[float, float]:
    """How far back and ahead a value reaches once its elements are counted as `to` counts them."""
    own = time_of(value.axes)
    if own is None:
        return value.back, value.ahead
    apart = own.shift - to.shift
    return value.back - apart // to.rate, value.ahead - (-apart // to.rate)


def holds_size(number: np.ndarray | None) -> str:
    """What sizes are among the numbers of a tensor, as `Value.varies` has it; "" if none are."""
    if number is None or number.dtype != object:
        return ""
    sizes = [each for each in number.flat if isinstance(each, Size)]
    if any(each.holds(STEPS) for each in sizes):
        return "depends on how many steps there are"
    if ITERATION in sizes:
        return COUNTED
    return "depends on how many sequences there are" if sizes else ""


def joined(values: Iterable[Value], axes: Axes) -> Value:
    """What is computed from elements of these values that stand at the same place of `axes`, of which each has some.

    Raises:
        Found: steps or rows are mixed by that.
    """
    parts = list(values)
    live = [value for value in parts if value.live]
    if not live:
        return Value(axes, varies=next((v for part in parts if (v := varying(part))), ""))
    for varies in filter(None, (varying(part) for part in parts if not part.live)):
        raise unknown(varies)  # it may be an index that leads back to the same step or row
    if any(value.given for value in live):
        raise unknown("computes with a state of the interface outside of the cells")
    factors = [factor for axis in axes for factor in axis]
    times = [factor for factor in factors if isinstance(factor, Time)]
    if len(times) > 1:
        raise mixes("relates every step to every other step")
    if factors.count(ROWS) > 1:
        raise mixes_rows("relates sequences of a batch to one another")
    last = any(value.last for value in live)
    if last and times:
        first = any(value.back == inf for value in live)
        raise mixes(f"uses the value of the {'first' if first else 'last'} step at every step")
    if len({value.back == inf for value in live if value.last}) > 1:
        raise mixes("relates the first step of a sequence to its last")
    reaches = [moved(value, times[0]) if times else (value.back, value.ahead) for value in live]
    back, ahead = max(0, *(b for b, _ in reaches)), max(0, *(a for _, a in reaches))
    reaching = next((value.reaching for value in live if value.reaching), None)
    return Value(axes, True, back, ahead, last, reaching=reaching)


def varying(value: Value) -> str:
    return value.varies or holds_size(value.number)


def broadcast(values: Sequence[Value]) -> Axes:
    """The axes of what is computed element by element.

    Raises:
        Found: it cannot be told for every number of steps.
    """
    if len(values) == 1:
        return values[0].axes
    rank = max(len(value.axes) for value in values)
    return tuple(_together(values, i - rank) for i in range(rank))


def _together(values: Sequence[Value], place: int) -> Axis:
    present = [value for value in values if len(value.axes) >= -place and value.axes[place]]
    live = [value.axes[place] for value in present if value.live]
    axes = live or [value.axes[place] for value in present]
    if not axes:
        return ()
    others = [value.axes[place] for value in present if value.axes[place] != axes[0]]
    if any(length(axis) != length(axes[0]) for axis in others):
        raise unknown("combines axes whose lengths agree for some numbers of steps or sequences only")
    kinds = {tuple(type(factor) for factor in axis) for axis in live}
    if len(kinds) > 1:
        raise unknown("combines axes whose steps and sequences are in another order")
    shifts = {time.shift for axis in live for time in [time_of([axis])] if time}
    if len(shifts) > 1:
        time = time_of([axes[0]])
        assert time is not None
        return with_time([axes[0]], replace(time, shift=max(shifts)))[0]  # where the last of them has come
    return axes[0]


def steps(count: float) -> str:
    return f"{int(count)} step{'' if count == 1 else 's'}"
