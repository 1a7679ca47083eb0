"""A graph looked at once: its inputs, what makes each tensor, and the values of tensors that depend on no input."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from stepgraph.errors import ModelRefused
from stepgraph.graphs import weights
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import captured

_NEWER = 19
MEASURING = frozenset({"Shape", "Size"})  # what they make depends on no value


class Graph:
    """A model that is not changed while this is used."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = model.graph.node
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values: dict[str, np.ndarray | None] = {}

    @cached_property
    def inputs(self) -> dict[str, onnx.ValueInfoProto]:
        """The inputs without those that are initialisers (files before IR version 4 list them)."""
        return {info.name: info for info in self.model.graph.input if info.name not in self._initializers}

    @cached_property
    def makers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {output: node for node in self.nodes for output in node.output if output}

    @cached_property
    def _live(self) -> set[str]:
        """The tensors that depend on an input."""
        live = set(self.inputs)
        for node in self.nodes:
            if not live.isdisjoint(node.input) or not live.isdisjoint(captured(node)):
                live.update(filter(None, node.output))
        return live

    @cached_property
    def _types(self) -> dict[str, onnx.TypeProto.Tensor]:
        graph = shape_inference.infer_shapes(self.model, data_prop=True).graph
        return {info.name: info.type.tensor_type for info in (*graph.input, *graph.value_info, *graph.output)}

    def sized(self, name: str, node: onnx.NodeProto) -> list[int]:
        """The sizes of an input of a node, 0 for a free axis; the last must be known."""
        known = self._initializers.get(name)
        sizes = list(known.dims) if known else [dim.dim_value for dim in self._types[name].shape.dim]
        if not sizes or not sizes[-1]:
            raise ModelRefused(
                f"{label(node)} takes '{name}', and how wide it is cannot be told from the file. Export the model with "
                "the shapes of its tensors, all axes fixed but those of batch and time",
                name_of(node),
            )
        return sizes

    def dtype(self, name: str) -> np.dtype:
        known = self._initializers.get(name)
        return helper.tensor_dtype_to_np_dtype(known.data_type if known else self._types[name].elem_type)

    def known_dtype(self, name: str) -> np.dtype | None:
        """As `dtype`; None where it cannot be inferred."""
        known = name in self._initializers or (name in self._types and self._types[name].elem_type)
        return self.dtype(name) if known else None

    def value(self, name: str) -> np.ndarray | None:
        """A tensor's value, not to be changed; None if it depends on an input."""
        if name not in self._values:
            self._values[name] = self._value(name)
        return self._values[name]

    def made_of(self, *names: str, by_value: bool = False) -> set[str]:
        """All tensors that these are made of, themselves among them; `by_value`: not those of whose sizes alone."""
        needed, seen = list(names), set[str]()
        while needed:
            name = needed.pop()
            maker = self.makers.get(name)
            if name not in seen and maker and not (by_value and maker.op_type in MEASURING):
                needed.extend(filter(None, (*maker.input, *captured(maker))))
            seen.add(name)
        return seen

    def _value(self, name: str) -> np.ndarray | None:
        if name in self._initializers:
            return weights.array(self._initializers[name])
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Constant" and maker.attribute[0].name == "value":
            return numpy_helper.to_array(maker.attribute[0].t)
        if name in self._live:
            return None
        needed = self.made_of(name)
        if any(tensor and tensor not in self.makers and tensor not in self._initializers for tensor in needed):
            return None
        nodes = [node for node in self.nodes if needed.intersection(filter(None, node.output))]
        initializers = [weights.whole(tensor) for key, tensor in self._initializers.items() if key in needed]
        graph = helper.make_graph(nodes, "constant", [], [helper.make_empty_tensor_value_info(name)], initializers)
        try:
            return _computed(graph, self.model.opset_import)
        except RuntimeError:  # the evaluator has DequantizeLinear in newer versions only, which computes the same
            return _computed(graph, [helper.make_opsetid("", _NEWER)])


def _computed(graph: onnx.GraphProto, opsets: Sequence[onnx.OperatorSetIdProto]) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 # 20 ms, which a server with known files does not need

    (value,) = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, {})
    return np.asarray(value)
