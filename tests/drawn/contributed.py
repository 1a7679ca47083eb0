"""onnxruntime's own operators, which its tools write into files, put on a tensor that was drawn."""

from __future__ import annotations

from onnx import NodeProto, helper

from tests.drawn.graphs import OWN, Drawing
from tests.drawn.operators import OPERATORS, other, pick, puts


@puts("BiasGelu FastGelu QuickGelu")
def smooth(d: Drawing, operator: str) -> str:
    x = pick(d, 1)
    bias = [d.noise(d.sized(x, len(d.axes(x)) - 1))] if operator == "BiasGelu" else []
    return d.op(operator, x, *bias, domain=OWN)


@puts("QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid")
def rounded(d: Drawing, operator: str) -> str:
    x = pick(d)
    of = d.constant(0.05), d.constant(128, "uint8")
    taken = [x, other(d, x)] if operator in ("QLinearAdd", "QLinearMul") else [x]
    inputs = [name for each in taken for name in (d.op("QuantizeLinear", each, *of), *of)]
    return d.op("DequantizeLinear", d.op(operator, *inputs, *of, domain=OWN), *of)


@puts("FusedConv")
def with_activation(d: Drawing) -> str:
    name = OPERATORS["Conv"](d)
    d.nodes[-1].MergeFrom(NodeProto(op_type="FusedConv", domain=OWN))
    d.nodes[-1].attribute.append(helper.make_attribute("activation", "Relu"))
    return name
