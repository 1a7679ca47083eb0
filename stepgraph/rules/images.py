"""Operators on images and positions, which treat each row by itself."""

from stepgraph.rules.table import Call, over, rule, whole
from stepgraph.rules.value import Value, joined, unknown


@rule("GridSample", says="local where it samples within a step")
def sampled(call: Call) -> Value:
    x, grid = call.value(0), call.value(1)
    over(x, range(2, len(x.axes)), "samples")
    if x.live and any(whole(axis) is None for axis in x.axes[1:]):
        raise unknown("samples from an axis of steps or sequences")
    return joined([x, grid], (x.axes[0] or grid.axes[0], x.axes[1], *grid.axes[1:-1]))


@rule("RotaryEmbedding", says="mixes, as it depends on the number of the step; local within a step")
def rotated(call: Call) -> Value:
    x, tables = call.value(0), call.all[1:]
    if any(table.live for table in tables):
        raise unknown("takes positions that depend on the data")
    over(x, [len(x.axes) - 1], "turns pairs of numbers")
    return joined([x, *tables], x.axes)
