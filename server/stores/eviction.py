"""Whose parked sequences give way: those of the addresses with the most, and there of the owners with the most; pure.

A client names its owners as it likes, and as many as it likes, so owners are compared within their address alone.
"""

from collections.abc import Callable, Sequence

RANKED = 500  # addresses, and owners of each, that are looked at

Ranked = Sequence[tuple[str, int]]  # owners with their numbers of parked sequences, the most first


def parts(addresses: Ranked, owners: Callable[[str], Ranked], count: int) -> dict[str, int] | None:
    """How many of each owner give way, `count` in all; None: the longest parked of everybody.

    `owners` are those of an address; of more than `RANKED` with about as many each a few may be left for the next time.
    """
    if len(addresses) == 1:
        return shares(owners(addresses[0][0]), count)
    if (of := shares(addresses, count)) is None:
        return None
    return {owner: n for address, part in of.items() for owner, n in within(owners(address), part).items()}


def within(ranked: Ranked, count: int) -> dict[str, int]:
    """How many of each owner of one address give way, `count` in all."""
    return (shares(ranked, count) or _even(ranked, count)) if count > 0 else {}


def _even(ranked: Ranked, count: int) -> dict[str, int]:
    part, rest = divmod(count, max(1, len(ranked)))
    return {owner: n for at, (owner, parked) in enumerate(ranked) if (n := min(parked, part + (at < rest)))}


def shares(ranked: Ranked, count: int) -> dict[str, int] | None:
    """How many of each give way: those with the most come down to one level. None if none has a tenth more."""
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
