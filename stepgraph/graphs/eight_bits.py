"""Writes products with weights in 8 bits, of which a sequence gets the same bits whoever shares its batch.

Each column of a weight has a scale of its own, by its largest number, and so has each row of what it is multiplied
with, at each step. Between them are whole numbers, which add up to the same in any order. onnxruntime's own operators
of 8 bits have one scale for all rows of a batch, or add up in another order where there are more rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from stepgraph.graphs import weights
from stepgraph.graphs.builder import GraphBuilder, Part
from stepgraph.graphs.nodes import attributes

NARROW = 32  # numbers of a row: fewer are quicker in single precision, and lose nothing
_MANY = 2**16  # numbers of a weight outside the cells, likewise
_LARGEST = 127  # of what 8 bits hold, on both sides of the middle
_MIDDLE = 128  # onnxruntime is quick at numbers without a sign times numbers with one, and at no others
_TINY = 1e-30  # the scale of a row of zeros


class EightBits(GraphBuilder):
    """A builder whose products are rounded; `narrows` says whether it has written one."""

    narrows = False

    def affine(self, parts: Sequence[Part], bias: np.ndarray) -> str:
        """As of any builder; what is narrow, or not in single precision, stays as it is."""
        rest = [part for part in parts if not _is_rounded(part)]
        total = super().affine(rest, bias) if rest else self.constant(bias)
        for tensor, blocks in filter(_is_rounded, parts):
            total = self.op("Add", self._product(tensor, np.concatenate(blocks, 1)), total)
        return total

    def weigh(self, node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> None:
        """Writes a node of the file, its weight rounded if it is a large one of a product or a table."""
        if node.op_type == "Gather":
            table = _large(constants.get(node.input[0]))
            if table is not None and not attributes(node).get("axis", 0):
                self._picked(node, table)
                return
        weight_KN = _weight(node, constants)
        if weight_KN is None:
            self.nodes.append(node)
        elif node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
            self.op_to(node.output[0], "Add", self._product(node.input[0], weight_KN), node.input[2])
        else:
            self._product(node.input[0], weight_KN, node.output[0])

    def _product(self, tensor: str, weight_KN: np.ndarray, output: str | None = None) -> str:
        """[..., K] times a weight, [..., N]."""
        whole_KN, scale_1N = _rounded(weight_KN, 0)
        unit, least = (self.constant(number, np.float32) for number in (1 / _LARGEST, _TINY))
        scale_B1 = self.op("Max", self.op("Mul", self.largest(tensor), unit), least)
        whole_BK = self.op("Round", self.op("Div", tensor, scale_B1))
        shifted_BK = self.cast(self.op("Add", whole_BK, self.constant(_MIDDLE, np.float32)), np.dtype(np.uint8))
        middle = self.constant(_MIDDLE, np.uint8)
        sums_BN = self.op("MatMulInteger", shifted_BK, self.constant(whole_KN), middle)
        scaled_BN = self.op("Mul", self.cast(sums_BN, np.dtype(np.float32)), scale_B1)
        self.narrows = True
        return self.op_to(output or self.name("Mul"), "Mul", scaled_BN, self.constant(scale_1N[0]))

    def _picked(self, node: onnx.NodeProto, table_VN: np.ndarray) -> None:
        """Rows of a table, each with a scale of its own."""
        picked = [self.op("Gather", self.constant(part), node.input[1]) for part in _rounded(table_VN, 1)]
        self.op_to(node.output[0], "Mul", self.cast(picked[0], np.dtype(np.float32)), picked[1])
        self.narrows = True


def _rounded(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, and the scales by which they have to be multiplied, of which there is one along the axis."""
    scale = np.maximum(np.abs(weight).max(axis, keepdims=True) / _LARGEST, np.float32(_TINY))
    return np.rint(weight / scale).astype(np.int8), scale


def _is_rounded(part: Part) -> bool:
    _, blocks = part
    return len(blocks[0]) >= NARROW and blocks[0].dtype == np.float32


def _weight(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> np.ndarray | None:
    """The weight [K, N] of a product that can be rounded."""
    given = attributes(node)
    plain = given.get("alpha", 1) == given.get("beta", 1) == 1 and not given.get("transA", 0)
    if node.op_type not in ("MatMul", "Gemm") or node.domain or not plain:
        return None
    weight = _large(constants.get(node.input[1]))
    if weight is not None and given.get("transB", 0):
        weight = weight.T
    return weight if weight is not None and len(weight) >= NARROW else None


def _large(tensor: TensorProto | None) -> np.ndarray | None:
    """The value of a weight that is worth it."""
    if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
        return None
    return weights.array(tensor) if np.prod(tensor.dims) >= _MANY else None
