"""Torch networks, as either of torch's exporters writes them.

`python -m tests.models.makers.torch_exporters [FOLDER [NAME ...]]` writes the dynamo exporter's files, each from a
process of its own: a second export of a recurrent network in one process can fail on what the first one left behind.
The files of the older exporter take milliseconds, and tests make them as they need them.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tests.models.makers import causal
from tests.models.makers.artefact import BATCH, STEPS, Recorded, save
from tests.models.makers.nets import (
    FEATURES,
    HIDDEN,
    TOKENS,
    Attending,
    Causal,
    Convolved,
    LastOnly,
    Lengths,
    Looped,
    Net,
    OneStep,
    Scanned,
    Shown,
    ShownAlone,
    Tokens,
)

FOLDER = Path(__file__).parents[1] / "made" / "torch-dynamo"


@dataclass(frozen=True)
class Case:
    """A network and how it is exported. `states` are shapes of the inputs that start it, with -1 for the batch."""

    net: nn.Module
    states: Mapping[str, tuple[int, ...]]
    free: tuple[str, ...] = ("batch", "time")
    time: int | None = 1  # which axis of x is the time; None for one step at a time
    tokens: bool = False
    lengths: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of x but the last."""
        return ("batch",) if self.time is None else ("time", "batch") if self.time == 0 else ("batch", "time")

    def x(self, rows_TB: Tensor) -> Tensor:
        """[T, B, ...row] as the network takes it."""
        return rows_TB[-1] if self.time is None else rows_TB.transpose(0, self.time)

    def arguments(self, rows_TB: Tensor) -> tuple[Tensor, ...]:
        """What the network takes for sequences that begin with these rows."""
        batch = rows_TB.shape[1]
        zeros = [torch.zeros([batch if size == -1 else size for size in shape]) for shape in self.states.values()]
        lengths = [torch.full((batch,), len(rows_TB))] if self.lengths else []
        return (self.x(rows_TB), *zeros, *lengths)

    def dims(self) -> dict[str, dict[int, str]]:
        """The free axes of each input and of the outputs."""
        shaped = {"x": self.axes} | {
            name: tuple("batch" if size == -1 else "" for size in shape) for name, shape in self.states.items()
        }
        shaped |= {"n": ("batch",)} if self.lengths else {}
        return {name: {i: axis for i, axis in enumerate(axes) if axis in self.free} for name, axes in shaped.items()}


H_AND_C = {"h": (1, -1, HIDDEN), "c": (1, -1, HIDDEN)}
CASES = {
    "lstm": lambda: Case(Net(), {}),
    "lstm-static": lambda: Case(Net(), {}, free=()),
    "lstm-batch": lambda: Case(Net(), {}, free=("batch",)),
    "lstm-stacked": lambda: Case(Net(layers=2), {}),
    "lstm-time-first": lambda: Case(Net(batch_first=False), {}, time=0),
    "lstm-projected": lambda: Case(Net(proj_size=2), {}),
    "lstm-shown": lambda: Case(Shown(), H_AND_C),
    "lstm-last": lambda: Case(LastOnly(), {}),
    "lstm-packed": lambda: Case(Lengths(), {}, lengths=True),
    "lstm-cell": lambda: Case(OneStep(), {"h": (-1, HIDDEN), "c": (-1, HIDDEN)}, free=("batch",), time=None),
    "gru": lambda: Case(Net("GRU"), {}),
    "gru-static": lambda: Case(Net("GRU"), {}, free=()),
    "gru-shown": lambda: Case(ShownAlone("GRU", layers=2), {"h": (2, -1, HIDDEN)}),
    "rnn-tanh": lambda: Case(Net("RNN"), {}),
    "rnn-relu": lambda: Case(Net("RNN", nonlinearity="relu"), {}),
    "rnn-static": lambda: Case(Net("RNN"), {}, free=()),
    "rnn-shown": lambda: Case(ShownAlone("RNN"), {"h": (1, -1, HIDDEN)}),
    "tokens": lambda: Case(Tokens(), {}, tokens=True),
    "bidirectional": lambda: Case(Net(bidirectional=True), {}),
    "conv1d": lambda: Case(Convolved(), {}),
    "attention": lambda: Case(Attending(), {}),
    "scan": lambda: Case(Scanned(), {}),
    "while-loop": lambda: Case(Looped(), {}),
    "tcn": lambda: Case(Causal(causal.Dilated()), {}),
    "chomped": lambda: Case(Causal(causal.Chomped()), {}),
    "lag": lambda: Case(Causal(causal.lagged), {}),
    "lag-padded": lambda: Case(Causal(causal.padded, 2 * FEATURES), {}),
    "unfold": lambda: Case(Causal(causal.unfolded, 3 * FEATURES), {}),
}
NOT_BY_DYNAMO = frozenset({"lag-padded", "lstm-packed"})  # that exporter gives up
NOT_BY_TORCHSCRIPT = frozenset({"lstm-projected", "scan", "unfold", "while-loop"})  # and this one


