"""Whose parked sequences give way when there are too many: the owners' that have the most; pure."""

from collections.abc import Sequence

RANKED = 500  # owners that are looked at, those with the most parked sequences


def shares(ranked: Sequence[tuple[str, int]], count: int) -> dict[str, int] | None:
    """How many of each owner give way, so that the owners with the most come down to one level.

    Args:
        ranked: the owners with the most parked sequences, by how many, the most first.
        count: how many are to give way.

    Returns:
        By owner, for those of whom some give way; None if nobody stands out by a tenth: then the longest parked of
        everybody give way.
    """
    if not ranked or not count or ranked[0][1] - ranked[-1][1] <= ranked[0][1] // 10:
        return None
    taken, above = 0, 0
    for above, (_, parked) in enumerate(ranked):  # lowers the first owners to the level of the next one
        if (surplus := sum(n for _, n in ranked[:above]) - above * parked) >= count:
            taken = surplus
            break
    else:
        above, parked = len(ranked), 0
        taken = sum(n for _, n in ranked)
    return _lowered(ranked[:above], parked, max(0, taken - count))


def _lowered(ranked: Sequence[tuple[str, int]], level: int, too_many: int) -> dict[str, int]:
    """What is above the level, less what is too many in equal parts."""
    part, rest = divmod(too_many, len(ranked))
    return {
        owner: left
        for at, (owner, parked) in enumerate(ranked)
        if (left := max(0, parked - level - part - (at >= len(ranked) - rest))) > 0
    }
