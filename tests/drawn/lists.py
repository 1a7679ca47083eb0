"""The operators on lists of tensors and on what may be missing, put on a tensor that was drawn."""

from __future__ import annotations

from tests.drawn.graphs import Drawing, NotHere
from tests.drawn.operators import any_axis, floats, is_plain, pick, puts


@puts("SplitToSequence ConcatFromSequence")
def list_of_parts(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    axis = any_axis(d, x)
    if operator == "SplitToSequence" and d.chance(0.3) and is_plain(d, x, axis):
        parts = d.op("SplitToSequence", x, d.whole(d.number(1, d.sized(x, axis))), axis=axis)
        return d.op("ConcatFromSequence", parts, axis=axis)
    kept = d.number(0, 1)
    parts = d.op("SplitToSequence", x, *([d.whole(1)] if d.chance(0.3) else []), axis=axis, keepdims=kept)
    if len(d.axes(parts)) > 1 and (kept or d.chance(0.5)):
        return d.op("ConcatFromSequence", parts, axis=d.number(0, len(d.axes(parts)) - 2), new_axis=0)
    return d.op("ConcatFromSequence", parts, axis=d.number(0, len(d.axes(parts)) - 1), new_axis=1)


@puts("SequenceAt SequenceLength")
def element(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    parts = d.op("SplitToSequence", x, axis=any_axis(d, x), keepdims=d.number(0, 1))
    if operator == "SequenceLength":
        return d.op("Mul", d.op("Abs", x), floats(d, d.op("SequenceLength", parts)))
    return d.op("SequenceAt", parts, d.whole(d.of(0, -1, -2)))


@puts("SequenceConstruct SequenceInsert SequenceErase SequenceEmpty")
def list_of_tensors(d: Drawing, operator: str) -> str:
    x = pick(d)
    elements = [x, d.op("Tanh", x), d.op("Cos", x)]
    if operator == "SequenceEmpty":
        made = d.op("SequenceInsert", d.op("SequenceEmpty"), x)
    else:
        made = d.op("SequenceConstruct", *elements[:2])
    if operator == "SequenceInsert":
        place = [] if d.chance(0.5) else [d.whole(d.number(-1, 1))]
        made = d.op("SequenceInsert", made, elements[2], *place)
    if operator == "SequenceErase":
        made = d.op("SequenceErase", made, *([] if d.chance(0.5) else [d.whole(d.number(0, 1))]))
    if d.chance(0.5):
        return d.op("SequenceAt", made, d.whole(d.of(0, -1)))
    return d.op("ConcatFromSequence", made, axis=d.number(0, len(d.axes(x))), new_axis=1)


@puts("Optional OptionalGetElement OptionalHasElement")
def there(d: Drawing, operator: str) -> str:
    if d.opset < 18:
        raise NotHere
    x = pick(d)
    given = d.op("Optional", x)
    if operator == "OptionalHasElement":
        return d.op("Where", d.op("OptionalHasElement", given), d.op("Neg", x), x)
    return d.op("Tanh", d.op("OptionalGetElement", given))
