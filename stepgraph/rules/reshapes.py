"""Operators that arrange the same elements otherwise: other shapes, orders, repetitions, joined or split axes."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from stepgraph.rules.axes import Axes, Axis, Time, axis_of, has_rows, has_time, length, plain, regrouped, time_of
from stepgraph.rules.size import Size, quotient
from stepgraph.rules.table import Call, put, rearranged, rule, whole
from stepgraph.rules.value import Value, broadcast, joined, mixes, mixes_rows, steps, unknown

_SAYS = "local in time, as far as steps stay apart"


@rule("Reshape", says=_SAYS)
def reshape(call: Call) -> Value:
    x, wanted = call.value(), call.numbers("shape", 1) or []
    if not call.attributes.get("allowzero", 0):
        wanted = [x.shape[i] if type(n) is not bool and n == 0 else n for i, n in enumerate(wanted)]
    return _reshaped(x, _filled(x, wanted))


def _filled(x: Value, wanted: Sequence[Any]) -> list[Size | int]:
    """The lengths with that which is left to be computed."""
    if not any(not isinstance(n, Size) and n == -1 for n in wanted):
        return [n if isinstance(n, Size) else int(n) for n in wanted]
    rest = quotient(product(x.shape), product([n for n in wanted if isinstance(n, Size) or n != -1]))
    if rest is None:
        raise unknown("is given a shape that cannot be followed for every number of steps")
    return [n if isinstance(n, Size) else rest if n == -1 else int(n) for n in wanted]


def product(sizes: Sequence[Any]) -> Size | int:
    total: Size | int = 1
    for each in sizes:
        total = total * (each if isinstance(each, Size) else int(each))
    return total


def _reshaped(x: Value, wanted: Sequence[Size | int]) -> Value:
    axes = regrouped(x.axes, wanted)
    if axes is None and not x.live and not x.varies:
        axes = axes_of(wanted)
    if axes is None:
        raise unknown("lays steps, sequences and features out in a shape that cannot be followed")
    return rearranged(x, axes)


def axes_of(wanted: Sequence[Any]) -> Axes | None:
    axes = tuple(axis_of(n if isinstance(n, Size) else int(n)) for n in wanted)
    return None if None in axes else tuple(axis for axis in axes if axis is not None)


@rule("Flatten", says=_SAYS)
def flatten(call: Call) -> Value:
    x, axis = call.value(), call.axis(1)
    return _reshaped(x, [product(x.shape[:axis]), product(x.shape[axis:])])


@rule("Transpose", says=_SAYS)
def transpose(call: Call) -> Value:
    x = call.value()
    order = call.attributes.get("perm", range(len(x.axes))[::-1])
    return rearranged(x, tuple(x.axes[i] for i in order))


@rule("Squeeze", says=_SAYS)
def squeeze(call: Call) -> Value:
    x, gone = call.value(), call.axes()
    if gone is None:
        if any(has_time(axis) or has_rows(axis) for axis in x.axes):
            raise unknown("takes away an axis that has length 1 for some numbers of steps or sequences only")
        gone = [i for i, axis in enumerate(x.axes) if axis == ()]
    if any(x.axes[i] for i in gone):
        raise unknown("takes away an axis that has length 1 for some numbers of steps or sequences only")
    return rearranged(x, tuple(axis for i, axis in enumerate(x.axes) if i not in gone))


@rule("Unsqueeze", says=_SAYS)
def unsqueeze(call: Call) -> Value:
    x, added = call.value(), call.numbers("axes", 1) or []
    rank, axes = len(x.axes) + len(added), list(x.axes)
    for place in sorted(int(axis) % rank for axis in added):
        axes.insert(place, ())
    return rearranged(x, tuple(axes))


@rule("Expand", says=_SAYS)
def expand(call: Call) -> Value:
    wanted = axes_of(call.numbers("shape", 1) or [])
    if wanted is None:
        raise unknown("is given a shape that cannot be followed")
    x = call.value()
    to = Value(wanted)
    if not x.live or all(not axis or axis == own for axis, own in _right(wanted, x.axes)):
        return replace(rearranged(x, broadcast([x, to])), number=_single(x))
    return joined([x, to], broadcast([x, to]))


def _right(wanted: Axes, own: Axes) -> list[tuple[Axis, Axis]]:
    """The axes side by side from the right; what the one has more of is beside ()."""
    rank = max(len(wanted), len(own))
    a, b = (((),) * (rank - len(axes)) + axes for axes in (wanted, own))
    return list(zip(a, b, strict=True))


def _single(x: Value) -> Any:  # noqa: ANN401 # as `Value.number`
    """The number that all elements are, if they are."""
    return None if x.number is None or x.number.size != 1 else x.number.reshape(())


@rule("Tile", says=_SAYS)
def tile(call: Call) -> Value:
    x, counts = call.value(), call.numbers("repeats", 1) or []
    axes = list(x.axes)
    for i, count in enumerate(counts):
        if isinstance(count, Size) or count != 1:
            axes[i] = _repeated(x, axes[i], count)
    if x.given and tuple(axes) == x.axes:
        return rearranged(x, x.axes)
    return replace(joined([x], tuple(axes)), number=_single(x))


def _repeated(x: Value, axis: Axis, count: Size | int) -> Axis:
    if x.live and has_time(axis):
        raise mixes("repeats the sequence")
    if x.live and has_rows(axis):
        raise mixes_rows("repeats the sequences of a batch")
    found = axis_of(length(axis) * count)
    if found is None or (x.live and axis and has_time(found)):
        raise unknown("repeats its elements in an order that cannot be followed")
    return found


@rule("Concat", says="reach n along time, local elsewhere")
def concat(call: Call) -> Value:
    place, parts = call.axis(0), call.all
    if _repeats(parts, place):
        time = time_of(parts[1].axes)
        assert time is not None
        wide = (Time(time.rate, time.shift - 1, time.extra + 1),)
        axes = put(parts[1].axes, place, wide)
        return replace(parts[1], axes=axes, ahead=parts[1].ahead + 1, repeats=True, number=None, name="", origin="")
    _refuse_rolled(parts, place)
    joint, placed = _end_to_end(parts, place)
    beside = broadcast([replace(part, axes=put(part.axes, place, ())) for part in placed])
    axes = put(beside, place, joint)
    same = {(part.given, part.ends) for part in parts}
    if len(same) == 1 and parts[0].given:
        return rearranged(parts[0], axes)
    ends = parts[0].ends if len(same) == 1 else frozenset[str]()
    return replace(joined(placed, axes), ends=ends)


def _repeats(parts: Sequence[Value], place: int) -> bool:
    """Whether a sequence has its first step once more in front, as padding that repeats it."""
    if len(parts) != 2 or not parts[0].first or parts[0].axes[place] or parts[0].origin != parts[1].origin:
        return False
    time = time_of(parts[1].axes)
    return time is not None and parts[1].axes[place] == (time,) and (time.rate, time.shift) == (1, 0)


def _refuse_rolled(parts: Sequence[Value], place: int) -> None:
    """Refuses what has the end of a sequence before its beginning."""
    end, rest = parts[0], parts[-1]
    count = whole(end.axes[place])
    if len(parts) == 2 and end.last and rest.timed and end.origin == rest.origin != "" and count:
        pads = ", ".join(["0, 0"] * (len(rest.axes) - 1 - place) + [f"{count}, 0"])
        raise mixes(
            f"puts the last {steps(count)} of a sequence before its first, as torch.roll does",
            "Where what is put there is overwritten afterwards, put zeros there from the beginning: "
            f"`torch.nn.functional.pad(x, ({pads}))[{':, ' * place}:-{count}]` is served",
        )


def _end_to_end(parts: Sequence[Value], place: int) -> tuple[Axis, list[Value]]:
    """The joined axis, and the parts with their elements where they stand on it."""
    timed = [i for i, part in enumerate(parts) if has_time(part.axes[place])]
    if not timed:
        sizes = [whole(part.axes[place]) for part in parts]
        if any(n is None for n in sizes):
            raise mixes_rows("puts sequences of a batch after one another")
        return plain(sum(n for n in sizes if n is not None)), list(parts)
    if len(timed) > 1:
        raise mixes("puts sequences after one another in time")
    before, after = parts[: timed[0]], parts[timed[0] + 1 :]
    if any(part.live and not part.last for part in (*before, *after)):
        raise mixes("puts rows that depend on the data before or after the steps")
    left, right = (_total(some, place) for some in (before, after))
    part = parts[timed[0]]
    time = time_of([part.axes[place]])
    if time is None or part.axes[place] != (time,):
        raise unknown("adds steps to an axis that is also one of sequences")
    wide = Time(time.rate, time.shift - left, time.extra + left + right)
    return (wide,), [*before, replace(part, axes=put(part.axes, place, (wide,))), *after]


def _total(parts: Sequence[Value], place: int) -> int:
    sizes = [whole(part.axes[place]) for part in parts]
    if any(n is None for n in sizes):
        raise unknown("adds sequences to an axis of steps")
    return sum(n for n in sizes if n is not None)


@rule("Split", says="local in time, unless it splits the steps")
def split(call: Call) -> list[Value]:
    x, place = call.value(), call.axis(0)
    count, given = whole(x.axes[place]), call.numbers("split", 1)
    if count is None:
        raise unknown("splits an axis of steps or sequences")
    outputs = len(call.node.output)
    each = -(-count // outputs)
    sizes = given or [min(each, count - i * each) for i in range(outputs)]
    return [rearranged(x, put(x.axes, place, plain(int(n)))) for n in sizes]


@rule("DepthToSpace", "SpaceToDepth", says="local where height and width are no steps")
def blocks(call: Call) -> Value:
    x, block = call.value(), call.attributes["blocksize"]
    sizes = [whole(axis) for axis in x.axes[1:]]
    if any(n is None for n in sizes):
        raise unknown("mixes height and width of which one is of steps")
    depth, height, width = (n or 1 for n in sizes)
    new = (depth // block**2, height * block, width * block)
    if call.node.op_type == "SpaceToDepth":
        new = (depth * block**2, height // block, width // block)
    assert prod(new) == depth * height * width
    return rearranged(x, (x.axes[0], *map(plain, new)))
