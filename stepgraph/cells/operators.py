"""Finds the recurrent operators of an ONNX model and reads them into cells. Pure onnx; changes nothing."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from stepgraph.cells import activations
from stepgraph.cells.activations import Activation
from stepgraph.cells.cell import Cell, Operator, Rounded, Weights
from stepgraph.cells.kinds import operator_of
from stepgraph.errors import ModelRefused
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import attributes


@dataclass(frozen=True, eq=False)
class CellNode:
    """A recurrent node of the graph, its operator, and the cell that it stands for."""

    node: onnx.NodeProto
    operator: Operator
    cell: Cell

    @property
    def time_axis(self) -> int:
        return time_axis(self.node)

    @property
    def axes(self) -> tuple[int, int]:
        """The axes of batch and time of x."""
        return (0 if self.operator.time is not None else 1 - self.time_axis), self.time_axis

    def state_shape(self, name: str) -> tuple[int, ...]:
        """The shape in which the operator takes and returns a state, with -1 for the batch."""
        if self.operator.time is not None:
            return (-1, *self.cell.shape(name))
        return (-1, 1, self.cell.hidden_size) if self.time_axis else (1, -1, self.cell.hidden_size)

    @property
    def x(self) -> str:
        return self.node.input[0]

    @cached_property
    def initial(self) -> tuple[str | None, ...]:
        return tuple(self.operator.taken(self.node, name) or None for name in self.operator.initial)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Its hidden state of every step ("" if it does not return that), then its last states; "" if not used."""
        shown, *last = (self.operator.made(self.node, name) for name in self.operator.outputs)
        return (shown if self.operator.step else "", *last)


def is_recurrent(node: onnx.NodeProto) -> bool:
    return operator_of(node) is not None


def time_axis(node: onnx.NodeProto) -> int:
    operator = operator_of(node)
    return operator.time if operator and operator.time is not None else int(attributes(node).get("layout") == 1)


def lengths(node: onnx.NodeProto) -> str:
    operator = operator_of(node)
    return operator.taken(node, "sequence_lens") if operator else ""


def runs_backwards(node: onnx.NodeProto) -> bool:
    """Whether a node is recurrent and does not run forward: what it does may still lie within one step."""
    return is_recurrent(node) and attributes(node).get("direction", b"forward") != b"forward"


def backwards(node: onnx.NodeProto) -> str:
    direction = attributes(node)["direction"].decode()
    return (
        f"{label(node)} runs {direction}: it needs steps that have not come yet, so it cannot answer a stream. Train a "
        "forward model"
    )


def find(graph: Graph) -> tuple[CellNode, ...]:
    """The recurrent nodes that run forward, in the order in which data runs through them."""
    pairs = ((node, operator_of(node)) for node in graph.nodes if not runs_backwards(node))
    return tuple(CellNode(node, found, _read(node, found, graph)) for node, found in pairs if found)


def _read(node: onnx.NodeProto, operator: Operator, graph: Graph) -> Cell:
    return operator.read(node, graph) if operator.read else _Reader(node, operator, graph).cell()


class _Reader:
    """Reads a node that has the weights W and R."""

    def __init__(self, node: onnx.NodeProto, operator: Operator, graph: Graph) -> None:
        self._node = node
        self._operator = operator
        self._graph = graph
        self._attributes = attributes(node)

    def cell(self) -> Cell:
        w_GHI, r_GHH = self._needed("W"), self._needed("R")
        b_2GH, p_3H = self._weight("B"), self._weight("P")
        rounded = None
        if self._operator.kept:
            rounded = self._rounded("W", w_GHI), self._rounded("R", r_GHH)
            w_GHI, r_GHH = (part.values for part in rounded)
        self._check_shapes(w_GHI, r_GHH, b_2GH)
        kind = self._operator.kind
        return Cell(
            kind.name,
            name_of(self._node),
            w_GHI.shape[1],
            r_GHH.shape[1],
            w_GHI.dtype,
            kind.states,
            kind.gates,
            self._activations(),
            self._unpacked(w_GHI, r_GHH, b_2GH),
            linear_before_reset=bool(self._attributes.get("linear_before_reset", 0)),
            input_forget=bool(self._attributes.get("input_forget", 0)),
            clip=self._attributes.get("clip"),
            peepholes={} if p_3H is None else dict(zip(self._operator.blocks, np.split(p_3H, 3), strict=False)),
            quantised=rounded is not None,
            rounded=rounded,
        )

    def _needed(self, name: str) -> np.ndarray:
        weight = self._weight(name)
        if weight is None:
            raise self._refused(f" has no {name}: its weights are missing")
        return weight

    def _weight(self, name: str) -> np.ndarray | None:
        """An input of the node without its axis of directions."""
        tensor = self._operator.taken(self._node, name)
        if not tensor:
            return None
        value = self._graph.value(tensor)
        if value is None:
            raise self._refused(f" takes its {name} from the model's input; it must be constant")
        without_directions: np.ndarray = value[0]
        return without_directions

    def _rounded(self, name: str, numbers: np.ndarray) -> Rounded:
        scale, zero = (self._needed(f"{name}_{part}") for part in ("scale", "zero_point"))
        return Rounded(numbers, np.atleast_1d(scale), np.atleast_1d(zero))

    def _unpacked(self, w_GHI: np.ndarray, r_GHH: np.ndarray, b_2GH: np.ndarray | None) -> Weights:
        """Takes the packed W [G*H, I], R [G*H, H] and B [2*G*H] (or None: zeros) apart by gate."""
        wb_GH, rb_GH = np.split(np.zeros(2 * len(w_GHI), w_GHI.dtype) if b_2GH is None else b_2GH, 2)
        return Weights(*(self._operator.by_gate(packed.T) for packed in (w_GHI, r_GHH, wb_GH, rb_GH)))

    def _check_shapes(self, w: np.ndarray, r: np.ndarray, b: np.ndarray | None) -> None:
        blocks, hidden = len(self._operator.blocks), r.shape[-1]
        expected = self._attributes.get("hidden_size", hidden)
        if w.ndim != 2 or r.shape != (blocks * hidden, hidden) or len(w) != blocks * hidden or expected != hidden:
            raise self._refused(f": W {w.shape}, R {r.shape} and hidden_size {expected} do not fit together")
        if b is not None and b.shape != (2 * blocks * hidden,):
            raise self._refused(f": B has shape {b.shape}, expected {(2 * blocks * hidden,)}")

    def _activations(self) -> tuple[Activation, ...]:
        names = [name.decode() for name in self._attributes.get("activations", ())]
        alphas, betas = (self._attributes.get(f"activation_{which}", ()) for which in ("alpha", "beta"))
        try:
            return activations.read(names or self._operator.kind.activations, alphas, betas)
        except KeyError as unknown:
            known = ", ".join(activations.NAMES)
            raise self._refused(f" uses the activation {unknown}; ONNX has {known}") from None

    def _refused(self, why: str) -> ModelRefused:
        return ModelRefused(f"{label(self._node)}{why}", name_of(self._node))
