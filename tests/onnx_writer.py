"""Writes ONNX files for tests, node after node, valid in a given opset and under names that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.onnx_equations import BLOCKS, STATES, Operator

Shape = Sequence[int | str]
Tensors = dict[str, str]


@dataclass(frozen=True)
class Layer:
    """A recurrent operator: what its attributes say, which inputs it has, and where its weights come from.

    `weights`: "initializer", "node" (a Constant) or "computed" (Transpose, Slice and Concat of initialisers).
    `outputs`: which of Y, Y_h and Y_c have a name. `scale`: how far the weights spread.
    """

    kind: str
    hidden: int = 4
    layout: int = 0
    bias: bool = True
    peepholes: bool = False
    clip: float | None = None
    input_forget: bool = False
    linear_before_reset: bool = False
    activations: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    betas: tuple[float, ...] = ()
    weights: str = "initializer"
    outputs: tuple[str, ...] = ("Y", "Y_h", "Y_c")
    scale: float = 0.5

    @property
    def states(self) -> tuple[str, ...]:
        return STATES[self.kind]

    def attributes(self) -> dict[str, object]:
        """Those that are not at their defaults."""
        names = ("layout", "clip", "input_forget", "linear_before_reset", "activations")
        given = {name: getattr(self, name) for name in names}
        given |= {"activation_alpha": self.alphas, "activation_beta": self.betas}
        return {
            name: int(v) if isinstance(v, bool) else v for name, v in given.items() if v not in (None, False, 0, ())
        }


class Writer:
    """Collects the nodes of one graph. `random` makes every number in it."""

    def __init__(self, opset: int = 17, dtype: str = "float32", seed: int = 0) -> None:
        self.opset = opset
        self.dtype = np.dtype(dtype)
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._names = 0

    def name(self) -> str:
        self._names += 1
        return f"n{self._names}"

    def input(self, shape: Shape, dtype: type | np.dtype | None = None) -> str:
        self.inputs.append(self._info(self.name(), shape, dtype))
        return self.inputs[-1].name

    def output(self, tensor: str, shape: Shape | None = None) -> str:
        self.outputs.append(self._info(tensor, shape, None))
        return tensor

    def op(self, operator: str, *inputs: str, **attributes: object) -> str:
        return self.many(operator, 1, *inputs, **attributes)[0]

    def many(self, operator: str, outputs: int, *inputs: str, **attributes: object) -> list[str]:
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def constant(self, array: NDArray[np.generic], where: str = "initializer") -> str:
        """A tensor with these values: an initialiser, a Constant, or computed from initialisers."""
        if where == "computed" and array.ndim > 1:
            return self._computed(array)
        if where == "node":
            return self.op("Constant", value=numpy_helper.from_array(array))
        self.constants.append(numpy_helper.from_array(array, self.name()))
        return self.constants[-1].name

    def _computed(self, array: NDArray[np.generic]) -> str:
        """Concat of a Transpose and of a Slice."""
        upper, lower = np.array_split(array, [array.shape[1] // 2], 1)
        axes = [*range(array.ndim - 2), array.ndim - 1, array.ndim - 2]
        transposed = self.op("Transpose", self.constant(upper.transpose(axes)), perm=axes)
        longer = self.constant(np.concatenate([lower, lower[:, :1] + 1], 1))
        return self.concat(1, transposed, self.slice(longer, 1, 0, lower.shape[1]))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def numbers(self, *shape: int, scale: float = 0.5) -> NDArray[np.generic]:
        """Random normal numbers of the graph's type."""
        return self.random.normal(0, scale, shape).astype(self.dtype)

    def concat(self, axis: int, *tensors: str) -> str:
        return self.op("Concat", *tensors, axis=axis) if len(tensors) > 1 else tensors[0]

    def transpose(self, tensor: str, *axes: int) -> str:
        return self.op("Transpose", tensor, perm=axes)

    def slice(self, tensor: str, axis: int, start: int, end: int) -> str:
        if self.opset < 10:
            return self.op("Slice", tensor, axes=[axis], starts=[start], ends=[end])
        return self.op("Slice", tensor, *(self.integers(i) for i in (start, end, axis)))

    def split(self, tensor: str, axis: int, sizes: Sequence[int]) -> list[str]:
        if len(sizes) == 1:
            return [tensor]
        if self.opset < 13:
            return self.many("Split", len(sizes), tensor, axis=axis, split=sizes)
        return self.many("Split", len(sizes), tensor, self.integers(*sizes), axis=axis)

    def squeeze(self, tensor: str, axis: int) -> str:
        return self._axes("Squeeze", tensor, axis)

    def unsqueeze(self, tensor: str, axis: int) -> str:
        return self._axes("Unsqueeze", tensor, axis)

    def _axes(self, operator: str, tensor: str, axis: int) -> str:
        if self.opset < 13:
            return self.op(operator, tensor, axes=[axis])
        return self.op(operator, tensor, self.integers(axis))

    def gather(self, tensor: str, axis: int, index: int) -> str:
        """One element of an axis, which goes away."""
        return self.op("Gather", tensor, self.constant(np.array(index, np.int64)), axis=axis)

    def reshape(self, tensor: str, *shape: int) -> str:
        return self.op("Reshape", tensor, self.integers(*shape))

    def size(self, tensor: str, axis: int) -> str:
        """The size of one axis of a tensor, [1]."""
        return self.op("Gather", self.op("Shape", tensor), self.integers(axis))

    def repeated(self, row: str, axis: int, like: str, like_axis: int) -> str:
        """[1, 1, H] as often along `axis` as the tensor `like` is long in `like_axis`."""
        count, one = self.size(like, like_axis), self.integers(1)
        return self.op("Tile", row, self.concat(0, *[count if i == axis else one for i in range(3)]))

    def dense(self, tensor: str, inputs: int, outputs: int) -> str:
        """A layer without activation over the last axis."""
        product = self.op("MatMul", tensor, self.constant(self.numbers(inputs, outputs, scale=0.8 / np.sqrt(inputs))))
        return self.op("Add", product, self.constant(self.numbers(outputs)))

    def cell(
        self, layer: Layer, x: str, inputs: int, states: Sequence[str] = (), lengths: str = ""
    ) -> tuple[Tensors, Operator]:
        """Adds a recurrent operator over `x`, in the operator's own axes; its outputs by name, and its numbers.

        Every gate has weights and biases of its own kind, so that no two could be mistaken for each other.
        """
        blocks, hidden = BLOCKS[layer.kind], layer.hidden
        w = self.numbers(blocks * hidden, inputs, scale=layer.scale)
        r = self.numbers(blocks * hidden, hidden, scale=1.6 * layer.scale / np.sqrt(hidden))
        means = np.repeat(0.3 * blocks - 0.3 * np.arange(2 * blocks), hidden)
        b = (means + self.numbers(2 * blocks * hidden, scale=0.1)).astype(self.dtype) if layer.bias else None
        p = self.numbers(3 * hidden) if layer.peepholes else None
        packed = [self.constant(a[np.newaxis], layer.weights) if a is not None else "" for a in (w, r, b, p)]
        names = [x, *packed[:3], lengths, *states, *[""] * (2 - len(states)), packed[3]]
        outputs = [self.name() if o in layer.outputs else "" for o in ("Y", "Y_h", "Y_c")[: 1 + len(layer.states)]]
        while not names[-1]:
            names.pop()
        while not outputs[-1]:
            outputs.pop()
        self.nodes.append(helper.make_node(layer.kind, names, outputs, hidden_size=hidden, **layer.attributes()))
        numbers = [None if a is None else a.astype(np.float64) for a in (w, r, b, p)]
        assert numbers[0] is not None
        assert numbers[1] is not None
        operator = Operator(
            layer.kind,
            numbers[0],
            numbers[1],
            numbers[2],
            numbers[3],
            layer.activations,
            layer.alphas,
            layer.betas,
            layer.clip,
            layer.input_forget,
            layer.linear_before_reset,
        )
        return dict(zip(("Y", "Y_h", "Y_c"), outputs, strict=False)), operator

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def _info(self, name: str, shape: Shape | None, dtype: type | np.dtype | None) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        return helper.make_tensor_value_info(name, kind, shape)
