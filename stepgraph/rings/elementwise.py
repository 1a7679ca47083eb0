"""What computes from elements at the same places, or is told sizes, in one step."""

from collections.abc import Sequence

from stepgraph.rewriting.rings import Form
from stepgraph.rings.span import place_of, span
from stepgraph.rules.axes import Axis, time_of
from stepgraph.rules.size import Size
from stepgraph.rules.table import Call
from stepgraph.rules.value import Value, unknown

_SHAPED = frozenset({"Reshape", "Expand", "ConstantOfShape"})  # they are told the sizes of what they make
_SIZED = frozenset({"CenterCropPad", "Loop", "Resize", "Scan", "Size", "Upsample"})  # so are they, or need all steps


def beside(call: Call, results: Sequence[Value]) -> Form | None:
    """What computes from elements at the same places of several tensors, or of one."""
    target = time_of(results[0].settled().axes) if results else None
    timed = [(i, time) for i, value in enumerate(call.inputs) if value and (time := time_of(value.axes))]
    if target is None or len(timed) < 2 or any(time.rate != target.rate for _, time in timed):
        return _sized(call, results)
    spans = []
    for i, time in timed:
        value, place = call.value(i), place_of(call.value(i))
        if value.live and time.shift != target.shift and place is not None:
            first = time.shift - target.shift
            spans.append(span(call, i, place, first, first + time.rate - 1))
    return Form(tuple(spans)) if spans else None


def _sized(call: Call, results: Sequence[Value]) -> Form | None:
    """What is told sizes, as if there were one step, of a tensor that has more elements than its steps."""
    of, extra = call.node.op_type, [_extra(axis) for axis in (results[0].axes if results else ())]
    if of == "Shape" and (added := [_extra(axis) for axis in call.value().axes]):
        added = added[call.attributes.get("start", 0) : call.attributes.get("end", len(added))]
        return Form(more=tuple(added)) if any(added) else None
    if of in _SIZED and any(_extra(axis) for value in call.all for axis in value.axes):
        raise unknown("is told the size of an axis that has other elements than those of the steps")
    if of not in _SHAPED or not any(extra):
        return None
    told = list(call.numbers("shape", 0 if of == "ConstantOfShape" else 1) or [])
    if len(told) != len(extra):
        raise unknown("is given a shape that cannot be cut to one step")
    less = [0 if not isinstance(n, Size) and n in (0, -1, 1) else e for n, e in zip(told, extra, strict=True)]
    if of == "ConstantOfShape":
        raise unknown("makes an axis that has other elements than those of the steps")
    return Form(less=tuple(less)) if any(less) else None


def _extra(axis: Axis) -> int:
    """How many elements an axis has beyond those of the steps."""
    time = time_of([axis])
    if time and time.extra and len(axis) > 1:
        raise unknown("lays sequences out beside steps and what stands before them")
    return time.extra if time else 0
