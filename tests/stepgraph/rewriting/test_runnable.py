"""The original file in operators that onnxruntime runs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stepgraph.errors import StepFailed
from stepgraph.rewriting import runnable
from stepgraph.running import session


def dropping(layout: int) -> onnx.ModelProto:
    """A GRU over all but the first two steps of `x`, whose axis of time is the first, or with `layout` the second."""
    bounds = [numpy_helper.from_array(np.array([n], np.int64), f"n{n}") for n in (2, 99, layout)]
    weights = [numpy_helper.from_array(np.ones((1, 6, n), np.float32), name) for n, name in ((3, "W"), (2, "R"))]
    nodes = [
        helper.make_node("Slice", ["x", "n2", "n99", f"n{layout}"], ["late"]),
        helper.make_node("GRU", ["late", "W", "R"], ["y"], hidden_size=2, layout=layout),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "dropping", ends[:1], ends[1:], [*bounds, *weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("layout", [0, 1])
def test_a_gru_that_is_left_no_step_fails_and_does_not_abort_the_process(layout: int) -> None:
    run = session.create(runnable.runnable(dropping(layout)))
    x = np.ones((5, 5, 3), np.float32)
    assert session.run(run, ["y"], {"x": x})[0].shape[layout] == 3
    with pytest.raises(StepFailed, match="Gather"):
        session.run(run, ["y"], {"x": x[:2, :2]})
