"""Finds the recurrent operators of an ONNX model and reads them into cells. Pure onnx; changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from stepgraph.cells import activations
from stepgraph.cells import cell as cells
from stepgraph.cells.activations import Activation
from stepgraph.cells.cell import Cell
from stepgraph.errors import ModelRefused
from stepgraph.graphs.constants import Constants
from stepgraph.graphs.labels import label, name_of

RECURRENT = cells.OPERATORS
_INPUTS = {1: "W", 2: "R", 3: "B", 7: "P"} | dict.fromkeys((8, 10), "a scale") | dict.fromkeys((9, 11), "a zero point")
_BLOCKS = {"RNN": 1, "LSTM": 4, "GRU": 3}


@dataclass(frozen=True, eq=False)
class CellNode:
    """A recurrent node of the graph and the cell that it stands for.

    `initial` names the tensor of each state before the first step, or None for zeros.
    """

    node: onnx.NodeProto
    cell: Cell
    initial: tuple[str | None, ...]

    @property
    def time_axis(self) -> int:
        """Which axis of `x` is the time; the other of the first two is the batch. Set by the attribute `layout`."""
        return time_axis(self.node)

    @property
    def x(self) -> str:
        """The name of the input sequence, [T, B, I] or, where `time_axis` is 1, [B, T, I]."""
        return self.node.input[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of Y, Y_h and, for LSTM, Y_c; "" where the model does not use one."""
        absent = 1 + len(self.cell.states) - len(self.node.output)
        return (*self.node.output, *[""] * absent)


def time_axis(node: onnx.NodeProto) -> int:
    """Which axis of a recurrent node's input is the time, by its attribute `layout`."""
    return int(any(a.name == "layout" and a.i == 1 for a in node.attribute))


def runs_backwards(node: onnx.NodeProto) -> bool:
    """Whether a node is recurrent and does not run forward: what it does may still lie within one step."""
    return node.op_type in RECURRENT and any(a.name == "direction" and a.s != b"forward" for a in node.attribute)


def backwards(node: onnx.NodeProto) -> str:
    """Why a cell that does not run forward is refused."""
    direction = next(a.s.decode() for a in node.attribute if a.name == "direction")
    return (
        f"{label(node)} runs {direction}: it needs steps that have not come yet, so it cannot answer a stream. Train a "
        "forward model"
    )


def find(model: onnx.ModelProto) -> tuple[CellNode, ...]:
    """The recurrent nodes that run forward, in the order in which data runs through them.

    Raises:
        ModelRefused: there is one that cannot be served as a stream.
    """
    constants = Constants(model)
    return tuple(
        _read(node, constants) for node in model.graph.node if node.op_type in RECURRENT and not runs_backwards(node)
    )


def _read(node: onnx.NodeProto, constants: Constants) -> CellNode:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = [*node.input, *[""] * (12 - len(node.input))]
    w_GHI, r_GHH, b_2GH, p_3H = (_weight(node, constants, inputs, i) for i in (1, 2, 3, 7))
    kind, rounded = node.op_type, None
    if kind == cells.QUANTISED:
        kind, rounded = "LSTM", (_rounded(node, constants, inputs, 1, 8), _rounded(node, constants, inputs, 2, 10))
        w_GHI, r_GHH = (part.values for part in rounded)
    if w_GHI is None or r_GHH is None:
        missing = "W" if w_GHI is None else "R"
        raise ModelRefused(f"{label(node)} has no {missing}: its weights are missing", name_of(node))
    _check_shapes(node, _BLOCKS[kind], attributes, w_GHI, r_GHH, b_2GH)
    cell = Cell(
        kind,
        name_of(node),
        w_GHI.shape[1],
        r_GHH.shape[1],
        cells.unpack(kind, w_GHI, r_GHH, b_2GH),
        _activations(node, kind, attributes),
        linear_before_reset=bool(attributes.get("linear_before_reset", 0)),
        input_forget=bool(attributes.get("input_forget", 0)),
        clip=attributes.get("clip"),
        peepholes={} if p_3H is None else cells.unpack_peepholes(p_3H),
        rounded=rounded,
    )
    return CellNode(node, cell, tuple(name or None for name in inputs[5 : 5 + len(cell.states)]))


def _weight(node: onnx.NodeProto, constants: Constants, inputs: list[str], index: int) -> np.ndarray | None:
    """Input `index` of the node without its axis of directions."""
    if not inputs[index]:
        return None
    value = constants.value(inputs[index])
    if value is None:
        raise ModelRefused(
            f"{label(node)} takes its {_INPUTS[index]} from the model's input; it must be constant", name_of(node)
        )
    without_directions: np.ndarray = value[0]
    return without_directions


def _rounded(node: onnx.NodeProto, constants: Constants, inputs: list[str], weight: int, scale: int) -> cells.Rounded:
    """A weight in 8 bits; its scale is the input `scale` of the node, its zero point the one after."""
    numbers, of_scale, zero = (_weight(node, constants, inputs, i) for i in (weight, scale, scale + 1))
    if numbers is None or of_scale is None or zero is None:
        raise ModelRefused(f"{label(node)} has no weights, or no scales of them", name_of(node))
    return cells.Rounded(numbers, np.atleast_1d(of_scale), np.atleast_1d(zero))


def _check_shapes(
    node: onnx.NodeProto, blocks: int, attributes: Mapping[str, Any], w: np.ndarray, r: np.ndarray, b: np.ndarray | None
) -> None:
    hidden = r.shape[-1]
    expected = attributes.get("hidden_size", hidden)
    if w.ndim != 2 or r.shape != (blocks * hidden, hidden) or len(w) != blocks * hidden or expected != hidden:
        raise ModelRefused(
            f"{label(node)}: W {w.shape}, R {r.shape} and hidden_size {expected} do not fit together", name_of(node)
        )
    if b is not None and b.shape != (2 * blocks * hidden,):
        raise ModelRefused(f"{label(node)}: B has shape {b.shape}, expected {(2 * blocks * hidden,)}", name_of(node))


def _activations(node: onnx.NodeProto, kind: str, attributes: Mapping[str, Any]) -> tuple[Activation, ...]:
    given = [name.decode() for name in attributes.get("activations", ())]
    names = given or cells.default_activations(kind)
    try:
        return activations.read(names, attributes.get("activation_alpha", ()), attributes.get("activation_beta", ()))
    except KeyError as unknown:
        raise ModelRefused(
            f"{label(node)} uses the activation {unknown}; ONNX has {', '.join(activations.NAMES)}", name_of(node)
        ) from None
