"""Learns from running a model what its loops do: how often each runs, and which of the tensors it carries are states.

A loop is part of a recurrence if it runs once for each step. What it carries is state if it has a row for each sequence
and does not grow; the iteration's number and buffers of all steps' outputs are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepgraph.errors import ModelRefused
from stepgraph.graphs.labels import STATE_INSTEAD, label, name_of
from stepgraph.reading import loops
from stepgraph.reading.growth import SIZES
from stepgraph.reading.interface import State
from stepgraph.reading.loops import LoopNode
from stepgraph.reading.trial import Trial
from stepgraph.rewriting.ports import Carried, Facts, LoopState, Port
from stepgraph.running import session

_ALONE = ((1, 3), (1, 3), (1, 6))  # of a file that takes one sequence only
Values = tuple[np.ndarray, ...]  # of one tensor in each of the runs


@dataclass(frozen=True, eq=False)
class Iteration:
    """What was learnt of a loop that runs once for each step: for each tensor that it carries, a state or None."""

    loop: LoopNode
    states: tuple[LoopState | None, ...]


def learn(
    found: Sequence[LoopNode], counts: Sequence[str], facts: Facts, carried: frozenset[State], trial: Trial
) -> tuple[Iteration, ...]:
    """The loops that run once for each step, whose states the interface does not carry.

    The outputs `counts` say how often they ran, see `loops.counted`. `carried` are the states that the interface
    carries, by the number of the loop and of the tensor. `trial` runs the model.
    """
    if facts.one_step or not found:
        return ()
    names = (*counts, *tensors(found))
    sizes = enumerate(_ALONE if facts.alone else SIZES)
    runs = [trial.values(names, facts, batch, time, seed) for seed, (batch, time) in sizes]
    learnt = []
    for i, (loop, count) in enumerate(zip(found, counts, strict=True)):
        if _once_a_step(loop, [int(run[count]) for run in runs]):
            _refuse_backwards(loop)
            inside = frozenset(k for of, k in carried if of == i)
            learnt.append(Iteration(loop, tuple(_states(loop, runs, inside, alone=bool(facts.alone)))))
    return tuple(learnt)


def tensors(found: Sequence[LoopNode]) -> list[str]:
    """What loops start with and end with."""
    return list(dict.fromkeys(name for loop in found for name in (*loop.initial, *loop.last)))


def _once_a_step(loop: LoopNode, counts: Sequence[int]) -> bool:
    steps = [time for _, time in SIZES]
    if counts == steps:
        return True
    if counts[0] == counts[2]:  # it has nothing to do with time
        return False
    if loop.stops():
        raise ModelRefused(loops.STOPPING.format(label(loop.node)), name_of(loop.node))
    raise ModelRefused(
        f"{label(loop.node)} runs {counts[0]} times for {steps[0]} steps and {counts[2]} times for {steps[2]}: only a "
        "loop that runs once for each step can be cut into steps",
        name_of(loop.node),
    )


def _refuse_backwards(loop: LoopNode) -> None:
    if loop.backwards:
        raise ModelRefused(
            f"{label(loop.node)} runs backwards over the steps: it needs steps that have not come yet, so it cannot "
            "answer a stream. Train a forward model",
            name_of(loop.node),
        )


def _states(
    loop: LoopNode, runs: Sequence[dict[str, np.ndarray]], inside: frozenset[int], alone: bool
) -> list[LoopState | None]:
    states: list[LoopState | None] = []
    for k, end in enumerate(loops.ends(loop)):
        first, last = (tuple(run[name] for run in runs) for name in (loop.initial[k], loop.last[k]))
        port = None if k in inside or loop.keeps(k) else _port(last, alone)
        if port is None:
            states.append(None)
            continue
        given, returned = (Port(name, last[0].dtype, port[1], port[0], None) for name in (end.given, end.returned))
        start = _start(loop, k, first, last, port[0])
        states.append(LoopState(Carried(given, returned), start, label(loop.node), loop.names[k]))
    return states


def _port(last: Values, alone: bool) -> tuple[int | None, tuple[int, ...]] | None:
    """The batch axis of a tensor and its other axes; None if it is no state. One sequence alone has no batch axis."""
    if not all(map(session.is_tensor, last)) or last[0].dtype.kind not in "fiub":
        return None
    base, wider, longer = (value.shape for value in last)
    if len({len(base), len(wider), len(longer)}) > 1 or base != longer:
        return None
    if alone:
        return None if last[0].dtype.kind in "iu" and last[0].size == 1 else (None, base)
    batch = [i for i, sizes in enumerate(zip(base, wider, strict=True)) if sizes == (SIZES[0][0], SIZES[1][0])]
    return (batch[0], base[: batch[0]] + base[batch[0] + 1 :]) if len(batch) == 1 else None


def _start(loop: LoopNode, index: int, first: Values, last: Values, batch: int | None) -> np.ndarray:
    """What a state begins with, whatever the input, in the shape of one row."""
    whole = [np.broadcast_to(a, b.shape) for a, b in zip(first, last, strict=True)]
    rows = whole if batch is None else [row for tensor in whole for row in np.moveaxis(tensor, batch, 0)]
    if any(not np.array_equal(row, rows[0]) for row in rows):
        raise ModelRefused(
            f"{label(loop.node)} carries '{loop.names[index]}', which starts from a state that depends on its input "
            f"('{loop.initial[index]}'). {STATE_INSTEAD}",
            name_of(loop.node),
        )
    start: np.ndarray = rows[0]
    return start
