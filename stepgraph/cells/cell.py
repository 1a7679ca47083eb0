"""What a cell is, as values: its kind with states, gates and equations, and one of a model with its weights.

Gates go by the names of the equations, whatever an operator's packing order is. Names no particular kind.
Shapes: I input size, H hidden size, G number of gate blocks, B batch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from stepgraph.cells.activations import Activation
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.equations import Equations
from stepgraph.graphs.graph import Graph

Tensors = Mapping[str, str]  # names of tensors [B, H] (or [B, n] for n numbers in all) in a graph, by state or gate


@dataclass(frozen=True, eq=False)
class Weights:
    """A cell's weights by gate: `x[gate]` is [I, H], `h[gate]` [H, H], `x_bias[gate]` and `h_bias[gate]` [H]."""

    x: Mapping[str, np.ndarray]
    h: Mapping[str, np.ndarray]
    x_bias: Mapping[str, np.ndarray]
    h_bias: Mapping[str, np.ndarray]

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Weights":
        return Weights(*(_mapped(part, change) for part in (self.x, self.h, self.x_bias, self.h_bias)))


NO_WEIGHTS = Weights({}, {}, {}, {})


@dataclass(frozen=True, eq=False)
class Rounded:
    """Weights in 8 bits: numbers [K, G*H] in the operator's packing, for one of its two products.

    `scale` and `zero` are [1] or [G*H]; a weight is (number - zero) * scale.
    """

    numbers: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The weights as they are meant, [G*H, K]."""
        values: np.ndarray = ((self.numbers.astype(np.float32) - self.zero.astype(np.float32)) * self.scale).T
        return values


@dataclass(frozen=True, eq=False)
class Cell:
    """One recurrence of a model. `states` are what it carries from step to step, `gates` what a trace shows beside."""

    kind: str
    node: str
    input_size: int | None  # None where the file does not say it
    hidden_size: int
    dtype: np.dtype  # of weights and states
    states: tuple[str, ...]
    gates: tuple[str, ...]
    activations: tuple[Activation, ...] = ()
    weights: Weights = NO_WEIGHTS
    linear_before_reset: bool = False
    input_forget: bool = False  # couples the gates of an LSTM: f = 1 - i
    clip: float | None = None  # bounds what goes into the gates' activation functions
    peepholes: Mapping[str, np.ndarray] = field(default_factory=dict)  # [H] by gate; empty if there are none
    quantised: bool = False  # whether its operator computes with 8 bits
    rounded: tuple[Rounded, Rounded] | None = None  # then the weights of x and h
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of states and gates that are not [H]
    untraced: tuple[str, ...] = ()  # states that are too large for a trace

    @property
    def traced(self) -> tuple[str, ...]:
        """The states that a trace shows."""
        return tuple(name for name in self.states if name not in self.untraced)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a state or a gate for one sequence."""
        return self.shapes.get(name, (self.hidden_size,))

    def width(self, name: str) -> int:
        return math.prod(self.shape(name))

    def in_type(self, dtype: np.dtype) -> "Cell":
        if dtype == self.dtype:
            return self
        peepholes = _mapped(self.peepholes, lambda p: p.astype(dtype))
        return replace(self, dtype=dtype, weights=self.weights.map(lambda w: w.astype(dtype)), peepholes=peepholes)

    def described(self) -> "Cell":
        """The same cell without its weights, which stand in the step graph."""
        return replace(self, weights=NO_WEIGHTS, peepholes={}, rounded=None)


def _mapped(arrays: Mapping[str, np.ndarray], change: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    return {gate: change(array) for gate, array in arrays.items()}


@dataclass(frozen=True)
class Step:
    """The names of the tensors [B, H] that one step of a cell yields: the new states and the gates."""

    states: Tensors
    gates: Tensors


@dataclass(frozen=True)
class Known:
    """A cell of plain operators that was known by its equations: the tensors that are its gates, and its states."""

    gates: Mapping[str, str]
    states: Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """A kind of recurrence: its name, what it carries from step to step, its gates, and its default activations.

    `follow` writes its new states from its gates and the states before; None where gates do not say them. It says
    nothing of states that are `optional`, which a cell may have or not. `known` finds such cells among the states of a
    graph, from what a step begins with to what it ends with.
    """

    name: str
    states: tuple[str, ...]
    gates: tuple[str, ...]
    activations: tuple[str, ...] = ()
    follow: Callable[[GraphBuilder, Cell, Tensors, Tensors], Tensors] | None = None
    optional: tuple[str, ...] = ()
    known: Callable[[Equations, Mapping[str, str]], Iterable[Known]] | None = None


# the inputs and outputs that all recurrent operators of ONNX have, in order; initial states come next
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h")
OUTPUTS = ("Y", "Y_h")


@dataclass(frozen=True)
class Operator:
    """An operator that computes a cell: its inputs and outputs in order, and what is packed into its weights.

    `step` writes one step from x [B, I] and the states before. Where `kept`, the operator itself computes the states,
    and of the step the gates alone count. An operator without the weights W and R has `read` instead, which makes a
    cell of a node, and perhaps `gates`, which writes the gates of a step from the node's inputs and the states after.
    """

    kind: Kind
    name: str
    blocks: tuple[str, ...] = ()  # the gates in the order in which their weights are packed
    step: Callable[[GraphBuilder, Cell, str, Tensors], Step] | None = None
    inputs: tuple[str, ...] = INPUTS
    outputs: tuple[str, ...] = OUTPUTS
    domain: str = ""
    input_axis: int = 2  # of W, which is [1, G*H, I] as a rule
    kept: bool = False
    unrounded: Callable[[GraphBuilder, "Operator", onnx.NodeProto], None] | None = None  # writes it without rounding
    time: int | None = None  # the axis of time of its first input where the batch comes first; None: layout says it
    read: Callable[[onnx.NodeProto, Graph], Cell] | None = None
    gates: Callable[[GraphBuilder, onnx.NodeProto, Cell, Tensors], Tensors] | None = None
    aborts: bool = False  # onnxruntime's ends the process where it is given no step

    @property
    def initial(self) -> tuple[str, ...]:
        """The inputs that the states start from."""
        return tuple(name for name in self.inputs if name.startswith(("initial_", "past_")))

    def taken(self, node: onnx.NodeProto, name: str) -> str:
        index = self.inputs.index(name) if name in self.inputs else len(node.input)
        return node.input[index] if index < len(node.input) else ""

    def made(self, node: onnx.NodeProto, name: str) -> str:
        index = self.outputs.index(name)
        return node.output[index] if index < len(node.output) else ""

    def take(self, node: onnx.NodeProto, name: str, tensor: str) -> None:
        _put(node.input, self.inputs.index(name), tensor)

    def make(self, node: onnx.NodeProto, name: str, tensor: str) -> None:
        _put(node.output, self.outputs.index(name), tensor)

    def by_gate(self, packed: np.ndarray) -> dict[str, np.ndarray]:
        """Takes what the operator packs along its last axis apart by gate."""
        return dict(zip(self.blocks, np.split(packed, len(self.blocks), -1), strict=True))


def _put(names: MutableSequence[str], index: int, tensor: str) -> None:
    names.extend([""] * (index + 1 - len(names)))
    names[index] = tensor
