"""Lists of tensors: read as one tensor whose first axis counts the elements; and tensors that may be missing.

And what loops collect: lists, or buffers with a place for each iteration.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from stepgraph.graphs.nodes import attributes, captured
from stepgraph.rules.axes import Axis, has_time, length, merged, plain, time_of
from stepgraph.rules.gathers import one_step
from stepgraph.rules.size import Size
from stepgraph.rules.table import Call, put, rearranged, rule, whole
from stepgraph.rules.value import Value, broadcast, joined, unknown

_REARRANGING = ("Identity", "Transpose")
EMPTY: Axis = (0,)
_UNTOLD = "takes an element of a list whose place cannot be told from the file"


def listed(stacked: Value) -> Value:
    """The list whose elements stand side by side along the first axis."""
    return replace(rearranged(stacked, stacked.axes), listed=True)


@rule("SequenceEmpty", says="constant: a list without elements")
def empty(_: Call) -> Value:
    return listed(Value((EMPTY,)))


@rule("SequenceConstruct", says="local in time, as far as steps stay apart")
def constructed(call: Call) -> Value:
    return listed(_stacked(call.all))


def _stacked(elements: Sequence[Value]) -> Value:
    if any(each.shape != elements[0].shape for each in elements):
        raise unknown("makes a list of tensors of several shapes")
    return joined(elements, (plain(len(elements)), *broadcast(elements)))


@rule(
    "SequenceInsert",
    says="local in time; a list that a loop over steps adds to has an element for each step",
    lists=True,
)
def inserted(call: Call) -> Value:
    given, element = call.value(0), call.value(1)
    place = [] if call.given(2) is None else [call.value(2)]
    if given.axes == (EMPTY,):
        return listed(_stacked([element]))
    count, own = whole(given.axes[0]), replace(given, axes=given.axes[1:])
    if count is None:
        raise unknown("adds to a list that has an element for each step or sequence")
    if own.shape != element.shape:
        raise unknown("makes a list of tensors of several shapes")
    return listed(joined([given, element, *place], (plain(count + 1), *broadcast([own, element]))))


@rule("SequenceErase", says="local where the list is of features", lists=True)
def erased(call: Call) -> Value:
    given, place = call.value(0), [] if call.given(1) is None else [call.value(1)]
    count = whole(given.axes[0])
    if count is None or count < 1:
        raise unknown("takes away an element of a list that has one for each step or sequence")
    if count == 1:
        return listed(Value((EMPTY,)))
    return listed(joined([given, *place], put(given.axes, 0, plain(count - 1))))


@rule("SequenceLength", says="constant: depends on shapes alone", lists=True)
def counted(call: Call) -> Value:
    return Value((), number=np.array(length(call.value().axes[0]), object))


@rule("SequenceAt", says="reach n along time, local elsewhere", lists=True)
def element(call: Call) -> Value:
    given, place = call.value(0), call.value(1)
    picked, stacked = call.number(1), replace(given, listed=False, number=None)
    if given.axes == (EMPTY,):
        raise unknown("takes an element of an empty list")
    if whole(given.axes[0]) is not None:
        fixed = picked is not None and not isinstance(picked.item(), Size)
        return rearranged(stacked, given.axes[1:]) if fixed else joined([stacked, place], given.axes[1:])
    if picked is None or not given.live or not has_time(given.axes[0]):
        raise unknown(_UNTOLD)
    return one_step(stacked, 0, picked.item(), ())


@rule("SplitToSequence", says="local in time: a list that has an element for each step, or for each place of features")
def split(call: Call) -> Value:
    x, place, parts = call.value(), call.axis(0), call.numbers("split", 1)
    axis, rest = x.axes[place], (*x.axes[:place], *x.axes[place + 1 :])
    time = time_of([axis])
    if time and (time.shift or time.extra):
        raise unknown("makes a list of an axis that has other elements than those of the steps")
    if parts is None or (parts == [1] and not call.value(1).axes):  # onnxruntime heeds `keepdims` here, too
        keep = bool(call.attributes.get("keepdims", 1))
        return listed(replace(x, axes=(axis, *(put(x.axes, place, ()) if keep else rest))))
    sizes = _sizes(call, parts, whole(axis))
    if len(set(sizes)) > 1:
        raise unknown("splits into parts of several lengths")
    return listed(joined([x], (plain(len(sizes)), *put(x.axes, place, plain(sizes[0])))))


def _sizes(call: Call, parts: Sequence[object], count: int | None) -> list[int]:
    """The lengths of the parts: given one by one, or one for all of them."""
    if count is None or not all(isinstance(part, int | np.integer) for part in parts):
        raise unknown("splits an axis of steps or sequences")
    sizes = [int(part) for part in parts if isinstance(part, int | np.integer)]
    if call.value(1).axes:
        return sizes
    if not call.attributes.get("keepdims", 1):
        raise unknown("takes away an axis of the parts that it splits into")
    whole_parts, rest = divmod(count, sizes[0])
    return [sizes[0]] * whole_parts + [rest] * bool(rest)


@rule("ConcatFromSequence", says="local in time: puts the axis back along which a list has its elements", lists=True)
def joint(call: Call) -> Value:
    given = replace(call.value(), listed=False)
    if given.axes == (EMPTY,):
        raise unknown("joins an empty list")
    each, axes, new = given.axes[0], given.axes[1:], call.attributes.get("new_axis", 0)
    place = call.axis(rank=len(axes) + bool(new))
    if new:
        return rearranged(given, (*axes[:place], each, *axes[place:]))
    return rearranged(given, put(axes, place, merged((*each, *axes[place]))))


@rule("Optional", says="local in time; unknown where the value may be missing", lists=True)
def optional(call: Call) -> Value:
    return call.value()


@rule("OptionalGetElement", says="local in time", lists=True)
def got(call: Call) -> Value:
    return call.value()


@rule("OptionalHasElement", says="constant: what the file gives it is there", lists=True)
def has(call: Call) -> Value:
    return Value((), number=np.array(call.given(0) is not None, object))


# what loops collect


@dataclass(frozen=True)
class Buffer:
    """`written` is what an iteration writes, [1, ...], at the place `index`; `order` are the buffer's axes of it."""

    written: str
    index: str
    order: tuple[int, ...]

    @property
    def place(self) -> int:
        """The buffer's axis of iterations."""
        return self.order.index(0)


