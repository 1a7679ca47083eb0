"""Weights in a narrower type because model.toml says so: how far that leads from the file, and whose bits they are."""

import io
import re
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.graphs import weights
from stepgraph.loading import load
from stepgraph.model import LoadedModel
from stepgraph.report.examination import examine
from stepgraph.report.page import lines

BATCH, TIME, INPUTS, HIDDEN = 5, 30, 3, 48
WORDS, WIDE = 2048, 32
KINDS = ("RNN", "LSTM", "GRU")
FARTHEST = {"int8": 0.02, "float16": 2e-4, "bfloat16": 2e-3}
EACH = [*((kind, "int8") for kind in KINDS), ("LSTM", "float16"), ("GRU", "bfloat16")]
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self, kind: str, hidden: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = getattr(nn, kind)(INPUTS, hidden, 2, batch_first=True)
        self.head = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(10 * x)[0])


class Speller(nn.Module):
    """Most of its weights lie outside of its cell, in a table of words and in what chooses the next."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(WORDS, WIDE)
        self.cell = nn.GRU(WIDE, WIDE, batch_first=True)
        self.head = nn.Linear(WIDE, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.table(x))[0])


def said(precision: str, within: float | None = None) -> str:
    return f'[weights]\nprecision = "{precision}"\n' + ("" if within is None else f"within = {within}\n")


def written(folder: Path, net: nn.Module, beside: str, opset: int = 17, x: Tensor | None = None) -> Path:
    """A file in single precision, and what its owner says beside it."""
    file = folder / "model.onnx"
    names = {"input_names": ["x"], "output_names": ["y"]}
    axes = {name: {0: "batch", 1: "time"} for name in ("x", "y")}
    arguments = (torch.zeros(1, 3, INPUTS) if x is None else x,)
    torch.onnx.export(net.eval(), arguments, str(file), dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
    (folder / "model.toml").write_text(beside, encoding="utf-8")
    return file


def rows() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((TIME, BATCH, 1, INPUTS)).astype(np.float32)


def streamed(model: LoadedModel, x_TB1I: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Answers and states of sequences that share every batch."""
    result = model.engine.run({"x": x_TB1I}, model.graph.start(x_TB1I.shape[1]), trace=True)
    assert result.trace is not None
    assert result.trace.dtype == result.state.dtype == np.float32
    return result.outputs["y"], result.state


def of_the_file(file: Path, x_BT: NDArray[np.generic]) -> NDArray[np.float32]:
    """[T, B, n] by onnxruntime, from the file as it is."""
    (y_BTN,) = onnxruntime.InferenceSession(file).run(["y"], {"x": x_BT})
    return cast("NDArray[np.float32]", y_BTN.transpose(1, 0, 2))


@pytest.fixture(scope="module", params=EACH)
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadedModel]:
    """A file, and what is served of it; its model.toml asks for another precision in each."""
    kind, precision = request.param
    file = written(tmp_path_factory.mktemp(precision), Net(kind, HIDDEN), said(precision))
    return file, load(file, 4, 0.0)


def test_answers_stay_as_near_to_those_of_the_file_as_the_proof_says(narrow: tuple[Path, LoadedModel]) -> None:
    file, model = narrow
    x_TB1I, narrowed = rows(), model.proof.narrowed
    wanted, got = of_the_file(file, x_TB1I[:, :, 0].transpose(1, 0, 2)), streamed(model, x_TB1I)[0]
    apart = float(np.abs(got.reshape(wanted.shape) - wanted).max())
    assert narrowed is not None
    assert 0 < apart < 2 * narrowed.error < FARTHEST[narrowed.weights]
    assert 0 < narrowed.share <= 0.1


def test_a_sequence_has_the_same_bits_whoever_shares_its_batch(narrow: tuple[Path, LoadedModel]) -> None:
    model, x_TB1I = narrow[1], rows()
    x_TB1I[:, 0] *= 1_000  # a scale for the whole batch would drown the others
    answers, states = streamed(model, x_TB1I)
    for row in range(BATCH):
        alone, state = streamed(model, x_TB1I[:, row : row + 1])
        np.testing.assert_array_equal(alone[:, 0], answers[:, row])
        np.testing.assert_array_equal(state[0], states[row])


