"""Damaged and hostile files, through the quarantine that the server has: refused in a sentence, or served rightly."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from server.operations import check
from stepgraph.errors import ModelRefused
from stepgraph.isolation.sandbox import Limits, Sandbox
from stepgraph.isolation.verdict import Proved, Refused, Verdict, put_together
from stepgraph.report.report import Report
from tests.hostile_models import ENORMOUS, calling, changed, doubling, endless, filling, half_between, lstm, nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECALL = Path(__file__).parents[3] / "models" / "recall" / "1" / "model.onnx"
SECONDS, MEMORY_MIB = 20, 512
FILES = int(os.environ.get("TIDEGATE_TEST_FILES", "50"))  # damaged in each way, four times
EXTREMES = (-1, 0, 1, 2, 7, 2**31, ENORMOUS, -(2**63))


class Files:
    """Has files looked into, as the server would."""

    def __init__(self, sandbox: Sandbox, path: Path) -> None:
        self.sandbox = sandbox
        self.path = path

    def outcome(self, content: bytes) -> Proved | str:
        """What becomes of a file: a proved model, or why it is refused."""
        self.path.write_bytes(content)
        try:
            verdict = self.sandbox.ask(Verdict, "load", self.path, max_batch=2, patience=0.0)
        except ModelRefused as refusal:
            return str(refusal)
        return verdict.outcome if isinstance(verdict.outcome, Proved) else verdict.outcome.message

    def refusal(self, model: onnx.ModelProto) -> str:
        """Why a model is refused."""
        outcome = self.outcome(model.SerializeToString())
        assert isinstance(outcome, str)
        return outcome


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(SECONDS, MEMORY_MIB)) as sandbox:
        yield sandbox


@pytest.fixture
def files(sandbox: Sandbox, tmp_path: Path) -> Files:
    return Files(sandbox, tmp_path / "model.onnx")


def answers_as_its_file(proved: Proved, content: bytes) -> bool:
    """Whether a model answers five steps of two sequences as onnxruntime answers the whole, from the file itself."""
    facts, model = proved.facts, put_together(proved, 0.0, fresh=True)
    if facts.freed:
        return True  # the file itself runs at one size only
    random = np.random.default_rng(0)
    data = facts.sample(5, 2, random)
    got = model.engine.run(data, np.tile(model.graph.initial, (2, 1)), trace=False).outputs
    whole = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [port.name for port in facts.outputs]
    wanted = whole.run(names, facts.feeds(data, 2, 5))
    return all(
        np.allclose(port.original(got[port.name]), y, rtol=1e-4, atol=1e-4)
        for port, y in zip(facts.outputs, wanted, strict=True)
    )


def is_settled(outcome: Proved | str, content: bytes) -> bool:
    """Whether a file is refused in a sentence, or served rightly."""
    if isinstance(outcome, str):
        return outcome != "" and "\n" not in outcome and "Traceback" not in outcome
    return outcome.proof.max_error <= outcome.proof.tolerance and answers_as_its_file(outcome, content)


def test_a_file_that_is_cut_short_anywhere_is_refused(files: Files) -> None:
    content = lstm().SerializeToString()
    for length in range(0, len(content), 5):
        outcome = files.outcome(content[:length])
        assert isinstance(outcome, str), f"cut to {length} of {len(content)} bytes"
        assert is_settled(outcome, b"")


@pytest.mark.parametrize("first", range(0, 4 * FILES, FILES))
def test_a_file_with_flipped_bytes_is_refused_or_served_rightly(files: Files, first: int) -> None:
    sound = RECALL.read_bytes()
    served = 0
    for seed in range(first, first + FILES):
        random = np.random.default_rng(seed)
        damaged = bytearray(sound)
        for place in random.integers(0, len(damaged), random.integers(1, 9)):
            damaged[place] = random.integers(0, 256)
        outcome = files.outcome(bytes(damaged))
        assert is_settled(outcome, bytes(damaged)), f"seed {seed}: {outcome}"
        served += isinstance(outcome, Proved)
    assert 0 < served < FILES / 2, "most damage is noticed, and a flipped bit of a weight is still a weight"


@pytest.mark.parametrize("first", range(0, 4 * FILES, FILES))
def test_a_file_that_parses_and_says_something_else_is_refused_or_served_rightly(files: Files, first: int) -> None:
    sound = onnx.load(RECALL)
    for seed in range(first, first + FILES):
        model = onnx.ModelProto()
        model.CopyFrom(sound)
        done = mutate(model, np.random.default_rng(seed))
        outcome = files.outcome(model.SerializeToString())
        assert is_settled(outcome, model.SerializeToString()), f"seed {seed}, {done}: {outcome}"


def mutate(model: onnx.ModelProto, random: np.random.Generator) -> str:
    """Changes one thing of a model into something that its type allows; says what."""
    graph = model.graph
    node = graph.node[random.integers(len(graph.node))]
    extreme = int(random.choice(np.array(EXTREMES, object)))
    tensors = [*graph.initializer, *(a.t for n in graph.node for a in n.attribute if a.HasField("t"))]
    tensor = tensors[random.integers(len(tensors))]
    dims = [d for info in (*graph.input, *graph.output) for d in info.type.tensor_type.shape.dim]
    attributes = [a for n in graph.node for a in n.attribute]
    attribute = attributes[random.integers(len(attributes))]
    names = [name for n in graph.node for name in (*n.input, *n.output)]

    def numbers() -> None:
        if tensor.data_type == TensorProto.INT64:
            tensor.raw_data = np.array(extreme, "<i8").tobytes() * (len(tensor.raw_data) // 8)
        else:
            tensor.raw_data = random.bytes(len(tensor.raw_data))

    def attribute_numbers() -> None:
        attribute.i = extreme
        attribute.ints[:] = [extreme] * len(attribute.ints)

    def rewire() -> None:
        field = node.input if node.input and random.integers(2) else node.output
        field[random.integers(len(field))] = str(random.choice(names))

    changes: dict[str, Callable[[], object]] = {
        "numbers": numbers,
        "shape": lambda: tensor.dims.append(extreme),
        "type": lambda: setattr(tensor, "data_type", int(random.integers(-1, 30))),
        "empty": lambda: tensor.ClearField("raw_data"),
        "axis": lambda: setattr(dims[random.integers(len(dims))], "dim_value", extreme),
        "attribute": attribute_numbers,
        "operator": lambda: setattr(
            node, "op_type", str(random.choice([n.op_type for n in graph.node] + ["If", "Loop"]))
        ),
        "wire": rewire,
        "gone": lambda: graph.node.remove(node),
        "twice": lambda: graph.node.append(node),
        "opset": lambda: setattr(model.opset_import[0], "version", extreme),
        "input": lambda: node.input.append(str(random.choice(names))),
    }
    name = str(random.choice(list(changes)))
    changes[name]()
    return name


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a shape that overflows": (
        lambda: changed(lambda m: m.graph.initializer[0].dims.__setitem__(1, ENORMOUS)),
        r"tensor 'W' declares the shape \[1, 4611686018427387904, 3\], which takes \d+ bytes, and 192 are there",
    ),
    "a shape that is negative": (
        lambda: changed(lambda m: m.graph.initializer[0].dims.__setitem__(1, -16)),
        r"tensor 'W' declares the shape \[1, -16, 3\]",
    ),
    "a type that is unknown": (
        lambda: changed(lambda m: setattr(m.graph.initializer[0], "data_type", 77)),
        "tensor 'W' has the element type 77, which ONNX has not",
    ),
    "a hidden size that is none": (
        lambda: changed(lambda m: setattr(m.graph.node[0].attribute[0], "i", ENORMOUS)),
        r"node 'cell' \(LSTM\): W \(16, 3\), R \(16, 4\) and hidden_size 4611686018427387904 do not fit together",
    ),
    "an axis that is enormous": (
        lambda: changed(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", ENORMOUS)),
        "input 'x' declares axes of 4611686018427387904: no step can be that large",
    ),
    "a circle": (
        lambda: changed(lambda m: m.graph.node[0].input.__setitem__(0, "y")),
        r"node 'cell' \(LSTM\) takes 'y', which node 'squeeze' \(Squeeze\) makes after it: the graph runs in a circle",
    ),
    "a circle of one": (
        lambda: changed(lambda m: m.graph.node[0].input.__setitem__(0, "Y")),
        r"node 'cell' \(LSTM\) takes 'Y', which it makes itself",
    ),
    "a name that nobody makes": (
        lambda: changed(lambda m: m.graph.node[1].input.__setitem__(0, "nowhere")),
        r"node 'squeeze' \(Squeeze\) takes 'nowhere', and nothing in the file makes it",
    ),
    "an output that nobody makes": (
        lambda: changed(lambda m: setattr(m.graph.output[0], "name", "nowhere")),
        "output 'nowhere' of the graph is made by no node",
    ),
    "a name that two make": (
        lambda: changed(lambda m: m.graph.node.append(m.graph.node[1])),
        r"node 'squeeze' \(Squeeze\) makes 'y', and so does node 'squeeze'",
    ),
    "graphs within graphs": (lambda: nested(25), "lies in more than 16 graphs"),
    "a function that calls itself": (lambda: calling([["f0"]]), r"\(f0\)|f0 .*calls a function that calls itself"),
    "functions that multiply": (
        lambda: calling([*([f"f{i + 1}"] * 9 for i in range(8)), ["Relu"]]),
        "more than 100000 nodes, those of its functions counted as often as they are used",
    ),
    "a value that fills all memory": (
        lambda: filling([2**32, 1, 1, 1]),
        rf"more than {MEMORY_MIB} MiB of memory, at node 'expand' \(Expand\).*--load-memory-mib",
    ),
    "a value that doubles": (lambda: doubling(40), rf"more than {MEMORY_MIB} MiB of memory, at node 'twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named_with_its_node_or_tensor(files: Files, name: str) -> None:
    make, words = REFUSED[name]
    model = make()
    assert re.search(words, files.refusal(model)), files.refusal(model)
    report = files.sandbox.ask(Report, "examine", files.path) if "memory" not in words else None
    assert report is None or re.search(words, str(report.reason))


def test_a_model_that_never_ends_is_stopped_after_the_time_that_is_set(tmp_path: Path) -> None:
    with Sandbox(Limits(0.5, MEMORY_MIB)) as sandbox:
        refusal = Files(sandbox, tmp_path / "model.onnx").refusal(endless())
    assert refusal.startswith("looking into the file took more than 0.5 s")
    assert "--load-seconds" in refusal


def test_a_sparse_initialiser_of_a_huge_shape_is_refused(files: Files) -> None:
    model = lstm()
    sparse = model.graph.sparse_initializer.add(dims=[2**40])
    sparse.values.CopyFrom(helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [0]))
    model.graph.node[0].input.append("sparse")
    assert "cell" in files.refusal(model)


def test_a_sound_file_in_half_precision_that_onnxruntime_dies_of_is_served(files: Files) -> None:
    content = half_between().SerializeToString()
    outcome = files.outcome(content)
    assert isinstance(outcome, Proved), outcome


def test_the_check_has_the_same_limits_and_tells_it_in_its_page_and_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(endless().SerializeToString())
    assert check.main([str(path), "--load-seconds", "0.5"], {}) == 1
    page = capsys.readouterr().out
    assert "REFUSED" in page
    assert "took more than 0.5 s" in " ".join(page.split())
    path.write_bytes(filling([2**32, 1, 1, 1]).SerializeToString())
    assert check.main([str(path), "--json"], {"TIDEGATE_LOAD_MEMORY_MIB": "300"}) == 1
    assert "more than 300 MiB of memory" in json.loads(capsys.readouterr().out)["reason"]


def test_a_pipe_of_that_name_is_refused_and_nobody_waits_for_it(files: Files) -> None:
    os.mkfifo(files.path)
    outcome = files.sandbox.ask(Verdict, "load", files.path, max_batch=1, patience=0.0).outcome
    assert isinstance(outcome, Refused)
    assert outcome.message == "'model.onnx' is no ordinary file, and only those are read"
