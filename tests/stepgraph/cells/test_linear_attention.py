"""LinearAttention of ONNX: one step at a time it answers as its untouched file and as its equations in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import tidegate
from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.report import examination, page
from tests.running_server import RunningServer
from tests.stepgraph.cells.streaming import streamed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

BATCH, STEPS, INPUTS = 2, 40, 3
HEADS, QUERIES, KEYS, VALUES = 2, 4, 3, 5  # heads of keys and values, heads of queries, and the sizes of each
RULES = {"linear": (), "gated": ("decay",), "delta": ("beta",), "gated_delta": ("decay", "beta")}
EVERY_RULE = pytest.mark.parametrize("rule", RULES)


def weights(decays: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)
    widths = {"query": QUERIES * KEYS, "key": HEADS * KEYS, "value": HEADS * VALUES, "decay": decays, "beta": HEADS}
    drawn = {name: random.standard_normal((INPUTS, width)) for name, width in widths.items()}
    drawn["head"] = random.standard_normal((QUERIES * VALUES, 2))
    return {name: (0.4 * weight).astype(np.float32) for name, weight in drawn.items()}


def written(
    rule: str, given: dict[str, NDArray[np.float32]], *, shown: bool = False, steps: int | str = "time"
) -> onnx.ModelProto:
    """x [B, T, I] to a head [B, T, 2]; `shown`: the memory is an input and an output."""
    f32 = TensorProto.FLOAT
    made = {"query": "query", "key": "key", "value": "value", "decay": "log_decay", "beta": "log_beta"}
    nodes = [helper.make_node("MatMul", ["x", f"W_{name}"], [output]) for name, output in made.items()]
    nodes += [helper.make_node("Abs", ["log_decay"], ["size"]), helper.make_node("Neg", ["size"], ["decay"])]
    nodes.append(helper.make_node("Sigmoid", ["log_beta"], ["beta"]))
    optional = ["memory" if shown else "", *(name if name in RULES[rule] else "" for name in ("decay", "beta"))]
    inputs = ["query", "key", "value", *optional]
    while not inputs[-1]:
        inputs.pop()
    heads = {"q_num_heads": QUERIES, "kv_num_heads": HEADS}
    nodes.append(helper.make_node("LinearAttention", inputs, ["a", "memory_out"], "cell", update_rule=rule, **heads))
    nodes.append(helper.make_node("MatMul", ["a", "W_head"], ["y"]))
    size = ["batch", HEADS, KEYS, VALUES]
    ins = [helper.make_tensor_value_info("x", f32, ["batch", steps, INPUTS])]
    outs = [helper.make_tensor_value_info("y", f32, ["batch", steps, 2])]
    if shown:
        ins.append(helper.make_tensor_value_info("memory", f32, size))
        outs.append(helper.make_tensor_value_info("memory_out", f32, size))
    tensors = [numpy_helper.from_array(weight, f"W_{name}") for name, weight in given.items()]
    graph = helper.make_graph(nodes, "attention", ins, outs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 27)], ir_version=11)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def by_equations(rule: str, given: dict[str, NDArray[np.float32]], x: NDArray[np.float32]) -> dict[str, Tensor]:
    """The head, and the parts of a trace, [T, B, n] each, by the equations of the operator."""
    w = {name: torch.from_numpy(weight) for name, weight in given.items()}
    steps = torch.from_numpy(x).transpose(0, 1)
    S = torch.zeros(x.shape[0], HEADS, KEYS, VALUES)
    seen: dict[str, list[Tensor]] = {"y": [], "decay": [], "beta": [], "norm": []}
    for row in steps:
        q = (row @ w["query"]).reshape(-1, QUERIES, KEYS)
        k = (row @ w["key"]).reshape(-1, HEADS, KEYS, 1)
        v = (row @ w["value"]).reshape(-1, HEADS, 1, VALUES)
        d, b = torch.exp(-(row @ w["decay"]).abs()), torch.sigmoid(row @ w["beta"])
        if "decay" in RULES[rule]:
            S = d.reshape(-1, HEADS, d.shape[-1] // HEADS, 1) * S
        if "beta" in RULES[rule]:
            v = b[..., None, None] * (v - (k * S).sum(2, keepdim=True))
        S = S + k * v
        o = torch.einsum("bhk,bhkv->bhv", q, S.repeat_interleave(QUERIES // HEADS, 1)) / KEYS**0.5
        parts = {"y": o.flatten(1) @ w["head"], "decay": d, "beta": b, "norm": S.flatten(2).norm(dim=-1)}
        for name, part in parts.items():
            seen[name].append(part)
    return {name: torch.stack(parts) for name, parts in seen.items()}


@pytest.mark.parametrize("decays", [HEADS, HEADS * KEYS], ids=["one decay a head", "one decay a key"])
@EVERY_RULE
def test_each_update_rule_answers_as_its_file_and_as_its_equations_and_shows_its_gates(
    rule: str, decays: int, tmp_path: Path
) -> None:
    given = weights(decays)
    path = saved(written(rule, given), tmp_path)
    loaded = load(path, 4, 1e-3)
    (cell,) = loaded.graph.layers
    assert (cell.kind, cell.node, cell.input_size, cell.hidden_size) == (
        "LinearAttention",
        "cell",
        QUERIES * KEYS,
        QUERIES * VALUES,
    )
    assert cell.gates == loaded.graph.gates_of(0) == (*RULES[rule], "norm")
    assert loaded.engine.alone is None, "rows keep their bits in a batch"
    x = np.random.default_rng(1).standard_normal((BATCH, STEPS, INPUTS)).astype(np.float32)
    got, wanted = streamed(loaded, x), by_equations(rule, given, x)
    for name in ("y", *cell.gates):
        np.testing.assert_allclose(got[name], wanted[name].numpy(), atol=1e-5, rtol=1e-5, err_msg=name)
    (original,) = onnxruntime.InferenceSession(path).run(["y"], {"x": x})
    np.testing.assert_allclose(got["y"], original.transpose(1, 0, 2), atol=1e-5)


@pytest.mark.parametrize("steps", ["time", 1], ids=["whole sequences", "one step"])
@EVERY_RULE
def test_a_memory_that_the_file_shows_as_input_and_output_is_its_state(
    rule: str, steps: int | str, tmp_path: Path
) -> None:
    given = weights(HEADS)
    loaded = load(saved(written(rule, given, shown=True, steps=steps), tmp_path), 4, 1e-3)
    assert [(pair.given.name, pair.returned.name) for pair in loaded.facts.carried] == [("memory", "memory_out")]
    assert [port.name for port in loaded.facts.outputs] == ["y"]
    x = np.random.default_rng(1).standard_normal((BATCH, STEPS, INPUTS)).astype(np.float32)
    got, wanted = streamed(loaded, x), by_equations(rule, given, x)
    for name in ("y", *loaded.graph.gates_of(0)):
        parts = got[name].reshape(wanted[name].shape)
        np.testing.assert_allclose(parts, wanted[name].numpy(), atol=1e-5, rtol=1e-5, err_msg=name)


def test_the_report_says_where_the_memory_is_and_what_a_trace_shows(tmp_path: Path) -> None:
    report = examination.examine(saved(written("gated_delta", weights(HEADS)), tmp_path))
    assert [(state.name, state.row, state.home) for state in report.states] == [
        ("memory", (HEADS, KEYS, VALUES), "server")
    ]
    assert [trace.shown for trace in report.traces] == [("decay", "beta", "norm")]
    assert report.remarks == ()
    text = "\n".join(line.text for line in page.lines(report))
    assert "0  LinearAttention 12 -> 20" in text
    assert "LinearAttention  12 -> 20" in text, "the drawing has the sizes too"


def test_a_file_that_hides_how_wide_a_key_is_is_refused_in_these_words(tmp_path: Path) -> None:
    model = written("linear", weights(HEADS))
    model.graph.input.append(helper.make_tensor_value_info("W_key", TensorProto.FLOAT, [INPUTS, "wide"]))
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "W_key"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    with pytest.raises(ModelRefused, match=r"node 'cell' .* takes 'key', and how wide it is cannot be told"):
        load(saved(model, tmp_path), 4, 1e-3)


def test_a_client_reads_decay_and_norm_by_name_and_a_sequence_goes_on_from_its_taken_state(tmp_path: Path) -> None:
    (tmp_path / "attention" / "1").mkdir(parents=True)
    given = weights(HEADS)
    saved(written("gated_delta", given), tmp_path / "attention" / "1")
    x = np.random.default_rng(1).standard_normal((1, STEPS, INPUTS)).astype(np.float32)
    wanted = by_equations("gated_delta", given, x)
    with RunningServer(tmp_path) as server, tidegate.Client(server.ready().address) as client:
        (layer,) = client.describe("attention").layers
        assert (layer.kind, layer.gates) == ("LinearAttention", ("decay", "beta", "norm"))
        with client.sequence("attention", trace=True) as sequence:
            first = sequence.chunk(x[0, : STEPS // 2])
            state = sequence.state()
        with client.sequence("attention", trace=True, state=state) as sequence:
            second = sequence.chunk(x[0, STEPS // 2 :])
    for name in ("decay", "beta", "norm"):
        got = np.concatenate([first.layer[0][name], second.layer[0][name]])
        np.testing.assert_allclose(got, wanted[name][:, 0].numpy(), atol=1e-5, rtol=1e-5, err_msg=name)