def make(name: str, path: Path, *, dynamo: bool) -> Recorded:
    """Exports a case, and says what torch itself answers."""
    torch.manual_seed(list(CASES).index(name))
    case = CASES[name]()
    case.net.eval()
    with torch.no_grad():
        for parameter in case.net.parameters():
            parameter.normal_(0, 0.5)
    shape = (STEPS, BATCH) if case.tokens else (STEPS, BATCH, FEATURES)
    rows = torch.randint(0, TOKENS, shape) if case.tokens else torch.randn(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        _export(case, rows, path, dynamo=dynamo)
    return _recorded(case, rows)


def _export(case: Case, rows_TB: Tensor, path: Path, *, dynamo: bool) -> None:
    dims = case.dims()
    returned = {f"{name}_out": dims[name] for name in case.states}
    names = {"input_names": list(dims), "output_names": ["y", *returned]}
    arguments = case.arguments(rows_TB)
    if dynamo:
        named = {axis: torch.export.Dim(axis) for axis in case.free}
        shapes = {name: {i: named[axis] for i, axis in axes.items()} for name, axes in dims.items()}
        options = {"dynamic_shapes": shapes, "verbose": False, "external_data": False}
        torch.onnx.export(case.net, arguments, str(path), dynamo=True, **names, **options)
    else:
        axes = dims | returned | {"y": {i: axis for i, axis in enumerate(case.axes) if axis in case.free}}
        torch.onnx.export(case.net, arguments, str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names)


def _recorded(case: Case, rows_TB: Tensor) -> Recorded:
    """What torch answers to each prefix, and the states that it ends in."""
    states: list[Tensor | tuple[Tensor, Tensor]] = []
    case.net.cell.register_forward_hook(lambda _module, _given, y: states.append(y[1]))
    answers, trace = [], dict[tuple[int, str], list[np.ndarray]]()
    arguments = case.arguments(rows_TB[:1])
    for step in range(STEPS):
        fresh = case.arguments(rows_TB[: step + 1])
        arguments = fresh if case.time is not None else (fresh[0], *arguments[1:])
        with torch.no_grad():
            y = case.net(*arguments)
        y = y if isinstance(y, tuple) else (y,)
        if case.time is None:
            arguments = (fresh[0], *y[1:])
        answers.append(y[0].select(case.time, -1) if y[0].ndim == 3 else y[0])
        if case.time is not None and not case.net.cell.bidirectional:
            last = states[-1] if isinstance(states[-1], tuple) else (states[-1],)
            for name, of_layers in zip(("hidden", "cell"), last, strict=False):
                for layer, state in enumerate(of_layers):
                    trace.setdefault((layer, name), []).append(state.numpy())
    return Recorded(
        {"x": rows_TB.numpy()},
        {"y": torch.stack(answers).numpy()},
        {key: np.stack(values) for key, values in trace.items()},
    )


def main(folder: str = str(FOLDER), *names: str) -> None:
    """Makes the files that are asked for, or all of them, each in a fork of this process."""
    _export_once()
    for name in names or sorted(CASES.keys() - NOT_BY_DYNAMO):
        child = os.fork()
        if not child:
            _make_and_leave(name, Path(folder, f"{name}.onnx"))
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{name} was not made")


def _export_once() -> None:
    """Has torch load what its exporter needs, which takes longer than an export; no recurrent network is exported.

    The exporter reads the source of 500 functions anew for each file: here once for all forks.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))
    torch.onnx.export(nn.Linear(1, 1).eval(), (torch.zeros(1, 1),), dynamo=True, verbose=False)


def _make_and_leave(name: str, path: Path) -> NoReturn:
    status = 1
    try:
        recorded = make(name, path, dynamo=True)
        save(path, onnx.load(path), recorded)
        status = 0
    except Exception:  # noqa: BLE001 - the parent says which file was not made
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