def buffer_of(body: onnx.GraphProto, given: str, returned: str, rank: int) -> Buffer | None:
    """The buffer that a body calls so; None if it does anything else with it than to write to it once."""
    makers = {name: node for node in body.node for name in node.output}
    after, name = _rearranged(makers, returned, rank)
    node = makers.get(name)
    if node is None or node.op_type != "ScatterND" or attributes(node).get("reduction", b"none") != b"none":
        return None
    before, name = _rearranged(makers, node.input[0], rank)
    if name != given or [before[i] for i in after] != list(range(rank)):
        return None
    if _uses(body, given) > 1 or _uses(body, node.output[0]) > 1:
        return None
    return Buffer(node.input[2], node.input[1], tuple(after))


def _rearranged(makers: dict[str, onnx.NodeProto], name: str, rank: int) -> tuple[list[int], str]:
    """Of which tensor a name holds the same numbers, and the axes of that in their order here."""
    order = list(range(rank))
    while name in makers and makers[name].op_type in _REARRANGING:
        node = makers[name]
        if node.op_type == "Transpose":
            perm = attributes(node).get("perm", list(range(rank))[::-1])
            order = [perm[i] for i in order]
        name = node.input[0]
    return order, name


def _uses(body: onnx.GraphProto, name: str) -> int:
    """How many nodes and outputs take a tensor or a rearranged copy of it."""
    names, count = {name}, 0
    for node in body.node:
        taken = names.intersection((*node.input, *captured(node)))
        if taken and node.op_type in _REARRANGING:
            names.update(node.output)
        else:
            count += bool(taken)
    return count + sum(output.name in names for output in body.output)


def appended(body: onnx.GraphProto, place: int, own: str, start: Value) -> str:
    """What each iteration adds to the end of a list that it carries from the start on."""
    name = source(body, body.output[place].name)
    node = next((node for node in body.node if name in node.output), None)
    if node is None or node.op_type != "SequenceInsert" or len(node.input) > 2 or start.axes != (EMPTY,):
        raise unknown("changes a list otherwise than by adding to the end of an empty one")
    if source(body, node.input[0]) != own:
        raise unknown("adds more to a list than one element in each iteration")
    return node.input[1]


def source(body: onnx.GraphProto, name: str) -> str:
    makers = {node.output[0]: node for node in body.node if node.op_type == "Identity"}
    while name in makers:
        name = makers[name].input[0]
    return name
