"""`python -m tests.lab.looks [WORDS]`: what it costs to look at sound files of unusual kinds, all of less than 50 MB.

Prints for each kind whose name holds one of the words its size, wall-clock and processor seconds, and the outcome.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stepgraph.errors import ModelRefused
from stepgraph.isolation.sandbox import Limits, Sandbox
from stepgraph.isolation.verdict import Refused, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BLOCKS = {"RNN": 1, "GRU": 3, "LSTM": 4}


def stack(kind: str, layers: int, width: int, hidden: int) -> onnx.ModelProto:
    """Layers of one kind, [batch, time, width] in and [batch, time, hidden] out."""
    random = np.random.default_rng(0)
    made, x = [helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2])], "turned"
    weights = [numpy_helper.from_array(np.array([1]), "one")]
    for i in range(layers):
        for name, inputs in (("W", width if i == 0 else hidden), ("R", hidden)):
            values = random.standard_normal((1, BLOCKS[kind] * hidden, inputs), np.float32) / np.sqrt(inputs)
            weights.append(numpy_helper.from_array(values.astype(np.float32), f"{name}{i}"))
        made.append(helper.make_node(kind, [x, f"W{i}", f"R{i}"], [f"Y{i}"], f"cell{i}", hidden_size=hidden))
        made.append(helper.make_node("Squeeze", [f"Y{i}", "one"], [f"shown{i}"]))
        x = f"shown{i}"
    made.append(helper.make_node("Transpose", [x], ["y"], perm=[1, 0, 2]))
    ports = [_port("x", width)], [_port("y", hidden)]
    graph = helper.make_graph(made, "stack", *ports, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _port(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "time", width])


def many_nodes(count: int) -> onnx.ModelProto:
    model = stack("GRU", 1, 8, 8)
    names = ["y", *(f"n{i}" for i in range(count))]
    model.graph.node.extend(
        helper.make_node("Tanh" if i % 2 else "Neg", [names[i]], [names[i + 1]]) for i in range(count)
    )
    model.graph.output[0].name = names[-1]
    return model


def many_ports(count: int) -> onnx.ModelProto:
    model = stack("LSTM", 1, 8, 8)
    for i in range(count):
        model.graph.input.append(_port(f"given{i}", 4))
        model.graph.output.append(_port(f"answer{i}", 4))
        model.graph.node.append(helper.make_node("Neg", [f"given{i}"], [f"answer{i}"]))
    return model


def wide_answers(width: int) -> onnx.ModelProto:
    model = stack("LSTM", 1, 16, 16)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((16, width), np.float32), "wide"))
    model.graph.node.append(helper.make_node("MatMul", ["y", "wide"], ["z"]))
    model.graph.output[0].CopyFrom(_port("z", width))
    return model


def long_constants(count: int) -> onnx.ModelProto:
    model = stack("LSTM", 1, 8, 8)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(count, np.float32), "long"))
    return model


KINDS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "wide rows: 160,000 to a GRU of 24": lambda: stack("GRU", 1, 160_000, 24),
    "wide rows: 40,000 to an LSTM of 64": lambda: stack("LSTM", 1, 40_000, 64),
    "wide answers of 600,000": lambda: wide_answers(600_000),
    "an LSTM of 1,500": lambda: stack("LSTM", 1, 64, 1500),
    "an RNN of 3,000": lambda: stack("RNN", 1, 64, 3000),
    "60 layers of LSTM": lambda: stack("LSTM", 60, 64, 64),
    "200 layers of GRU": lambda: stack("GRU", 200, 16, 16),
    "8,000 nodes": lambda: many_nodes(8000),
    "300 ports": lambda: many_ports(300),
    "a constant of 10,000,000": lambda: long_constants(10_000_000),
}


def look(path: Path) -> str:
    """One line: size, seconds and outcome."""
    with Sandbox(Limits(60, 4096)) as sandbox:
        started = time.perf_counter()
        try:
            outcome = sandbox.ask(Verdict, "load", path, max_batch=64, patience=1.0).outcome
            said = f"refused: {outcome.message:.150}" if isinstance(outcome, Refused) else "proved"
        except ModelRefused as refused:
            said = f"refused: {refused}"
        seconds = time.perf_counter() - started
    return f"{path.stat().st_size / 2**20:5.1f} MiB {seconds:5.1f} s  {said}"


def main(words: list[str]) -> None:
    """Prints the table."""
    for name, make in KINDS.items():
        if words and not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(make(), path)
            before = os.times().children_user
            line = look(path)
            print(f"{name:35} {line}  ({os.times().children_user - before:.1f} s of a processor)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
