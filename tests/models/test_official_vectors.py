"""The recurrent cases of ONNX's own backend tests, streamed step by step."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.case import node as official

from stepgraph.errors import ModelRefused
from stepgraph.loading import load

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KINDS = ("LSTM", "GRU", "RNN")


def collect() -> dict[str, tuple[onnx.ModelProto, list[NDArray[np.generic]], list[NDArray[np.generic]]]]:
    """Model, inputs and expected outputs of every case that holds a recurrent operator.

    Loading a module of onnx makes its cases; `collect_testcases` would make those of all operators, in five seconds.
    """
    for kind in KINDS:
        import_module(f"{official.__name__}.{kind.lower()}")
    cases = [case for case in official._NodeTestCases if case.model.graph.node[0].op_type in KINDS]
    return {case.name.removeprefix("test_"): (case.model, *case.data_sets[0]) for case in cases}


OFFICIAL = collect()
BACKWARDS = [name for name in OFFICIAL if name.endswith(("_reverse", "_bidirectional"))]
FORWARDS = [name for name in OFFICIAL if name not in BACKWARDS]


def servable(model: onnx.ModelProto, inputs: list[NDArray[np.generic]]) -> onnx.ModelProto:
    """The case as a file that a person would have: weights are initialisers, batch and time are free.

    What is as long as the batch cannot be constant then: lengths, all of them full, become the number of steps, and
    initial states their one row, repeated as often as X has sequences. The operator's node stays as it is.
    """
    node = model.graph.node[0]
    values = {info.name: value for info, value in zip(model.graph.input, inputs, strict=True)}
    x = values.pop("X")
    batch_axis = int(any(a.name == "layout" and a.i for a in node.attribute)) ^ 1
    before = [helper.make_node("Shape", ["X"], ["shape"])]
    before += [helper.make_node("Gather", ["shape", f"{axis}.axis"], [axis]) for axis in ("batch", "time")]
    sizes = {"batch.axis": batch_axis, "time.axis": 1 - batch_axis, "one": 1}
    constants = [numpy_helper.from_array(np.array([size]), name) for name, size in sizes.items()]
    for name, value in values.items():
        if name in ("W", "R", "B", "P"):
            constants.append(numpy_helper.from_array(value, name))
        elif name == "sequence_lens":
            assert (value == x.shape[1 - batch_axis]).all()
            before.append(helper.make_node("Cast", ["time"], ["length"], to=onnx.TensorProto.INT32))
            before.append(helper.make_node("Expand", ["length", "batch"], [name]))
        else:
            assert (value == value[:, :1]).all()
            constants.append(numpy_helper.from_array(value[:, :1], f"{name}.row"))
            before.append(helper.make_node("Concat", ["one", "batch", "one"], [f"{name}.shape"], axis=0))
            before.append(helper.make_node("Expand", [f"{name}.row", f"{name}.shape"], [name]))
    free = ["batch", "time"] if batch_axis == 0 else ["time", "batch"]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    outputs = [helper.make_tensor_value_info(info.name, kind, [None] * _rank(info)) for info in model.graph.output]
    x_info = helper.make_tensor_value_info("X", kind, [*free, x.shape[2]])
    graph = helper.make_graph([*before, node], "g", [x_info], outputs, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _rank(info: onnx.ValueInfoProto) -> int:
    return len(info.type.tensor_type.shape.dim)


def test_there_are_six_cases_of_each_operator() -> None:
    kinds = [model.graph.node[0].op_type for model, _, _ in OFFICIAL.values()]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 6)
    assert (len(FORWARDS), len(BACKWARDS)) == (12, 6)


@pytest.mark.parametrize("name", FORWARDS)
def test_an_official_case_streams_with_its_own_expected_outputs(name: str, tmp_path: Path) -> None:
    model, inputs, expected = OFFICIAL[name]
    path = tmp_path / "model.onnx"
    onnx.save(servable(model, inputs), path)
    engine = load(path, 1, 1e-3).engine
    batch_first = any(a.name == "layout" and a.i for a in model.graph.node[0].attribute)
    x_TBI = np.moveaxis(inputs[0], 1, 0) if batch_first else inputs[0]
    steps, batch = x_TBI.shape[:2]
    state = np.tile(engine.graph.initial, (batch, 1))
    answers: dict[str, list[NDArray[np.generic]]] = {info.name: [] for info in model.graph.output}
    for k in range(steps):
        result = engine.run({"X": x_TBI[k : k + 1]}, state, trace=False)
        state = result.state
        for output, values in result.outputs.items():
            answers[output].append(values[0].reshape(batch, -1))
    for info, wanted in zip(model.graph.output, expected, strict=True):
        if info.name == "Y":  # [T, 1, B, H] or [B, T, 1, H]
            wanted_TBH = np.moveaxis(wanted[:, :, 0], 1, 0) if batch_first else wanted[:, 0]
            np.testing.assert_allclose(answers["Y"], wanted_TBH, rtol=0, atol=1e-5)
        else:  # the last states, [1, B, H] or [B, 1, H]
            np.testing.assert_allclose(answers[info.name][-1], wanted.reshape(batch, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", BACKWARDS)
def test_an_official_case_that_needs_the_future_is_refused_with_that_reason(name: str, tmp_path: Path) -> None:
    model, inputs, _ = OFFICIAL[name]
    path = tmp_path / "model.onnx"
    onnx.save(servable(model, inputs), path)
    with pytest.raises(ModelRefused, match=rf"runs {name.rsplit('_', 1)[1]}: it needs steps that have not come yet"):
        load(path, 1, 1e-3)
