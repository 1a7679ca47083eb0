"""Files that answer once for several rows, and files with a free axis that is neither batch nor time."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.report import remarks
from stepgraph.rewriting.ports import Facts

CASES = Path(__file__).parent / "cases"
BATCH, STEPS, INPUTS, HIDDEN = 2, 200, 3, 8
SEQUENCE = {"x": {0: "batch", 1: "time"}, "y": {0: "batch"}}

Export = Callable[..., Path]


class Net(nn.Module):
    def __init__(self, width: int = HIDDEN) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fast, self.slow = nn.GRU(INPUTS, HIDDEN, batch_first=True), nn.GRU(width, HIDDEN, batch_first=True)
        self.slowest = nn.GRU(HIDDEN, HIDDEN, batch_first=True)


class Pyramid(Net):
    """As in Listen, Attend and Spell: two rows side by side are one of the next layer."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.fast(x)[0]
        return self.slow(y.reshape(y.shape[0], y.shape[1] // 2, 2 * HIDDEN))[0]


class ThreeLevels(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.slowest(self.slow(self.fast(x)[0][:, 1::2])[0][:, 2::3])[0]


class EveryFifth(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.fast(x)[0][:, 4::5]


class Attending(Net):
    """One step of a decoder that looks at what an encoder has written."""

    def forward(self, x: Tensor, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.fast(x, h)
        weights = torch.softmax(y @ memory.transpose(1, 2), 2)
        return weights @ memory, h


class Conditioned(Net):
    """A whole sequence, and a context of any length beside it."""

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        y = self.fast(x)[0]
        return torch.softmax(y @ memory.transpose(1, 2), 2) @ memory


class Voice(Net):
    """One step for each chunk of samples, however many these are, as long as there is a frame in them."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Conv1d(1, INPUTS, 256, stride=128)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.fast(self.frames(x[:, None]).mean(2)[:, None], h)
        return y[:, -1], h


def check(path: Path, block: int) -> Facts:
    """Right over 200 steps; x is [B, T, I] of the file's own rows."""
    loaded = load(path, 4, 1.0)
    x = np.random.default_rng(0).normal(size=(BATCH, STEPS * block, INPUTS)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    state = np.tile(loaded.graph.initial, (BATCH, 1))
    for step in range(STEPS):
        rows = x[:, step * block : (step + 1) * block][np.newaxis]
        result = loaded.engine.run({"x": rows}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["y"][0], wanted[:, step], atol=1e-4)
    assert f"{block} rows of input 'x' are one step" in " ".join(remarks.remarks(loaded))
    return loaded.facts


@pytest.mark.parametrize("toml", ["", "[block]\nx = 4\n"])
def test_a_slow_cell_behind_a_fast_one_makes_a_step_of_several_rows(toml: str, tmp_path: Path) -> None:
    """onnxruntime crashes where no row is left for the slow cell: the file is not run with so few."""
    path = Path(shutil.copy(CASES / "hierarchical.onnx", tmp_path / "model.onnx"))
    path.with_name("model.toml").write_text(toml)
    assert [pace.inner for pace in check(path, 4).paces] == [4, 1]


@pytest.mark.parametrize(
    ("net", "block"), [(Pyramid(2 * HIDDEN), 2), (ThreeLevels(), 6), (EveryFifth(), 5)], ids=lambda v: type(v).__name__
)
def test_the_rows_of_a_step_are_found_wherever_they_become_one(net: nn.Module, block: int, export: Export) -> None:
    check(export(net, (torch.zeros(BATCH, 12 if block != 5 else 10, INPUTS),), "x", "y", SEQUENCE), block)


def said(path: Path, match: str) -> str:
    """What the refusal says to write, which is written then."""
    with pytest.raises(ModelRefused, match=match) as refused:
        load(path, 4, 1.0)
    sizes = str(refused.value).split("under [block]: ")[1].split(" (")[0]
    path.with_name("model.toml").write_text("[block]\n" + sizes.replace(", ", "\n"))
    return sizes


def test_a_decoder_with_a_memory_of_any_length_is_refused_with_what_to_write(tmp_path: Path) -> None:
    path = Path(shutil.copy(CASES / "luong_decoder.onnx", tmp_path / "model.onnx"))
    assert said(path, "the axis 'src_len' of 'memory', 'mask' is neither batch nor time") == "memory = 10, mask = 10"
    loaded = load(path, 4, 1.0)
    session, random = onnxruntime.InferenceSession(path), np.random.default_rng(0)
    held = {name: np.zeros((2, BATCH, HIDDEN), np.float32) for name in "hc"}
    memory = random.normal(size=(BATCH, 10, HIDDEN)).astype(np.float32)
    mask, state = np.arange(10) < np.array([[10], [6]]), np.tile(loaded.graph.initial, (BATCH, 1))
    for _ in range(STEPS):
        x = {"token": random.integers(0, 20, (BATCH, 1)), "memory": memory, "mask": mask}
        wanted, held["h"], held["c"] = session.run(["logits", "h_out", "c_out"], x | held)
        result = loaded.engine.run({name: value[np.newaxis] for name, value in x.items()}, state, trace=False)
        state = result.state
        np.testing.assert_allclose(result.outputs["logits"][0], wanted, atol=1e-5)


H, X = torch.zeros(1, BATCH, HIDDEN), torch.zeros(BATCH, 1, INPUTS)
MEMORY = torch.zeros(BATCH, 6, HIDDEN)
AXES = {"x": {0: "batch"}, "y": {0: "batch"}, "h": {1: "batch"}, "hn": {1: "batch"}}
AXES |= {"memory": {0: "batch", 1: "length"}}


@pytest.mark.parametrize(
    ("net", "args", "names", "axes", "wanted"),
    [
        (Attending(), (X, H, MEMORY), "x h memory", {}, "memory = 10"),
        (Conditioned(), (X, MEMORY), "x memory", {"x": {0: "batch", 1: "time"}}, "memory = 10"),
        (Voice(), (torch.zeros(BATCH, 480), H), "x h", {"x": {0: "batch", 1: "samples"}}, "x = 512"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_refusal_says_of_an_axis_makes_the_file_served(
    net: nn.Module, args: tuple[Tensor, ...], names: str, axes: dict[str, dict[int, str]], wanted: str, export: Export
) -> None:
    path = export(net, args, names, "y hn" if "h" in names.split() else "y", AXES | axes)
    assert said(path, "is neither batch nor time") == wanted
    assert load(path, 4, 1.0).graph.state
