"""Writes products with weights in 8 bits, of which a sequence gets the same bits whoever shares its batch.

Each column of a weight has a scale of its own, by its largest number, and so has each row of what it is multiplied
with, at each step. Between them are whole numbers, which add up to the same in any order. onnxruntime's own operators
of 8 bits have one scale for all rows of a batch.
"""

from collections.abc import Sequence

import numpy as np

from stepgraph.graphs.builder import GraphBuilder, Part

LEAST_OPSET = 11
NARROW = 32  # numbers of a row: fewer are quicker in single precision, and lose nothing
_LARGEST = 127  # of what 8 bits hold, on both sides of the middle
_MIDDLE = 128  # onnxruntime is quick at numbers without a sign times numbers with one, and at no others
_TINY = 1e-30  # the scale of a row of zeros


class EightBits(GraphBuilder):
    """A builder whose products are rounded; `rounds` says whether it has written one."""

    rounds = False

    def affine(self, parts: Sequence[Part], bias: np.ndarray) -> str:
        """As of any builder; what is narrow, or not in single precision, stays as it is."""
        rest = [part for part in parts if not _is_rounded(part)]
        total = super().affine(rest, bias) if rest else self.constant(bias)
        for tensor, blocks in filter(_is_rounded, parts):
            total = self.op("Add", self._product(tensor, np.concatenate(blocks, 1)), total)
            self.rounds = True
        return total

    def _product(self, tensor: str, weight_KN: np.ndarray) -> str:
        """[B, K] times a weight, [B, N]."""
        scale_N = np.maximum(np.abs(weight_KN).max(0) / _LARGEST, np.float32(_TINY))
        whole_KN = np.rint(weight_KN / scale_N).astype(np.int8)
        scale_B1 = self.op("Max", self.op("Mul", self.largest(tensor), self._number(1 / _LARGEST)), self._number(_TINY))
        whole_BK = self.op("Round", self.op("Div", tensor, scale_B1))
        shifted_BK = self.cast(self.op("Add", whole_BK, self._number(_MIDDLE)), np.dtype(np.uint8))
        middle = self.constant(np.array(_MIDDLE, np.uint8))
        sums_BN = self.op("MatMulInteger", shifted_BK, self.constant(whole_KN), middle)
        scaled_BN = self.op("Mul", self.cast(sums_BN, np.dtype(np.float32)), scale_B1)
        return self.op("Mul", scaled_BN, self.constant(scale_N))

    def _number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))


def _is_rounded(part: Part) -> bool:
    _, blocks = part
    return len(blocks[0]) >= NARROW and blocks[0].dtype == np.float32
