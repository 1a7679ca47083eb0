"""What a step may be: a frame of samples, a block of a time axis, a token; and what may come beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tidegate
from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.model import LoadedModel
from stepgraph.report.examination import examine
from tests.onnx_writer import Layer, Writer
from tests.running_server import RunningServer

Array = NDArray[np.generic]
Export = Callable[..., Path]
STEPS, BATCH, HIDDEN = 4, 3, 6
STATES = {"h": {1: "b"}, "c": {1: "b"}, "hn": {1: "b"}, "cn": {1: "b"}}
SEQUENCES = {"x": {0: "b", 1: "n"}, "y": {0: "b", 1: "t"}}


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape)


class Audio(nn.Module):
    """A convolution cuts a frame of samples into `frame / stride` pieces, over which the cell runs."""

    def __init__(self, stride: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 8, stride, stride=stride)
        self.cell = nn.LSTM(8, HIDDEN)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.cell(self.conv(x.unsqueeze(1)).permute(2, 0, 1), (h, c))
        return self.head(y.mean(0)), h, c


class Listening(Audio):
    """Keeps the last samples of each frame as the context of the next one, as an input and an output."""

    def forward(self, x: Tensor, context: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        samples = torch.cat([context, x], 1)
        return *super().forward(samples, h, c), samples[:, -16:]


class Signal(nn.Module):
    """The time axis is samples, `block` of which make one step of the cell."""

    def __init__(self, block: int, fold: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.block, self.fold = block, fold
        self.conv = nn.Conv1d(1, 8, block, stride=block)
        self.cell = nn.GRU(block if fold else 8, HIDDEN, batch_first=True)
        self.up = nn.Linear(HIDDEN, block)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.reshape(x.shape[0], -1, self.block) if self.fold else self.conv(x.unsqueeze(1)).transpose(1, 2)
        return self.up(self.cell(pieces)[0]).reshape(x.shape[0], -1)


class Bands(nn.Module):
    """A spectrum: one cell runs both ways over its bands within a step, another over time for each band."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.across = nn.GRU(2, 3, bidirectional=True, batch_first=True)
        self.along = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        b, t, f, _ = x.shape
        y, _ = self.across(x.reshape(b * t, f, 2))
        y, h = self.along(y.reshape(b, t, f, 6).permute(0, 2, 1, 3).reshape(b * f, t, 6), h)
        return self.head(y).reshape(b, f, t, 2).permute(0, 2, 1, 3), h


class WholeBands(Bands):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, torch.zeros(1, x.shape[0] * x.shape[2], 5))[0]


