"""How onnxruntime is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from stepgraph.running import session
from stepgraph.running.session import Bound

MODEL = helper.make_model(
    helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
    ir_version=8,
)


class Renamed:
    """A session of an onnxruntime whose private names are others."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._inner: Any = session
        self.run, self.io_binding = session.run, session.io_binding
        self.runs = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        raise AttributeError(name)

    def run_with_iobinding(self, iobinding: object, run_options: object) -> None:
        self.runs += 1
        self._inner.run_with_iobinding(iobinding, run_options)


def test_arrays_that_are_kept_are_computed_from_also_where_onnxruntimes_private_names_are_others() -> None:
    renamed: Any = Renamed(onnxruntime.InferenceSession(MODEL.SerializeToString(), providers=["CPUExecutionProvider"]))
    x, y = np.zeros(3, np.float32), np.zeros(3, np.float32)
    bound = Bound(renamed, {"x": x}, {"y": y})
    for values in ([1, 2, 3], [4, 5, 6]):
        x[:] = values
        bound.run()
        np.testing.assert_array_equal(y, -x)
    assert renamed.runs == 2


def test_a_run_needs_none_of_onnxruntimes_private_names() -> None:
    known: Any = onnxruntime.InferenceSession(MODEL.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.arange(3, dtype=np.float32)
    for each in (known, Renamed(known)):
        (y,) = session.run(each, ["y"], {"x": x})
        np.testing.assert_array_equal(y, -x)
