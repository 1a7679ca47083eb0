"""Which axes of tensors grow with the batch and which with time, from their shapes in three runs. Pure."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.reading.guess import Dims
from stepgraph.rewriting.ports import Carried, Pace, Port

SIZES = ((2, 3), (4, 3), (2, 6))  # sequences and steps: a run, one with twice the batch, one of twice the length
_BATCH, _TIME = SIZES[0]
_KEEPING = (
    "a state keeps its size from step to step. Where it grows with every step, as a cache of attention does, export "
    "the file with a cache of a fixed number of rows, whose oldest is dropped"
)


def growth(sizes: Sequence[int]) -> tuple[int, int]:
    """How an axis grows with twice the batch and with twice the time: 1 or 2 times; (0, 0) if it is neither."""
    base, wider, longer = sizes
    if base and all(size in (base, 2 * base) for size in (wider, longer)):
        return wider // base, longer // base
    return (1, 1) if base == wider == longer else (0, 0)


def stopped(ran: Sequence[Sequence[int]]) -> bool:
    """Whether sequences beside others changed how often a loop ran: it is refused elsewhere."""
    return any(each[0] != each[1] and growth(each) == (0, 0) for each in ran)


def pace(shapes: Sequence[Sequence[int]], batched: bool, timed: bool, lead: int = 0) -> Pace | None:
    """How a cell runs whose input has these sizes along its batch and its own time in the three runs.

    `batched` and `timed` say whether the sizes differ in batch and in time; `lead` steps came before those of the runs,
    and some cells run over them, too. None if it is no pace of a stream.
    """
    (rows, _), (time, early) = (begun([shape[i] for shape in shapes], lead) for i in (0, 1))
    wide, batch = (2, _BATCH) if batched else (1, 1)
    match growth(time), growth(rows):
        case (1, 2), (w, 1) if w == wide and timed:
            found = _whole(time[0], _TIME, rows[0], batch, streams=True)
            return found and replace(found, lead=lead - early)
        case (1, 1), (w, 2) if w == wide and timed:
            return _whole(time[0], 1, rows[0], batch * _TIME, streams=False)
        case (1, 1), (w, 1) if w == wide:
            return _whole(time[0], 1, rows[0], batch, streams=False)
    return None


def begun(sizes: Sequence[int], lead: int) -> tuple[list[int], int]:
    """The sizes without what an axis has of the steps before, and how many of them it has."""
    base, wider, longer = sizes
    each, more = (longer - base) // _TIME, 2 * base - longer
    if not lead or each < 1 or more < 1 or more % each or more // each > lead:
        return [*sizes], 0
    return [base - more, wider - more * wider // base, longer - more], more // each


def _whole(time: int, steps: int, rows: int, sequences: int, streams: bool) -> Pace | None:
    if not time or not rows or time % steps or rows % sequences:
        return None
    return Pace(time // steps, rows // sequences, streams)


_BOTH = (
    ". It lays steps and sequences along one axis: let it keep both, or export the file with a batch axis that is "
    "fixed to 1"
)


def output_port(name: str, runs: Sequence[np.ndarray], batched: bool, lenient: bool, lead: int = 0) -> Port:
    """The port of an output that had these values at the three sizes: its axes that grew with batch and with time.

    `lenient`: other axes may grow otherwise: the file is refused for another reason. `lead` as `pace` has it.
    """
    axes = [begun(sizes, lead) for sizes in zip(*(run.shape for run in runs), strict=True)]
    shape, growths = [sizes[0] for sizes, _ in axes], [growth(sizes) for sizes, _ in axes]
    batches = [i for i, grown in enumerate(growths) if grown == (2, 1)]
    if not batched:
        batches = [i for i, size in enumerate(shape) if size == 1 and growths[i] == (1, 1)][:1]
    times = [i for i, grown in enumerate(growths) if grown == (1, 2)]
    odd = any(grown not in ((1, 1), (2, 1), (1, 2)) for grown in growths) and not lenient
    if odd or len(batches) > 1 or len(times) > 1 or (batched and not batches):
        raise ModelRefused(
            f"output '{name}' of shape {shape} for 2 sequences of 3 steps becomes {list(runs[1].shape)} for "
            f"4 sequences and {list(runs[2].shape)} for 6 steps: it must have one batch axis and at most one time "
            f"axis, so that each step of each sequence gets its own answer{_BOTH if (2, 2) in growths else ''}"
        )
    batch, time = next(iter(batches), None), next(iter(times), None)
    if batch is not None and batched and shape[batch] != _BATCH:
        raise ModelRefused(
            f"output '{name}' has {shape[batch]} rows for 2 sequences: it folds sequences into an axis of its own"
        )
    per_step = 1 if time is None else shape[time] // _TIME
    block = per_step if per_step > 1 else 0
    row = tuple(block if i == time else n for i, n in enumerate(shape) if i != batch and (i != time or block))
    return Port(name, runs[0].dtype, row, batch, time, block, early=0 if time is None else axes[time][1])


def free_beside(name: str, dims: Dims) -> str:
    """Why an input with these axes is no state as it stands."""
    return (
        f"the state '{name}' with the axes {list(dims)} has a free axis beside that of the batch, and {_KEEPING}. "
        f"Where it always has so many rows, say in {sidecar.FILE} beside the file how many, under [block]: "
        f"{name} = ROWS"
    )


def carried(given: Port, returned: Port) -> Carried:
    """A state that goes in and comes out by these ports. Raises ModelRefused: with another size."""
    if given.row != returned.row:
        raise ModelRefused(
            f"the state '{given.name}' of {list(given.row)} for each sequence becomes '{returned.name}' of "
            f"{list(returned.row)}, and {_KEEPING}"
        )
    return Carried(given, returned)
