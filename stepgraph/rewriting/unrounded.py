"""Files that round to 8 bits while they run, and the same network without the rounding. Pure onnx.

Quantised operators take their scale from the largest and smallest number of all that they are given at once: all steps
of all sequences. So a file's answer to one step depends on what stands beside it, a little, and no step graph can give
the same. Without the rounding the steps no longer influence each other, and the network is otherwise the same.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stepgraph.cells.kinds import OPERATORS, operator_of
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.nodes import copied, opset, refill, subgraphs, with_inner

_PREFIX = "tidegate.exact/"
_BY_RANGE = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", *(o.name for o in OPERATORS.values() if o.unrounded)}
)
_FIXED = frozenset({"QuantizeLinear"})
_INTEGERS = ("QLinear", "QGemm", "QAttention", "QEmbed")  # how operators begin that compute with rounded numbers alone


def by_range(model: onnx.ModelProto) -> bool:
    return any(node.op_type in _BY_RANGE for node in with_inner(model.graph.node))


def rounds(model: onnx.ModelProto) -> bool:
    """Whether a file rounds while it runs, in a way that `unrounded` can undo."""
    types = {node.op_type for node in with_inner(model.graph.node)}
    return bool(types & (_BY_RANGE | _FIXED)) and not any(kind.startswith(_INTEGERS) for kind in types)


def unrounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which numbers keep the precision that they come with; rounded weights are what they are."""
    copy = copied(model)
    writer = _Writer(copy)
    writer.rewrite(copy.graph)
    copy.graph.initializer.extend(writer.g.constants)
    return copy


class _Writer:
    """Writes operators that round as ones that do not, under the same names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.g = GraphBuilder(_PREFIX, opset(model))
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._write: dict[str, Callable[[onnx.NodeProto], None]] = {
            "DynamicQuantizeLinear": self._dynamic,
            "QuantizeLinear": self._quantize,
            "DequantizeLinear": self._dequantize,
            "MatMulInteger": self._product,
            "ConvInteger": self._convolution,
            "DynamicQuantizeMatMul": self._dynamic_product,
            "MatMulIntegerToFloat": self._scaled_product,
        }

    def rewrite(self, graph: onnx.GraphProto) -> None:
        self._tensors |= {tensor.name: tensor for tensor in graph.initializer}
        nodes = list[onnx.NodeProto]()
        for node in graph.node:
            for inner in subgraphs(node):
                self.rewrite(inner)
            self.g.nodes = []
            operator = operator_of(node)
            if operator and operator.unrounded:
                operator.unrounded(self.g, operator, node)
            else:
                self._write.get(node.op_type, self.g.nodes.append)(node)
            self.g.nodes[-1].name = node.name
            nodes.extend(self.g.nodes)
        refill(graph.node, nodes)

    def _dynamic(self, node: onnx.NodeProto) -> None:
        number, scale, zero = (*node.output, "", "")[:3]
        for name, value in ((scale, 1.0), (zero, 0.0)):
            tensor = numpy_helper.from_array(np.array(value, np.float32))
            self.g.nodes.extend([helper.make_node("Constant", [], [name], value=tensor)] if name else [])
        self.g.op_to(number, "Identity", node.input[0])

    def _quantize(self, node: onnx.NodeProto) -> None:
        """Numbers out of range are not clipped."""
        x, scale, zero = (*node.input, "")[:3]
        limits = np.iinfo(self._integer(zero))
        scaled = self.g.op("Div", x, scale)
        shifted = self.g.op("Add", scaled, self._float(zero)) if zero else scaled
        low, high = (self.g.constant(end, np.float32) for end in (limits.min, limits.max))
        self.g.op_to(node.output[0], "Max", self.g.op("Min", shifted, high), low)

    def _dequantize(self, node: onnx.NodeProto) -> None:
        """Constants are left to the operator itself."""
        if node.input[0] in self._tensors:
            self.g.nodes.append(node)
            return
        y, scale, zero = (*node.input, "")[:3]
        self.g.op_to(node.output[0], "Mul", self._centred(y, zero), scale)

    def _product(self, node: onnx.NodeProto) -> None:
        a, b, a_zero, b_zero = (*node.input, "", "")[:4]
        self.g.op_to(node.output[0], "MatMul", self._centred(a, a_zero), self._centred(b, b_zero))

    def _convolution(self, node: onnx.NodeProto) -> None:
        x, w, x_zero, w_zero = (*node.input, "", "")[:4]
        if w_zero and w in self._tensors:  # one for each filter
            w_zero = self.g.reshape(w_zero, [-1, *[1] * (len(self._tensors[w].dims) - 1)])
        inputs = [self._centred(x, x_zero), self._centred(w, w_zero)]
        self.g.nodes.append(helper.make_node("Conv", inputs, node.output))
        self.g.nodes[-1].attribute.extend(node.attribute)

    def _dynamic_product(self, node: onnx.NodeProto) -> None:
        a, b, scale, zero, bias = (*node.input, "", "")[:5]
        product = self.g.op("MatMul", a, self.g.op("Mul", self._centred(b, zero), scale))
        self._biased(product, bias, node.output[0])

    def _scaled_product(self, node: onnx.NodeProto) -> None:
        a, b, a_scale, b_scale, a_zero, b_zero, bias = (*node.input, "", "", "")[:7]
        left = self.g.op("Mul", self._centred(a, a_zero), a_scale)
        right = self.g.op("Mul", self._centred(b, b_zero), b_scale)
        self._biased(self.g.op("MatMul", left, right), bias, node.output[0])

    def _biased(self, product: str, bias: str, output: str) -> None:
        if bias:
            self.g.op_to(output, "Add", product, bias)
        else:
            self.g.op_to(output, "Identity", product)

    def _centred(self, number: str, zero: str) -> str:
        return self.g.op("Sub", self._float(number), self._float(zero)) if zero else self._float(number)

    def _float(self, tensor: str) -> str:
        return self.g.op("Cast", tensor, to=TensorProto.FLOAT)

    def _integer(self, zero: str) -> np.dtype:
        if zero not in self._tensors:
            return np.dtype(np.uint8)
        return helper.tensor_dtype_to_np_dtype(self._tensors[zero].data_type)