class Told(nn.Module):
    """Tokens, something that is known of the whole sequence, and a number that is the same for all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(50, 8)
        self.side = nn.Linear(3, 8)
        self.cell = nn.GRU(8, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        return self.cell(self.embedding(x) + self.side(k).unsqueeze(1))[0]


class Rated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.cell = nn.GRU(4, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, sr: Tensor) -> Tensor:
        return self.cell(x * (16000 / sr))[0]


class OneRow(nn.Module):
    """A file that runs with a batch of one only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.cell = nn.GRU(4, HIDDEN, batch_first=True)
        self.start = nn.Parameter(torch.ones(1, 1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, self.start)[0].reshape(1, -1, HIDDEN)


class NoRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.cell = nn.LSTM(4, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Cell(nn.Module):
    """torch's own cell, which it exports as plain operators: the state is all that it answers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.cell = nn.GRUCell(4, HIDDEN)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.cell(x, h)


class EndOfY(nn.Module):
    """Returns its state as the end of Y, not as Y_h."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.cell = nn.GRU(4, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y = self.cell(x.unsqueeze(1), h)[0][:, -1]
        return self.head(y), y.unsqueeze(0)


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def stepped(model: LoadedModel, data: Mapping[str, Array]) -> dict[str, list[Array]]:
    """The engine's answers, one step at a time, [B, ...row] each; `data[name]` is [T, B, ...row]."""
    x = next(iter(data.values()))
    state = np.tile(model.graph.initial, (x.shape[1], 1))
    answers: dict[str, list[Array]] = {port.name: [] for port in model.graph.outputs}
    for step in range(len(x)):
        result = model.engine.run({name: rows[step : step + 1] for name, rows in data.items()}, state, trace=False)
        state = result.state
        for name, value in result.outputs.items():
            answers[name].append(value[0])
    return answers


def fed_back(path: Path, xs: Array, states: Mapping[str, tuple[str, Array]]) -> list[Array]:
    """What the file's own `y` is for x after x, its states handed back."""
    session = onnxruntime.InferenceSession(path)
    given = {name: start for name, (_, start) in states.items()}
    answers = []
    for x in xs:
        y, *returned = session.run(["y", *(output for output, _ in states.values())], {"x": x} | given)
        given = dict(zip(states, returned, strict=True))
        answers.append(y)
    return answers


def rows_of(model: LoadedModel) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    return {p.name: p.row for p in model.graph.inputs}, {p.name: p.row for p in model.graph.outputs}


@pytest.mark.parametrize("pieces", [1, 4, 40])
def test_a_frame_that_is_cut_into_pieces_is_one_step_and_its_state_goes_on(export: Export, pieces: int) -> None:
    """Forty pieces are past what is written as equations: the file's own operator is kept."""
    start = zeros(1, BATCH, HIDDEN)
    axes = STATES | {"x": {0: "b"}, "y": {0: "b"}}
    path = export(Audio(), (zeros(BATCH, 16 * pieces), start, start), "x h c", "y hn cn", axes)
    model = load(path, 4, 1.0)
    xs = random(STEPS, BATCH, 16 * pieces)
    expected = fed_back(path, xs, {"h": ("hn", start.numpy()), "c": ("cn", start.numpy())})
    np.testing.assert_allclose(stepped(model, {"x": xs})["y"], expected, rtol=0, atol=1e-5)
    assert rows_of(model) == ({"x": (16 * pieces,)}, {"y": (2,)})
    assert len({columns.name for columns in model.graph.trace}) == (2 if pieces == 40 else 6)


def test_the_trace_of_a_frame_is_that_of_its_last_piece(export: Export) -> None:
    start = zeros(1, 1, HIDDEN)
    axes = STATES | {"x": {0: "b"}, "y": {0: "b"}}
    path = export(Audio(), (zeros(1, 64), start, start), "x h c", "y hn cn", axes)
    model = load(path, 4, 1.0)
    x = random(1, 1, 64)
    result = model.engine.run({"x": x}, model.graph.initial[np.newaxis], trace=True)
    assert result.trace is not None
    (hidden,) = (columns for columns in model.graph.trace if columns.name == "hidden")
    hn = onnxruntime.InferenceSession(path).run(["hn"], {"x": x[0], "h": start.numpy(), "c": start.numpy()})[0]
    np.testing.assert_allclose(result.trace[0][:, hidden.span], hn[0], rtol=0, atol=1e-6)
    (remark,) = examine(path).remarks
    assert remark == "layer 0 takes 4 time steps of its own within each step; a trace shows the last of them"


def test_gates_that_a_kept_operator_hides_are_said_to_be_unseen(export: Export) -> None:
    start = zeros(1, 1, HIDDEN)
    axes = STATES | {"x": {0: "b"}, "y": {0: "b"}}
    report = examine(export(Audio(), (zeros(1, 640), start, start), "x h c", "y hn cn", axes))
    assert report.traces[0].unseen == ("input", "forget", "candidate", "output")
    assert "in the file's own operator" in report.remarks[0]


def test_a_frame_in_a_file_with_fixed_axes_stays_one_step(export: Export) -> None:
    """The samples could be cut finer, but a file that hands its state out after a frame means the frame."""
    start = zeros(1, 1, HIDDEN)
    path = export(Audio(), (zeros(1, 64), start, start), "x h c", "y hn cn", {})
    model = load(path, 4, 1.0)
    assert rows_of(model)[0] == {"x": (64,)}
    assert model.facts.freed == "the batch axis of input 'x'"
    assert model.engine.largest == 4


def test_the_context_of_a_frame_goes_in_and_comes_out_if_the_file_beside_says_so(export: Export) -> None:
    start, context = zeros(1, BATCH, HIDDEN), zeros(BATCH, 16)
    axes = STATES | {name: {0: "b"} for name in ("x", "context", "after", "y")}
    args = (zeros(BATCH, 48), context, start, start)
    toml = '[state]\ncontext = "after"\n'
    path = export(Listening(), args, "x context h c", "y hn cn after", axes, toml)
    model = load(path, 4, 1.0)
    xs = random(STEPS, BATCH, 48)
    states = {"context": ("after", context.numpy()), "h": ("hn", start.numpy()), "c": ("cn", start.numpy())}
    np.testing.assert_allclose(stepped(model, {"x": xs})["y"], fed_back(path, xs, states), rtol=0, atol=1e-5)
    assert rows_of(model) == ({"x": (48,)}, {"y": (2,)})


@pytest.mark.parametrize(("block", "fold"), [(2, False), (7, True), (160, False), (441, False)])
def test_a_block_of_samples_is_one_step_where_the_time_axis_is_samples(export: Export, block: int, fold: bool) -> None:
    path = export(Signal(block, fold), (zeros(2, 3 * block),), "x", "y", SEQUENCES)
    model = load(path, 4, 1.0)
    assert rows_of(model) == ({"x": (block,)}, {"y": (block,)})
    x = random(BATCH, STEPS * block)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    got = np.concatenate(stepped(model, {"x": x.reshape(BATCH, STEPS, block).swapaxes(0, 1)})["y"], 1)
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-5)


def test_the_file_beside_a_model_may_say_how_many_samples_are_a_step(export: Export) -> None:
    path = export(Signal(4), (zeros(2, 12),), "x", "y", SEQUENCES, "[block]\nx = 8\n")
    model = load(path, 4, 1.0)
    assert rows_of(model) == ({"x": (8,)}, {"y": (8,)})
    assert model.facts.paces[0].inner == 2


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [("[block]\nx = 0\n", "whole number above 0"), ("[block]\nz = 4\n", "no such input")],
)
def test_a_block_that_cannot_be_is_refused(export: Export, toml: str, complaint: str) -> None:
    with pytest.raises(ModelRefused, match=complaint):
        load(export(Signal(4), (zeros(2, 12),), "x", "y", SEQUENCES, toml), 4, 1.0)


