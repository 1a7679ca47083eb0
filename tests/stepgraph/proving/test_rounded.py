"""Weights that are rounded to 8 bits because model.toml says so: how far that leads, and whose bits they are."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.model import LoadedModel
from stepgraph.report.examination import examine
from stepgraph.report.page import lines

BATCH, TIME, INPUTS, HIDDEN = 5, 30, 3, 48
SAID = "[weights]\nbits = 8\n"


class Net(nn.Module):
    def __init__(self, kind: str, hidden: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = getattr(nn, kind)(INPUTS, hidden, 2, batch_first=True)
        self.head = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(10 * x)[0])


def written(folder: Path, kind: str = "LSTM", hidden: int = HIDDEN, said: str = SAID, opset: int = 17) -> Path:
    """A file in single precision, and what its owner says beside it."""
    file = folder / "model.onnx"
    names = {"input_names": ["x"], "output_names": ["y"]}
    axes = {name: {0: "batch", 1: "time"} for name in ("x", "y")}
    arguments = (torch.zeros(1, 3, INPUTS),)
    net = Net(kind, hidden).eval()
    torch.onnx.export(net, arguments, str(file), dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
    (folder / "model.toml").write_text(said, encoding="utf-8")
    return file


def rows() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((TIME, BATCH, 1, INPUTS)).astype(np.float32)


def streamed(model: LoadedModel, x_TB1I: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Answers and traces of sequences that share every batch."""
    result = model.engine.run({"x": x_TB1I}, model.graph.start(x_TB1I.shape[1]), trace=True)
    assert result.trace is not None
    return result.outputs["y"], result.state


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_answers_stay_near_those_of_the_file_and_the_page_says_how_near(tmp_path: Path, kind: str) -> None:
    file, x_TB1I = written(tmp_path, kind), rows()
    got, _ = streamed(load(file, 4, 0.0), x_TB1I)
    whole = onnxruntime.InferenceSession(file)
    wanted = whole.run(["y"], {"x": x_TB1I[:, :, 0].transpose(1, 0, 2)})[0].transpose(1, 0, 2)
    apart = float(np.abs(got.reshape(wanted.shape) - wanted).max())
    assert 0 < apart < 0.02
    said = " ".join(line.text.strip() for line in lines(examine(file)))
    assert "the weights of its cells are rounded to 8 bits, as model.toml says: over 100 steps" in said
    assert "sequences run one by one" not in said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_sequence_has_the_same_bits_whoever_shares_its_batch(tmp_path: Path, kind: str) -> None:
    model, x_TB1I = load(written(tmp_path, kind), 4, 0.0), rows()
    x_TB1I[:, 0] *= 1_000  # a scale for the whole batch would drown the others
    answers, states = streamed(model, x_TB1I)
    for row in range(BATCH):
        alone, state = streamed(model, x_TB1I[:, row : row + 1])
        np.testing.assert_array_equal(alone[:, 0], answers[:, row])
        np.testing.assert_array_equal(state[0], states[row])


@pytest.mark.filterwarnings("ignore")
def test_rows_of_zeros_and_very_large_numbers_are_computed(tmp_path: Path) -> None:
    model = load(written(tmp_path, "RNN"), 4, 0.0)
    zeros, _ = streamed(model, np.zeros((3, 1, 1, INPUTS), np.float32))
    large, _ = streamed(model, np.full((3, 1, 1, INPUTS), 1e30, np.float32))
    assert np.isfinite(zeros).all()
    assert np.isfinite(large).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"hidden": 8}, "no RNN, LSTM or GRU in single precision that runs once a step and has 32 units"),
        ({"opset": 9}, "need opset 11; the file has 9"),
        ({"said": "[weights]\nbits = 4\n"}, "expected bits = 8"),
        ({"said": "[weights]\n"}, "expected bits = 8"),
    ],
)
def test_what_cannot_be_rounded_is_refused_with_the_reason(tmp_path: Path, how: dict[str, object], why: str) -> None:
    with pytest.raises(ModelRefused, match=why):
        load(written(tmp_path, **how), 1, 0.0)  # type: ignore[arg-type]
