"""The rules by operator, and what a rule is given. A family of rules is a file beside this one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from stepgraph.cells import causal_conv, linear_attention
from stepgraph.graphs.nodes import attributes
from stepgraph.rules.axes import Axes, Axis, has_rows, has_time
from stepgraph.rules.size import Size
from stepgraph.rules.value import Value, mixes, mixes_rows, unknown, varying

Within = Callable[[onnx.GraphProto, Mapping[str, Value], bool], Sequence[Value]]  # the bool: over steps


@dataclass(frozen=True, eq=False)
class Call:
    """A node and the values that go into it; None for each input that it is not given.

    `constant` gives the value of one of the file's constants; `within` applies the rules to a subgraph, `kept` are the
    states of loops that are carried from step to step, by the loop and what its body calls them.
    """

    node: onnx.NodeProto
    inputs: Sequence[Value | None]
    opset: int
    constant: Callable[[str], np.ndarray | None] = lambda _: None
    within: Within | None = None
    kept: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", attributes(self.node))

    attributes: Mapping[str, Any] = field(init=False)

    def value(self, index: int = 0) -> Value:
        value = self.given(index)
        if value is None:
            raise unknown(f"has no input {index}")
        return value

    def given(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def all(self) -> list[Value]:
        return [value for value in self.inputs if value is not None]

    def number(self, index: int) -> np.ndarray | None:
        """What an input holds, if it is known: an array of numbers and sizes."""
        value = self.given(index)
        if value is None or value.live:
            return None
        if value.number is None:
            return self.constant(value.name) if value.name else None
        shape = [n for n in value.shape if not isinstance(n, Size)]
        if len(shape) < len(value.shape):
            return value.number if value.number.shape == value.shape else None
        return value.number if value.number.shape == tuple(shape) else np.broadcast_to(value.number, shape)

    def numbers(self, name: str, index: int) -> list[Any] | None:
        """A list that is an attribute in some versions of an operator and an input in others; None if not given.

        Raises:
            Found: it depends on the data.
        """
        if name in self.attributes:
            found = self.attributes[name]
            return list(found) if isinstance(found, Sequence | np.ndarray) else [found]
        if self.given(index) is None:
            return None
        number = self.number(index)
        if number is None:
            raise unknown(f"is given {name} that cannot be told from the file")
        return list(np.ravel(number))

    def axis(self, default: int = 0, rank: int | None = None) -> int:
        rank = len(self.value().axes) if rank is None else rank
        axis = int(self.attributes.get("axis", default))
        return axis + rank if axis < 0 else axis

    def axes(self, index: int = 1, name: str = "axes") -> list[int] | None:
        rank = len(self.value().axes)
        found = self.numbers(name, index)
        return None if found is None else sorted(int(axis) % rank for axis in found)


Rule = Callable[[Call], Value | Sequence[Value]]


@dataclass(frozen=True)
class Entry:
    """A rule, what it says in the table of the docs, whether it takes lists of tensors, and its operator's domain."""

    rule: Rule
    says: str
    lists: bool = False
    domain: str = ""


RULES: dict[str, Entry] = {}

LOCAL = "local in time"
OWN = "com.microsoft"  # onnxruntime's own operators
_ALSO_OWN = (  # those that do what the standard's of that name do, where they have no other attributes
    *("DequantizeLinear", "GatherND", "Gelu", "GridSample", "Pad", "QLinearConv", "QuantizeLinear", "Range", "SwiGLU"),
    *("Trilu", "Unique"),
    *(operator.name for cell in (causal_conv, linear_attention) for operator in cell.OPERATORS),
)


def entry_of(node: onnx.NodeProto) -> Entry | None:
    entry, domain = RULES.get(node.op_type), "" if node.domain == "ai.onnx" else node.domain
    if entry is None or entry.domain == domain:
        return entry
    alike = domain == OWN and node.op_type in _ALSO_OWN
    return entry if alike and attributes(node).keys() <= onnx.defs.get_schema(node.op_type).attributes.keys() else None


def rule(*operators: str, says: str = LOCAL, lists: bool = False, domain: str = "") -> Callable[[Rule], Rule]:
    """Puts a rule into the table for operators whose names stand in a text, with spaces between them."""

    def add(function: Rule) -> Rule:
        RULES.update({name: Entry(function, says, lists, domain) for some in operators for name in some.split()})
        return function

    return add


def over(value: Value, axes: Sequence[int], verb: str) -> None:
    """Refuses what computes over steps or rows: `verb` goes on with "over all steps"."""
    if not value.live:
        return
    if any(has_time(value.axes[axis]) for axis in axes):
        raise mixes(f"{verb} over all steps")
    if any(has_rows(value.axes[axis]) for axis in axes):
        raise mixes_rows(f"{verb} over the sequences of a batch")


def rearranged(value: Value, axes: Axes) -> Value:
    """The same elements at other places: a state stays one, and so does a number that all of them are."""
    number = value.number if value.number is not None and value.number.ndim == 0 else None
    varies = varying(value) if number is None and not value.live else value.varies
    return replace(value, axes=axes, varies=varies, number=number, name="")


def put(axes: Axes, place: int, axis: Axis) -> Axes:
    return (*axes[:place], axis, *axes[place + 1 :])


def whole(axis: Axis) -> int | None:
    """The length of an axis that has neither steps nor rows."""
    if not axis:
        return 1
    return axis[0] if len(axis) == 1 and isinstance(axis[0], int) else None