def test_a_cell_may_run_both_ways_within_a_step(export: Export) -> None:
    start = zeros(1, 9, 5)
    path = export(Bands(), (zeros(1, 1, 9, 2), start), "x h", "y hn", {})
    model = load(path, 4, 1.0)
    xs = random(STEPS, 1, 1, 9, 2)
    expected = fed_back(path, xs, {"h": ("hn", start.numpy())})
    (name,) = (port.name for port in model.graph.inputs)
    rows = xs.reshape(STEPS, 1, *model.graph.inputs[0].row)
    got = np.stack(stepped(model, {name: rows})["y"])
    np.testing.assert_allclose(got.reshape(np.shape(expected)), expected, rtol=0, atol=1e-5)
    assert "(GRU) runs backwards or both ways within each step" in " ".join(examine(path).remarks)


def test_a_cell_may_have_several_rows_for_each_sequence(export: Export) -> None:
    """The bands of a spectrum are rows of the cell that runs over time; its state is that of all of them."""
    path = export(WholeBands(), (zeros(2, 3, 9, 2),), "x", "y", SEQUENCES)
    model = load(path, 4, 1.0)
    assert [(columns.name, columns.size) for columns in model.graph.state] == [("hidden", 9 * 5)]
    x = random(BATCH, STEPS, 9, 2)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    got = np.stack(stepped(model, {"x": x.swapaxes(0, 1)})["y"], 1)
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-5)
    assert "9 rows for each sequence" in " ".join(examine(path).remarks)


