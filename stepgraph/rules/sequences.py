"""Lists of tensors: read as one tensor whose first axis counts the elements; and tensors that may be missing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepgraph.rules.axes import Axis, has_time, length, merged, plain, time_of
from stepgraph.rules.gathers import one_step
from stepgraph.rules.size import Size
from stepgraph.rules.table import Call, put, rearranged, rule, whole
from stepgraph.rules.value import Value, broadcast, joined, unknown

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
