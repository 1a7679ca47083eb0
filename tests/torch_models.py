"""Small torch networks with random weights, exported as ONNX files: what the server's numbers are compared with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclass(frozen=True)
class Spec:
    """A network: perhaps an embedding or a layer before the cells, the cells, a head."""

    cell: str = "lstm"
    layers: int = 1
    hidden: int = 5
    inputs: int = 3
    outputs: int = 2
    batch_first: bool = True
    last_only: bool = False  # the head sees the last step only, so the output has no time axis
    before: bool = False  # a layer between the input and the cells
    tokens: int = 0  # more than 0: the input is one token a step, int64
    seed: int = 0

    @property
    def gates(self) -> int:
        return {"lstm": 4, "gru": 3}.get(self.cell, 1)


class Network(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        torch.manual_seed(spec.seed)
        self.spec = spec
        width = spec.inputs
        self.embedding = nn.Embedding(spec.tokens, width) if spec.tokens else None
        self.before = nn.Sequential(nn.Linear(width, 4), nn.Tanh()) if spec.before else None
        width = 4 if spec.before else width
        options = {"num_layers": spec.layers, "batch_first": spec.batch_first}
        if spec.cell.startswith("rnn"):
            options["nonlinearity"] = spec.cell.removeprefix("rnn_")
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}.get(spec.cell, nn.RNN)
        self.cell = kind(width, spec.hidden, **options)
        self.head = nn.Linear(spec.hidden, spec.outputs)
        self._spread_biases()
        self.eval()

    def _spread_biases(self) -> None:
        """No two gates have alike biases, so that a swapped pair cannot go unseen."""
        with torch.no_grad():
            for name, bias in self.cell.named_parameters():
                if name.startswith("bias"):
                    for gate, block in enumerate(bias.chunk(self.spec.gates)):
                        block.uniform_(0.1, 0.3).add_(0.25 * gate - 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.embedding is None else self.embedding(x)
        x = x if self.before is None else self.before(x)
        y, _ = self.cell(x)
        if self.spec.last_only:
            y = y[:, -1] if self.spec.batch_first else y[-1]
        answer: Tensor = self.head(y)
        return answer

    def cell_inputs(self, x: Tensor) -> Tensor:
        """What reaches the first cell."""
        x = x if self.embedding is None else self.embedding(x)
        return x if self.before is None else self.before(x)

    def of_prefixes(self, x_T: Tensor) -> Tensor:
        """The last answer to each prefix of one sequence, [T, outputs]."""
        axis = 0 if self.spec.batch_first else 1
        with torch.no_grad():
            whole = [
                self(x_T[: t + 1].unsqueeze(axis)).squeeze(0 if self.spec.last_only else axis) for t in range(len(x_T))
            ]
        return torch.stack([y if self.spec.last_only else y[-1] for y in whole])

    def rows(self, steps: int, seed: int = 0) -> Tensor:
        """Random inputs of one sequence, [T, inputs] or [T]."""
        generator = torch.Generator().manual_seed(seed)
        if self.spec.tokens:
            return torch.randint(0, self.spec.tokens, (steps,), generator=generator)
        return torch.randn((steps, self.spec.inputs), generator=generator)


def export(
    network: nn.Module,
    path: Path,
    example: tuple[Tensor, ...],
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
) -> None:
    """Writes the network with batch and time dynamic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = getattr(network, "spec", Spec())
    axes = {0: "batch", 1: "time"} if spec.batch_first else {0: "time", 1: "batch"}
    answered = {0: "batch"} if spec.last_only else axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of itself
        torch.onnx.export(
            network,
            example,
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dict.fromkeys(inputs, axes) | dict.fromkeys(outputs, answered),
            opset_version=17,
            dynamo=False,
        )


def write(spec: Spec, path: Path) -> Network:
    """Makes the network of a spec and writes its file."""
    network = Network(spec)
    shape = (2, 3) if spec.batch_first else (3, 2)
    example = torch.zeros(shape, dtype=torch.int64) if spec.tokens else torch.zeros(*shape, spec.inputs)
    export(network, path, (example,))
    return network
