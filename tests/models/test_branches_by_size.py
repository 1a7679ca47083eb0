"""`If` that exporters write for a squeeze: which branch is taken goes by the sizes that model.toml says."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load

BATCH, STEPS, HIDDEN = 2, 200, 8
FRAME = 4
SR = "[fixed]\nsr = 16\n"


def _const(name: str, values: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def _branches(name: str, taken: str, left: str, axis: str, operator: str) -> onnx.NodeProto:
    """`If` of a squeeze or unsqueeze of `taken`, as torch writes one that it cannot decide."""
    out = helper.make_tensor_value_info(f"{name}/then", TensorProto.FLOAT, None)
    other = helper.make_tensor_value_info(f"{name}/else", TensorProto.FLOAT, None)
    then = helper.make_graph([helper.make_node(operator, [taken, axis], [f"{name}/then"])], f"{name}/t", [], [out])
    same = helper.make_graph([helper.make_node("Identity", [left], [f"{name}/else"])], f"{name}/e", [], [other])
    return helper.make_node("If", [f"{name}/condition"], [name], name=name, then_branch=then, else_branch=same)


def voice(rated: bool, twice: bool, add: bool) -> onnx.ModelProto:
    """One step of samples [B, S] with a state [2, B, H]: a convolution, a squeeze if one frame is left, a cell.

    `rated`: an input `sr` decides between two scales. `twice`: the unsqueeze after it is an `If` too. `add`: the states
    are put together by additions, as an exporter does for a stack that it cannot see through.
    """
    torch.manual_seed(0)
    cell = nn.LSTM(HIDDEN, HIDDEN)
    with torch.no_grad():
        w, r, b, d = (getattr(cell, f"{n}_l0").numpy() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    order = [0, 3, 1, 2]  # torch has i, f, g, o and ONNX i, o, f, g
    w, r, b, d = (np.concatenate([np.split(part, 4)[k] for k in order]) for part in (w, r, b, d))
    inits = [
        _const("filters", np.random.default_rng(0).normal(size=(HIDDEN, 1, FRAME)), np.float32),
        _const("w", w[np.newaxis], np.float32),
        _const("r", r[np.newaxis], np.float32),
        _const("b", np.concatenate([b, d])[np.newaxis], np.float32),
        *(_const(f"axis{i}", [i]) for i in range(3)),
        *(_const(f"at{i}", i) for i in range(3)),
        _const("one", 1),
        _const("sixteen", 16),
        *(_const(f"pick{i}", np.eye(2)[i].reshape(2, 1, 1), np.float32) for i in range(2)),
        _const("three", 3),
    ]
    n = helper.make_node
    nodes = [n("Unsqueeze", ["x", "axis1"], ["x1"]), n("Conv", ["x1", "filters"], ["frames"], strides=[FRAME])]
    frames = "frames"
    if rated:
        nodes.append(n("Equal", ["sr", "sixteen"], ["scaled/condition"]))
        outs = [helper.make_tensor_value_info(f"scaled/{k}", TensorProto.FLOAT, None) for k in ("t", "e")]
        then = helper.make_graph([n("Relu", ["frames"], ["scaled/t"])], "t", [], outs[:1])
        other = helper.make_graph([n("Neg", ["frames"], ["scaled/e"])], "e", [], outs[1:])
        nodes.append(n("If", ["scaled/condition"], ["scaled"], name="scaled", then_branch=then, else_branch=other))
        frames = "scaled"
    nodes += [
        n("Shape", [frames], ["shape"]),
        n("Gather", ["shape", "at2"], ["left"]),
        n("Equal", ["left", "one"], ["row/condition"]),
        _branches("row", frames, frames, "axis2", "Squeeze"),
    ]
    if twice:
        nodes += [
            n("Shape", ["row"], ["row/shape"]),
            n("Size", ["row/shape"], ["row/rank"]),
            n("Less", ["row/rank", "three"], ["seen/condition"]),
            _branches("seen", "row", "row", "axis0", "Unsqueeze"),
        ]
    else:
        nodes.append(n("Unsqueeze", ["row", "axis0"], ["seen"]))
    nodes += [
        n("Gather", ["state", "axis0"], ["h"]),
        n("Gather", ["state", "axis1"], ["c"]),
        n("LSTM", ["seen", "w", "r", "b", "", "h", "c"], ["", "hn", "cn"], name="cell", hidden_size=HIDDEN),
        n("Squeeze", ["hn", "axis0"], ["y"]),
    ]
    if add:
        nodes += [
            n("Mul", ["hn", "pick0"], ["hs"]),
            n("Mul", ["cn", "pick1"], ["cs"]),
            n("Add", ["hs", "cs"], ["next"]),
        ]
    else:
        nodes.append(n("Concat", ["hn", "cn"], ["next"], axis=0))
    info = helper.make_tensor_value_info
    inputs = [
        info("x", TensorProto.FLOAT, ["batch", "samples"]),
        info("state", TensorProto.FLOAT, [2, "batch", HIDDEN]),
    ]
    inputs += [info("sr", TensorProto.INT64, [])] if rated else []
    outputs = [info("y", TensorProto.FLOAT, ["batch", HIDDEN]), info("next", TensorProto.FLOAT, ["a", "batch", "b"])]
    graph = helper.make_graph(nodes, "voice", inputs, outputs, inits)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


@pytest.mark.parametrize(
    ("rated", "twice", "add"), [(False, False, False), (True, False, True), (False, True, True), (True, True, False)]
)
def test_the_branch_that_is_taken_goes_by_what_model_toml_fixes(
    rated: bool, twice: bool, add: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(voice(rated, twice, add), path)
    fixed = SR if rated else ""
    path.with_name("model.toml").write_text(fixed)
    with pytest.raises(ModelRefused):
        load(path, 4, 1.0)
    path.with_name("model.toml").write_text(f"{fixed}[block]\nx = {FRAME}\n")
    loaded, session = load(path, 4, 1.0), onnxruntime.InferenceSession(path)
    assert {carried.given.name: carried.returned.name for carried in loaded.facts.carried} == {"state": "next"}
    x = np.random.default_rng(0).normal(size=(STEPS, BATCH, FRAME)).astype(np.float32)
    held, state = np.zeros((2, BATCH, HIDDEN), np.float32), np.tile(loaded.graph.initial, (BATCH, 1))
    rate = {"sr": np.array(16)} if rated else {}
    for row in x:
        wanted, held = session.run(["y", "next"], {"x": row, "state": held} | rate)
        result = loaded.engine.run({"x": row[np.newaxis]}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0], wanted, atol=1e-5)
