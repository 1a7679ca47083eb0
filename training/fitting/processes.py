"""Several processes that fit one network together, as torchrun or Ray start them. One alone does without all of it.

Each process takes its rows of every batch; gradients are averaged; the first process validates, and writes all files.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

T = TypeVar("T")


def started_by_torchrun() -> bool:
    """Whether the environment says that this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun's environment variables name, unless that is done already (by Ray)."""
    if dist.is_initialized() or not started_by_torchrun():
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def leave(status: int) -> NoReturn:
    """End this process with an exit status, without the interpreter's own end.

    gloo's threads free tensors, for which they need the interpreter's lock. A thread that asks for it while the
    interpreter ends is ended by Python 3.11 within C++, which aborts the process ("terminate called without an
    active exception").
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way to run them; multiprocessing does the same
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that validates and writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def mine(batch: int) -> slice:
    """The rows of a batch that are this process's."""
    each = batch // count()
    rank = dist.get_rank() if dist.is_initialized() else 0
    return slice(rank * each, (rank + 1) * each)


def average(value: Tensor) -> Tensor:
    """The mean of what all processes have."""
    if count() == 1:
        return value
    total = value.detach().double()
    dist.all_reduce(total)
    return (total / count()).to(value.dtype if value.dtype.is_floating_point else torch.float32)


def total(value: Tensor) -> Tensor:
    """The sum of what all processes have."""
    if count() > 1:
        dist.all_reduce(value)
    return value


def random(shape: Sequence[int]) -> Tensor:
    """Random numbers for this process's rows, [B, ...]: those that one process would draw for all of the batch."""
    return torch.rand(shape[0] * count(), *shape[1:])[mine(shape[0] * count())]


def agreed(asked: bool) -> bool:
    """Whether one of the processes asks for it."""
    return bool(total(torch.tensor(int(asked)))) if count() > 1 else asked


def told(value: T) -> T:
    """What the first process has."""
    if count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def shared(module: nn.Module) -> nn.Module:
    """The module, whose gradients become the mean over all processes. Buffers are each process's own."""
    return DistributedDataParallel(module, forward_sync_buffers=False) if count() > 1 else module