def test_the_page_says_how_far_answers_are_from_those_of_the_file(tmp_path: Path) -> None:
    page = " ".join(line.text.strip() for line in lines(examine(written(tmp_path, Net("GRU", 32), said("int8")))))
    apart = r"answers differ from the file's by at most \S+ \(\S+ % of their range\) over 300 steps"
    assert re.search(f"weights in int8, as model.toml says: {apart}", page)
    assert "tried: before its weights were made narrower, agrees with the original file" in page
    assert 'precision = "int8"' in page
    assert "sequences run one by one" not in page


def test_rows_of_zeros_and_very_large_numbers_are_computed(tmp_path: Path) -> None:
    model = load(written(tmp_path, Net("RNN", HIDDEN), said("int8")), 4, 0.0)
    zeros, _ = streamed(model, np.zeros((3, 1, 1, INPUTS), np.float32))
    large, _ = streamed(model, np.full((3, 1, 1, INPUTS), 1e30, np.float32))
    assert np.isfinite(zeros).all()
    assert np.isfinite(large).all()


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.35), ("float16", 0.55), ("bfloat16", 0.55)])
def test_tables_and_products_outside_the_cells_are_kept_narrow_too(tmp_path: Path, precision: str, most: float) -> None:
    file = written(tmp_path, Speller(), said(precision), x=torch.zeros(1, 3, dtype=torch.int64))
    model = load(file, 4, 0.0)
    assert model.graph.model.ByteSize() < most * file.stat().st_size
    words = np.random.default_rng(1).integers(0, WORDS, (BATCH, TIME))
    wanted = of_the_file(file, words)
    result = model.engine.run({"x": words.T[:, :, np.newaxis]}, model.graph.start(BATCH), trace=False)
    got = result.outputs["y"].reshape(wanted.shape)
    assert 0 < np.abs(got - wanted).max() < 0.02 * np.ptp(wanted)
    one = model.engine.run({"x": words.T[:, :1, np.newaxis]}, model.graph.start(1), trace=False)
    np.testing.assert_array_equal(one.outputs["y"][:, 0], result.outputs["y"][:, 0])


def test_a_weight_with_a_number_that_float16_cannot_hold_stays_as_it_is(tmp_path: Path) -> None:
    net = Net("LSTM", HIDDEN)
    with torch.no_grad():
        net.cell.weight_hh_l1[0, 0] = 70_000
    model = load(written(tmp_path, net, said("float16")), 1, 0.0)
    kept = [weights.array(tensor) for tensor in model.graph.model.graph.initializer]
    assert any(array.dtype == np.float16 for array in kept)
    assert any(array.dtype == np.float32 and (array == 70_000).any() for array in kept)


def test_windows_begin_anew_with_narrow_weights_as_without(tmp_path: Path) -> None:
    model = load(written(tmp_path, Net("GRU", HIDDEN), f"[window]\nsteps = 10\n{said('int8')}"), 4, 0.0)
    answers, _ = streamed(model, np.tile(rows()[:10], (2, 1, 1, 1)))
    np.testing.assert_array_equal(answers[:10], answers[10:])


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (
            {"beside": said("int8", 1e-5)},
            r"by at most .* % of their range\) over 300 steps, and at most 0.001 % are acc",
        ),
        ({"net": Net("LSTM", 8)}, "no RNN, LSTM or GRU in float32 that runs once a step and has 32 units"),
        ({"opset": 9}, "need opset 11; the file has 9"),
        ({"opset": 11, "beside": said("bfloat16")}, "need opset 13; the file has 11"),
        ({"net": Net("RNN", 4), "beside": said("float16")}, "none in float32 that are worth it"),
        ({"beside": said("int4")}, "expected precision, one of int8, float16, bfloat16"),
        ({"beside": said("int8", 2)}, "above 0 and at most 1"),
        ({"beside": "[weights]\n"}, "expected precision"),
    ],
)
def test_what_cannot_be_narrowed_is_refused_with_the_reason(tmp_path: Path, how: dict[str, object], why: str) -> None:
    given = {"net": Net("LSTM", HIDDEN), "beside": said("int8"), **how}
    with pytest.raises(ModelRefused, match=why):
        load(written(tmp_path, **given), 1, 0.0)  # type: ignore[arg-type]


def test_a_step_graph_holds_no_weight_that_it_does_not_use(tmp_path: Path) -> None:
    file = written(tmp_path, Net("LSTM", HIDDEN), "")
    graph = load(file, 1, 0.0).graph.model
    used = {name for node in graph.graph.node for name in node.input}
    assert {tensor.name for tensor in graph.graph.initializer} <= used
    whole = io.BytesIO()
    onnx.save(graph, whole)
    assert len(whole.getvalue()) < 1.2 * file.stat().st_size
