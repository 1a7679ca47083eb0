"""ONNX nodes and constants as they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT = TensorProto.FLOAT


class Nodes:
    """Nodes and constants of a graph. A node is named by its first output, with `within` before it."""

    def __init__(self, within: str = "") -> None:
        self.within = within
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:  # noqa: ANN401 - whatever numpy takes
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:  # noqa: ANN401
        self.nodes.append(
            helper.make_node(kind, list(inputs), list(outputs), name=f"{self.within}{outputs[0]}", **attributes)
        )
        return outputs[0]

    def pick(self, source: str, places: Sequence[int], name: str) -> str:
        """Some columns of the last axis."""
        return self.add("Gather", [source, self.constant(f"{name}.places", places, np.int64)], name, axis=2)

    def zeros(self, like: str, width: int, name: str) -> str:
        """[B, width] zeros, where a state begins."""
        shape = self.add("Shape", [like], f"{name}.shape", start=0, end=1)
        both = self.add("Concat", [shape, self.constant(f"{name}.width", [width], np.int64)], f"{name}.size", axis=0)
        return self.add("ConstantOfShape", [both], name, value=helper.make_tensor("value", FLOAT, [1], [0.0]))

    def scan(
        self, name: str, body: onnx.GraphProto, states: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """A Scan over axis 1; its last states are not asked for."""
        self.add(
            "Scan",
            [*states, *inputs],
            *(f"{name}.{index}.last" for index in range(len(states))),
            *outputs,
            body=body,
            num_scan_inputs=len(inputs),
            scan_input_axes=[1] * len(inputs),
            scan_output_axes=[1] * len(outputs),
        )


def values(names: Sequence[str], width: int) -> list[onnx.ValueInfoProto]:
    """Floats of [B, width]."""
    return [helper.make_tensor_value_info(name, FLOAT, ["batch", width]) for name in names]