def test_axes_of_several_inputs_may_go_by_different_names(export: Export) -> None:
    axes = {"x": {0: "b", 1: "n"}, "k": {0: "another"}, "y": {0: "b", 1: "n"}}
    path = export(Told(), (zeros(2, 5).long(), zeros(2, 3)), "x k", "y", axes)
    model = load(path, 4, 1.0)
    assert rows_of(model) == ({"x": (), "k": (3,)}, {"y": (HIDDEN,)})
    tokens = np.random.default_rng(0).integers(0, 50, (BATCH, STEPS))
    side = random(BATCH, 3)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": tokens, "k": side})
    got = stepped(model, {"x": tokens.T, "k": np.broadcast_to(side, (STEPS, BATCH, 3)).copy()})["y"]
    np.testing.assert_allclose(np.stack(got, 1), y, rtol=0, atol=1e-5)


def test_the_proof_draws_tokens_from_the_whole_table(export: Export) -> None:
    axes = {"x": {0: "b", 1: "n"}, "k": {0: "b"}, "y": {0: "b", 1: "n"}}
    model = load(export(Told(), (zeros(2, 5).long(), zeros(2, 3)), "x k", "y", axes), 4, 1.0)
    tokens = model.graph.inputs[0].sample(1000, 1, np.random.default_rng(0))
    assert (tokens.min(), tokens.max()) == (0, 49)


@pytest.mark.parametrize("rate", [torch.tensor(8000.0), torch.tensor([8000.0])], ids=["no-axis", "one"])
def test_a_number_that_all_share_keeps_sequences_out_of_batches_unless_it_is_fixed(
    export: Export, rate: Tensor
) -> None:
    path = export(Rated(), (zeros(2, 5, 4), rate), "x sr", "y", SEQUENCES)
    model = load(path, 4, 1.0)
    x = random(1, STEPS, 4)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x, "sr": rate.numpy()})
    got = stepped(model, {"x": x.swapaxes(0, 1), "sr": np.full((STEPS, 1, *rate.shape), 8000, np.float32)})["y"]
    np.testing.assert_allclose(np.stack(got, 1), y, rtol=0, atol=1e-5)
    assert model.engine.largest == 1
    assert "[fixed]: sr = VALUE" in " ".join(examine(path).remarks)
    path.with_name("model.toml").write_text("[fixed]\nsr = 8000\n")
    fixed = load(path, 4, 1.0)
    assert fixed.engine.largest == 4
    np.testing.assert_array_equal(stepped(fixed, {"x": x.swapaxes(0, 1)})["y"], got)


@pytest.mark.parametrize("axes", [{"x": {1: "n"}, "y": {1: "n"}}, {}], ids=["time-free", "all-fixed"])
def test_a_batch_axis_that_cannot_be_freed_is_served_one_by_one_and_said_so(
    export: Export, axes: dict[str, dict[int, str]]
) -> None:
    path = export(OneRow(), (zeros(1, STEPS, 4),), "x", "y", axes)
    model = load(path, 4, 1.0)
    assert model.engine.largest == 1
    assert rows_of(model) == ({"x": (4,)}, {"y": (HIDDEN,)})
    x = random(1, STEPS, 4)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(np.stack(stepped(model, {"x": x.swapaxes(0, 1)})["y"], 1), y, rtol=0, atol=1e-5)
    report = examine(path)
    alone = "sequences run one by one, not in batches: the file fixes its batch axis"
    assert any(remark.startswith(alone) for remark in report.remarks)
    assert [cost.batch for cost in report.costs] == [1]


