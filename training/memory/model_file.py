"""The recurrent layers of a reader's own ONNX file, and what reaches each of them when the file is run.

Only the standard's RNN, LSTM and GRU operators with their default activations have the equations that are
differentiated here; anything else is refused by name.

Legend: T time, F inputs, H units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from training.errors import DataError
from training.memory.equations import GATES, Kind, Layer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OPERATORS: dict[str, Kind] = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru"}
# The operators pack their gates otherwise than torch: LSTM i, o, f, c and GRU z, r, h.
ORDER: dict[Kind, tuple[int, ...]] = {"rnn": (0,), "lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}
DEFAULT: dict[Kind, list[bytes]] = {
    "rnn": [b"Tanh"],
    "lstm": [b"Sigmoid", b"Tanh", b"Tanh"],
    "gru": [b"Sigmoid", b"Tanh"],
}
PEEPHOLES = 7


@dataclass(frozen=True)
class Measured:
    """A layer by its name in the file, and the sequence [T, F] that reached it."""

    name: str
    layer: Layer
    x_TF: NDArray[np.float64]


def read(path: Path, rows_TF: NDArray[np.float32] | None, steps: int) -> list[Measured]:
    """Every recurrent layer of a file, with what reached it from these rows (None: random ones).

    Raises:
        DataError: the file cannot be read or run, has no such layer, or one whose equations are others.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except Exception as error:  # protobuf's own
        raise DataError(f"{path} is no ONNX file: {error}") from error
    nodes = [node for node in model.graph.node if node.op_type in OPERATORS and node.domain in ("", "ai.onnx")]
    if not nodes:
        raise DataError(f"{path} has no RNN, LSTM or GRU operator in its main graph: nothing can be measured")
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = [layer_of(path, node, weights) for node in nodes]
    reached = inputs_of(path, model, nodes, rows_TF, steps)
    names = [node.name or f"{node.op_type} {index}" for index, node in enumerate(nodes)]
    return [
        Measured(name, layer, reached[node.input[0]]) for name, layer, node in zip(names, layers, nodes, strict=True)
    ]


def layer_of(path: Path, node: onnx.NodeProto, weights: dict[str, NDArray[np.float32]]) -> Layer:
    """The weights of one operator in torch's order."""
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    kind = OPERATORS[node.op_type]
    unusual = [name for name in ("clip", "input_forget") if attributes.get(name)]
    unusual += ["activations"] if attributes.get("activations", DEFAULT[kind]) != DEFAULT[kind] else []
    unusual += ["direction"] if attributes.get("direction", b"forward") != b"forward" else []
    unusual += ["P"] if len(node.input) > PEEPHOLES and node.input[PEEPHOLES] else []
    if unusual:
        raise DataError(f"{path}: {node.op_type} '{node.name}' has {', '.join(unusual)}: its equations are others")
    missing = [name for name in node.input[1:4] if name and name not in weights]
    if missing:
        raise DataError(f"{path}: {node.op_type} '{node.name}' computes its weights ({', '.join(missing)})")
    w, r = (weights[name][0].astype(np.float64) for name in node.input[1:3])
    hidden, gates = r.shape[1], len(GATES[kind])
    with_bias = len(node.input) > 3 and node.input[3]
    b = weights[node.input[3]][0].astype(np.float64) if with_bias else np.zeros(2 * gates * hidden)

    def ordered(value: NDArray[np.float64]) -> NDArray[np.float64]:
        blocks = value.reshape(gates, hidden, *value.shape[1:])[list(ORDER[kind])]
        return blocks.reshape(value.shape)

    from_x, from_h = (ordered(half) for half in np.split(b, 2))
    reset_after = bool(attributes.get("linear_before_reset", 0))
    return Layer(kind, ordered(w), ordered(r), from_x, from_h, reset_after)


def inputs_of(
    path: Path, model: onnx.ModelProto, nodes: list[onnx.NodeProto], rows_TF: NDArray[np.float32] | None, steps: int
) -> dict[str, NDArray[np.float64]]:
    """Run the file once for one sequence; what reaches each operator, [T, F], by the tensor's name."""
    wanted = list(dict.fromkeys(node.input[0] for node in nodes))
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    given = {port.name for port in model.graph.input}
    known = given | {port.name for port in model.graph.output}
    extended.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    try:
        session = onnxruntime.InferenceSession(extended.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {port.name: feed(port, rows_TF, steps) for port in session.get_inputs()}
        asked = [name for name in wanted if name not in given]
        found = dict(zip(asked, session.run(asked, feeds), strict=True)) if asked else {}
    except Exception as error:  # onnxruntime raises classes of its own that share no base
        line = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be run on one sequence; give its rows by --rows ({line})") from error
    reached = {name: np.asarray((found | feeds)[name], dtype=np.float64) for name in wanted}
    return {name: value[:, 0] for name, value in reached.items()}


def feed(port: onnxruntime.NodeArg, rows_TF: NDArray[np.float32] | None, steps: int) -> NDArray[np.generic]:
    """A value for one input of the file: the rows, or random ones; 0 for a state, which has no axis of free length.

    Batch first or time first is told apart by which of the two axes is named or left free.
    """
    shape = list(port.shape)
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}.get(port.type)
    if dtype is None:
        raise ValueError(f"input '{port.name}' is a {port.type}")
    if len(shape) < 2 or all(isinstance(axis, int) for axis in shape[:2]):
        return np.zeros([axis if isinstance(axis, int) else 1 for axis in shape], dtype=dtype)
    width = [axis if isinstance(axis, int) else 1 for axis in shape[2:]]
    random = np.random.default_rng(0)
    rows = random.normal(size=(steps, *width)) if rows_TF is None else rows_TF.reshape(-1, *width)
    time_first = isinstance(shape[1], int) and shape[1] == 1
    return (rows[:, None] if time_first else rows[None]).astype(dtype)
