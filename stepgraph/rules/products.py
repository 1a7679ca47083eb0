"""Matrix products, in 8 bits too, attention, and the positions that it is told."""

from collections.abc import Sequence

from stepgraph.rules.axes import Axes, Axis, has_rows, has_time, plain
from stepgraph.rules.table import Call, over, rule, whole
from stepgraph.rules.value import Value, broadcast, joined, mixes, unknown

_SAYS = "local over features; mixes where it sums over steps or rows"
_WEIGHS = "sums, as attention does,"
_DIGITS = "0123456789"


@rule("MatMul", says=_SAYS)
def product(call: Call) -> Value:
    return _product(call.value(0), call.value(1))


@rule("MatMulInteger", says=_SAYS)
def whole_product(call: Call) -> Value:
    return _product(call.value(0), call.value(1), [v for v in call.inputs[2:] if v is not None])


@rule("QLinearMatMul", says=_SAYS)
def rounded_product(call: Call) -> Value:
    others = [value for i, value in enumerate(call.inputs) if value is not None and i not in (0, 3)]
    return _product(call.value(0), call.value(3), others)


def _product(a: Value, b: Value, parameters: Sequence[Value] = ()) -> Value:
    if any(value.live for value in parameters if any(value.axes)):
        raise unknown("takes scales that depend on the data")
    over(a, [len(a.axes) - 1], _WEIGHS)
    over(b, [max(0, len(b.axes) - 2)], _WEIGHS)
    batch = broadcast([_with(a, a.axes[:-2]), _with(b, b.axes[:-2])]) if max(len(a.axes), len(b.axes)) > 2 else ()
    outer = [*([a.axes[-2]] if len(a.axes) > 1 else []), *([b.axes[-1]] if len(b.axes) > 1 else [])]
    return joined([a, b, *parameters], (*batch, *outer))


def _with(value: Value, axes: Axes) -> Value:
    return Value(axes, value.live)


@rule("Gemm", says=_SAYS)
def general_product(call: Call) -> Value:
    a, b = call.value(0), call.value(1)
    turned = [bool(call.attributes.get(name, 0)) for name in ("transA", "transB")]
    (rows, inner), (other, columns) = (v.axes[::-1] if t else v.axes for v, t in zip((a, b), turned, strict=True))
    for value, axis in ((a, inner), (b, other)):
        over(Value((axis,), value.live), [0], _WEIGHS)
    result = joined([a, b], (rows, columns))
    added = call.given(2)
    return result if added is None else joined([result, added], broadcast([result, added]))


@rule("Einsum", says=_SAYS)
def einsum(call: Call) -> Value:
    """By the letters of its equation; those that the result does not have are summed over."""
    given, result = _letters(call)
    axes = dict[str, list[Value]]()
    for letters, value in zip(given, call.all, strict=True):
        if len(set(letters)) < len(letters):
            raise unknown("takes a diagonal")
        for letter, axis in zip(letters, value.axes, strict=True):
            axes.setdefault(letter, []).append(Value((axis,), value.live))
    for letter, same in axes.items():
        for value in same if letter not in result else ():
            over(value, [0], _WEIGHS)
    return joined(call.all, tuple(broadcast(axes[letter])[0] for letter in result))


def _letters(call: Call) -> tuple[list[str], str]:
    """The letters of the axes of each input and of the result, with digits, from the right, where dots stand."""
    given, arrow, result = call.attributes["equation"].decode().replace(" ", "").partition("->")
    operands = given.split(",")
    counts = [len(value.axes) - len(some.replace(".", "")) for some, value in zip(operands, call.all, strict=True)]
    dots = [_DIGITS[len(_DIGITS) - count :] for count in counts]
    if not arrow:
        result = "..." * any(dots) + "".join(sorted(c for c in {*given} if c.isalpha() and given.count(c) == 1))
    letters = [some.replace("...", own) for some, own in zip(operands, dots, strict=True)]
    return letters, result.replace("...", max(dots, key=len))


@rule("Attention", says="local where it weighs what lies within a step; mixes over steps")
def attention(call: Call) -> list[Value]:
    q, k, v = (call.value(i) for i in range(3))
    if any(call.given(i) is not None for i in (4, 5, 6)):
        raise unknown("attends to a cache")
    for value in (k, v):
        if value.live and has_time(value.axes[-2]):
            raise mixes("weighs all steps of a sequence against each other, as attention does,")
    if any(has_rows(axis) for value in (q, k, v) for axis in value.axes[1:]):
        raise unknown("attends over an axis of sequences")
    if call.attributes.get("is_causal") and has_time(q.axes[-2]):
        raise mixes("looks back over all steps")
    mask = call.given(3)
    if mask is not None and mask.live:
        raise unknown("takes a mask that depends on the data")
    if any(call.node.output[1:]):
        raise unknown("returns more than its answer")
    return [joined([q, k, v], (*q.axes[:-1], _width(call, q, v)))]


def _width(call: Call, q: Value, v: Value) -> Axis:
    width = whole(v.axes[-1])
    if width is None:
        raise unknown("attends over an axis of steps")
    if len(q.axes) == 4:
        return v.axes[-1]
    heads, others = (call.attributes.get(f"{name}_num_heads", 1) for name in ("q", "kv"))
    return plain(width // others * heads)


@rule("RotaryEmbedding", says="mixes, as it depends on the number of the step; local within a step")
def rotated(call: Call) -> Value:
    x, tables = call.value(0), call.all[1:]
    if any(table.live for table in tables):
        raise unknown("takes positions that depend on the data")
    over(x, [len(x.axes) - 1], "turns pairs of numbers")
    return joined([x, *tables], x.axes)