def test_a_file_without_a_batch_axis_is_served_one_by_one(export: Export) -> None:
    path = export(NoRows(), (zeros(STEPS, 4),), "x", "y", {"x": {0: "n"}, "y": {0: "n"}})
    model = load(path, 4, 1.0)
    assert rows_of(model) == ({"x": (4,)}, {"y": (HIDDEN,)})
    x = random(STEPS, 4)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(np.concatenate(stepped(model, {"x": x[:, np.newaxis]})["y"]), y, rtol=0, atol=1e-5)


def test_axes_that_were_freed_are_named_in_the_check(export: Export) -> None:
    report = examine(export(Rated(), (zeros(2, 5, 4), torch.ones(2, 1, 1)), "x sr", "y", {}))
    assert report.served, report.reason
    assert "the file fixes the batch axis of input 'x', the time axis of input 'x'" in report.remarks[0]


def test_rows_that_run_alone_for_their_bits_are_said_to(tmp_path: Path) -> None:
    g = Writer()
    x = g.input(["time", "batch", 3])
    outputs, _ = g.cell(Layer("GRU", hidden=3), x, 3)
    g.output(g.op("Atan", outputs["Y"]), ["time", 1, "batch", 3])
    onnx.save(g.model(), tmp_path / "model.onnx")
    (remark,) = examine(tmp_path / "model.onnx").remarks
    assert remark.startswith("sequences run one by one, not in batches: an operator of onnxruntime rounds")


def test_a_cell_whose_only_answer_is_its_state_is_served(export: Export) -> None:
    start = zeros(BATCH, HIDDEN)
    axes = {name: {0: "b"} for name in ("x", "h", "y")}
    path = export(Cell(), (zeros(BATCH, 4), start), "x h", "y", axes, '[state]\nh = "y"\n')
    xs = random(STEPS, BATCH, 4)
    expected = fed_back(path, xs, {"h": ("y", start.numpy())})
    np.testing.assert_allclose(stepped(load(path, 4, 1.0), {"x": xs})["y"], expected, rtol=0, atol=1e-5)


def test_a_state_that_comes_back_as_the_end_of_y_is_found(export: Export) -> None:
    start = zeros(1, BATCH, HIDDEN)
    axes = {"x": {0: "b"}, "h": {1: "b"}, "y": {0: "b"}, "hn": {1: "b"}}
    path = export(EndOfY(), (zeros(BATCH, 4), start), "x h", "y hn", axes)
    model = load(path, 4, 1.0)
    assert [(c.given.name, c.returned.name) for c in model.facts.carried] == [("h", "hn")]
    xs = random(STEPS, BATCH, 4)
    expected = fed_back(path, xs, {"h": ("hn", start.numpy())})
    np.testing.assert_allclose(stepped(model, {"x": xs})["y"], expected, rtol=0, atol=1e-5)


def test_a_fleet_of_a_model_that_takes_one_row_at_a_time_is_answered_by_the_real_server(
    export: Export, tmp_path: Path
) -> None:
    x, rate = random(BATCH, STEPS, 4), np.array([8000, 16000, 44100], np.float32)
    path = export(Rated(), (zeros(2, 5, 4), torch.tensor(8000.0)), "x sr", "y", SEQUENCES)
    version = tmp_path / "models" / "rated" / "1"
    version.mkdir(parents=True)
    path.rename(version / "model.onnx")
    session = onnxruntime.InferenceSession(version / "model.onnx")
    with RunningServer(tmp_path / "models").ready() as server, tidegate.connect(server.address) as client:
        (remark,) = client.describe("rated").remarks
        assert remark.startswith("sequences run one by one, not in batches: input 'sr' has no batch axis")
        with client.fleet("rated", BATCH, trace=False) as fleet:
            got = [fleet.step({"x": x[:, step], "sr": rate}).outputs["y"] for step in range(STEPS)]
    for row in range(BATCH):
        (y,) = session.run(None, {"x": x[row : row + 1], "sr": np.asarray(rate[row])})
        np.testing.assert_allclose(np.stack(got, 1)[row], y[0], rtol=0, atol=1e-5)
