"""What is read of graphs, held against what onnxruntime computes of them; TIDEGATE_DRAWN_GRAPHS draws more of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

import tests.drawn.classical
import tests.drawn.contributed
import tests.drawn.lists
import tests.drawn.places
import tests.drawn.rest
import tests.drawn.shapes  # noqa: F401 # they add their operators
from stepgraph.graphs.sliding import SLIDING
from stepgraph.rules import listing, products, reductions, windows
from stepgraph.rules.families import RULES
from tests.drawn import graphs
from tests.drawn.graphs import SHAPES, Drawing, check, runner
from tests.drawn.operators import ONLY_IN, OPERATORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

ROUNDS = int(os.environ.get("TIDEGATE_DRAWN_GRAPHS", "1"))
OPSETS = (11, 13, 18, 22, 27)


def drawn(operator: str, random: np.random.Generator) -> Drawing | None:
    """A few random operators and this one after them; None if none was found that it fits."""
    for _ in range(20):
        opset = ONLY_IN.get(operator) or int(random.choice(OPSETS))
        drawing = Drawing(random, str(random.choice(list(SHAPES))), opset)
        for _ in range(random.integers(0, 4) if opset > OPSETS[0] else 0):  # what an old version has not is not told
            drawing.grow(OPERATORS[str(random.choice(list(OPERATORS)))])
        if any(drawing.grow(OPERATORS[operator]) for _ in range(4)):
            return drawing
    return None


def held(operator: str, seed: int) -> bool:
    """Whether a graph was drawn and run: onnxruntime may not take the sizes, nor have the operator in that version."""
    drawing = drawn(operator, np.random.default_rng([seed, sum(operator.encode())]))
    try:
        return drawing is not None and check(drawing) > 0
    except (Fail, InvalidArgument, InvalidGraph, NotImplemented_):
        return False


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_what_is_read_of_an_operator_is_what_it_does(operator: str) -> None:
    assert operator in RULES
    for seed in range(ROUNDS):
        held(operator, seed)


@pytest.mark.parametrize(
    ("family", "operator"),
    [(reductions, "ReduceMean"), (reductions, "CumSum"), (reductions, "Softmax"), (products, "MatMul")],
)
def test_a_rule_that_says_local_of_what_mixes_steps_is_found(
    family: ModuleType, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "over", lambda *_: None)
    with pytest.raises(AssertionError):
        all(held(operator, seed) or True for seed in range(40))


def test_padding_a_number_of_steps_keeps_it_one() -> None:
    size = onnx.helper.make_node("Size", ["x"], ["n"])
    flat = onnx.helper.make_node("Reshape", ["n", "one"], ["flat"])
    pad = onnx.helper.make_node("Pad", ["flat", "pads"], ["y"])
    drawing = Drawing(np.random.default_rng(0), "rows first", 17, [size, flat, pad])
    drawing.constants = [onnx.numpy_helper.from_array(np.array(a), n) for n, a in (("one", [1]), ("pads", [1, 1]))]
    assert drawing.read()["y"].varies


@pytest.mark.parametrize("operator", ["Pad", "Slice"])
def test_an_axis_of_steps_beside_features_is_not_padded_or_cut_as_if_it_were_steps_alone(operator: str) -> None:
    flat = onnx.helper.make_node("Reshape", ["x", "flat"], ["f"])
    others = ["pads"] if operator == "Pad" else ["one", "end", "one"]
    moved = onnx.helper.make_node(operator, ["f", *others], ["y"])
    drawing = Drawing(np.random.default_rng(0), "blocks", 17, [flat, moved])
    held = {"flat": [0, -1], "pads": [0, 2, 0, 0], "one": [1], "end": [2**31 - 1]}
    drawing.constants = [onnx.numpy_helper.from_array(np.array(a), n) for n, a in held.items()]
    assert drawing.read()["y"].finding


def test_every_rule_is_drawn_but_these() -> None:
    assert RULES.keys() - OPERATORS.keys() == RANDOM.keys() | NOT_DRAWN.keys()


RANDOM: dict[str, dict[str, object]] = {  # by rule, they have no answer that could be held to it
    "Bernoulli": {},
    "Multinomial": {"sample_size": 9},
    "RandomNormal": {"shape": [2, 3]},
    "RandomNormalLike": {},
    "RandomUniform": {"shape": [2, 3]},
    "RandomUniformLike": {},
}
NOT_DRAWN = {
    "DynamicQuantizeLSTM": "rounds by the range of all rows, and is read without that: tests/models/test_quantised.py",
    "SwiGLU": "onnxruntime has none: the next test but one",
}


@pytest.mark.parametrize("operator", RANDOM)
def test_what_draws_numbers_is_found_and_differs_from_run_to_run(operator: str) -> None:
    drawing = Drawing(np.random.default_rng(0), "rows first", 17)
    flat = drawing.op("Sigmoid", drawing.op("Reshape", "x", drawing.whole([-1, 4])))
    name = drawing.op(operator, *([] if "shape" in RANDOM[operator] else [flat]), **RANDOM[operator])
    finding = drawing.read()[name].finding
    assert finding is not None
    assert finding.kind == "random"
    run, x = runner(drawing, [name]), drawing.sample(2, 9)
    assert (run(x)[name] != run(x)[name]).any()


def test_what_onnxruntime_has_not_is_held_against_what_the_standard_defines_it_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawing = Drawing(np.random.default_rng(0), "rows first", 28)
    name = drawing.op("SwiGLU", "x", drawing.op("Tanh", "x"))
    with pytest.raises(NotImplemented_):
        runner(drawing, [name])

    def by_definition(drawing: Drawing, names: Sequence[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        evaluator = ReferenceEvaluator(drawing.model(names))
        return lambda x: dict(zip(names, evaluator.run(None, {"x": x}), strict=True))

    monkeypatch.setattr(graphs, "runner", by_definition)
    assert check(drawing) == 2


def test_what_slides_a_window_is_listed_once_and_whole() -> None:
    read = {operator for operator, entry in RULES.items() if entry.rule.__module__ == windows.__name__}
    assert read - {"Col2Im", "STFT"} == SLIDING


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    page = Path(__file__).parents[3] / "docs" / "reading.md"
    assert page.read_text(encoding="utf-8") == listing.page(), "run python -m stepgraph.rules.listing > docs/reading.md"
