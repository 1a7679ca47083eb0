"""What of a graph does not depend on its inputs, and its value."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from stepgraph.graphs.builder import captured


class Constants:
    """The values of tensors that do not depend on the model's inputs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {output: node for node in model.graph.node for output in node.output if output}

    def value(self, name: str) -> np.ndarray | None:
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        nodes = self._ancestors(name)
        if nodes is None:
            return None
        used = {tensor for node in nodes for tensor in (*node.input, *captured(node))}
        initializers = [tensor for key, tensor in self._initializers.items() if key in used]
        graph = helper.make_graph(nodes, "constant", [], [helper.make_empty_tensor_value_info(name)], initializers)
        model = helper.make_model(graph, opset_imports=self._model.opset_import)
        (value,) = ReferenceEvaluator(model).run(None, {})
        return np.asarray(value)

    def _ancestors(self, name: str) -> list[onnx.NodeProto] | None:
        """The nodes that make a tensor, in the graph's order; None if an input of the model is among their inputs."""
        needed, seen = [name], set()
        while needed:
            tensor = needed.pop()
            if not tensor or tensor in self._initializers or tensor in seen:
                continue
            if tensor not in self._producers:
                return None
            seen.add(tensor)
            needed.extend(self._producers[tensor].input)
            needed.extend(captured(self._producers[tensor]))
        return [node for node in self._model.graph.node if seen.intersection(node.output)]
