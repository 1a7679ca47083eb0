"""The networks that are measured: two LSTM layers and a linear head on every step, random weights.

Each is written twice from the same weights: as any tool would export it, for Tidegate, and with its states as inputs
and outputs, for the afternoon's server. Run as a process of its own, so that torch is in no measured process.
"""

import argparse
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.processes.cache import Cache
from bench.scenario import FEATURES, HIDDEN_SIZES, LAYERS, OUTPUTS


class Network(nn.Module):
    """x [batch, time, features] to y [batch, time, outputs]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, hidden, LAYERS, batch_first=True)
        self.head = nn.Linear(hidden, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Run from the zero state."""
        y: Tensor = self.head(self.lstm(x)[0])
        return y


class WithStates(nn.Module):
    """The same network, with h and c [layers, batch, hidden] going in and coming out."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run from the given state."""
        y, (h, c) = self.network.lstm(x, (h, c))
        return self.network.head(y), h, c


def export(cache: Cache, hidden: int) -> None:
    """Write both files of one model, always with the same weights."""
    torch.manual_seed(hidden)
    network = Network(hidden).eval()
    x, state = torch.zeros(2, 3, FEATURES), torch.zeros(LAYERS, 2, hidden)
    write(network, (x,), cache.served_file(hidden), ["x"], ["y"])
    write(
        WithStates(network).eval(),
        (x, state, state),
        cache.afternoon_file(hidden),
        ["x", "h", "c"],
        ["y", "h_out", "c_out"],
    )


def write(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, names_in: list[str], names_out: list[str]) -> None:
    """Export through torch's TorchScript exporter, whole or not at all."""
    rows, states = {0: "batch", 1: "time"}, {1: "batch"}
    axes = {name: rows if name in "xy" else states for name in (*names_in, *names_out)}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")  # two processes may write the same file at a time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's advice to use the other one, and to keep to one batch size
        torch.onnx.export(
            module, inputs, unfinished, input_names=names_in, output_names=names_out, dynamic_axes=axes, dynamo=False
        )
    unfinished.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__)
    parser.add_argument("root", type=Path, help="the folder to write into")
    cache = Cache(parser.parse_args().root)
    for hidden in HIDDEN_SIZES:
        if not (cache.served_file(hidden).exists() and cache.afternoon_file(hidden).exists()):
            export(cache, hidden)


if __name__ == "__main__":
    main()
