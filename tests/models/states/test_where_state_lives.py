"""Files as torch's users write them: states inside, in the interface, packed, beside a cell, or thrown away."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.model import LoadedModel

BATCH, TIME, INPUTS, HIDDEN, LAYERS, OUTPUTS = 2, 3, 3, 4, 2, 2
X = torch.randn(BATCH, TIME, INPUTS, generator=torch.Generator().manual_seed(0))
STATE = torch.zeros(LAYERS, BATCH, HIDDEN)
FREE = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}
ONE_STEP = {"x": {0: "batch"}, "y": {0: "batch"}}
H_AND_C = {name: {1: "batch"} for name in ("h", "c", "hn", "cn")}

Export = Callable[..., Path]


class Net(nn.Module):
    def __init__(self, cell: str = "LSTM", layers: int = LAYERS) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cell = getattr(nn, cell)(INPUTS, HIDDEN, layers, batch_first=True)
        self.head = nn.Linear(HIDDEN, OUTPUTS)


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


class LastOnly(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Shown(Net):
    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.cell(x, (h, c))
        return self.head(y), h, c


class Packed(Net):
    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.cell(x, (s[0], s[1]))
        return self.head(y), torch.stack([h, c])


class FlatOfTwoCells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.GRU(INPUTS, 4, batch_first=True)
        self.second = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        a, h, c = (part.unsqueeze(0) for part in s.split([4, 5, 5], 1))
        y, a = self.first(x, a)
        y, (h, c) = self.second(y, (h, c))
        return y, torch.cat([a[0], h[0], c[0]], 1)


class Started(Net):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.head(self.cell(x, h)[0])


class OneStep(Net):
    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.cell(x.unsqueeze(1), (h, c))
        return self.head(y[:, 0]), h, c


class Forgetful(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.unsqueeze(1))[0][:, 0])


class Lengths(Net):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        y, _ = self.cell(nn.utils.rnn.pack_padded_sequence(x, n, batch_first=True))
        return self.head(nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0])


class Returning(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.cell(x)
        return self.head(y), h, c


class Told(Net):
    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        return self.head(self.cell(x + k.unsqueeze(1))[0])


class Context(Net):
    """A convolution over the present and the two frames before it, whose buffer goes in and comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(INPUTS, INPUTS, 3)

    def forward(self, x: Tensor, b: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        frames = torch.cat([b, x.unsqueeze(2)], 2)
        y, (h, c) = self.cell(self.conv(frames)[:, :, 0].unsqueeze(1), (h, c))
        return self.head(y[:, 0]), frames[:, :, 1:], h, c


class Averaging(nn.Module):
    def forward(self, x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        return x - m, 0.5 * m + x


class Rates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.wide = nn.LSTM(INPUTS, HIDDEN, batch_first=True)
        self.narrow = nn.GRU(INPUTS, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        if bool(rate == 16000):
            y, _ = self.wide(x)
        else:
            y, _ = self.narrow(x)
        return y


class Samples(nn.Module):
    """A frame of samples at each step: how many there are decides which of two ways is taken to the cell."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = nn.Conv1d(1, INPUTS, 8, 8)
        self.cell = nn.LSTM(INPUTS, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        frames = self.conv(x.unsqueeze(1))
        if frames.shape[2] == 1:
            y, (h, c) = self.cell(frames.transpose(1, 2), (h, c))
        else:
            y, (h, c) = self.cell(frames.mean(2).unsqueeze(1), (h, c))
        if h.shape[0] == 1:
            y = y.sigmoid()
        return y[:, 0], h, c


class MeanOverTime(Net):
    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return self.head(y + y.mean(1, keepdim=True))


def scripted(net: type[nn.Module] = Rates) -> nn.Module:
    """Tracing would lose the branch that is not taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # scripting is on its way out, as is this exporter
        return torch.jit.script(net())


def states(model: LoadedModel) -> list[tuple[int | None, str, int]]:
    return [(column.layer, column.name, column.size) for column in model.graph.state]


def ports(model: LoadedModel) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    return {p.name: p.row for p in model.graph.inputs}, {p.name: p.row for p in model.graph.outputs}


INSIDE = [(layer, name, HIDDEN) for layer in range(LAYERS) for name in ("hidden", "cell")]


def test_states_that_the_file_hides_are_kept_by_the_server(export: Export) -> None:
    model = load(export(Plain(), (X,), "x", "y", FREE), 4, 1.0)
    assert states(model) == INSIDE
    assert not model.facts.freed


@pytest.mark.parametrize("names", ["h c hn cn", "q p a z"])
def test_states_in_the_interface_are_found_whatever_they_are_called(export: Export, names: str) -> None:
    h, c, hn, cn = names.split()
    axes = FREE | {name: {1: "batch"} for name in (h, c, hn, cn)}
    model = load(export(Shown(), (X, STATE, STATE), f"x {h} {c}", f"y {hn} {cn}", axes), 4, 1.0)
    assert states(model) == [(None, h, LAYERS * HIDDEN), (None, c, LAYERS * HIDDEN)]
    assert ports(model) == ({"x": (INPUTS,)}, {"y": (OUTPUTS,)})
    assert {(c.given.name, c.returned.name) for c in model.facts.carried} == {(h, hn), (c, cn)}


def test_h_and_c_of_all_layers_may_be_packed_into_one_tensor(export: Export) -> None:
    axes = FREE | {"s": {2: "batch"}, "sn": {2: "batch"}}
    model = load(export(Packed(), (X, torch.stack([STATE, STATE])), "x s", "y sn", axes), 4, 1.0)
    assert states(model) == [(None, "s", 2 * LAYERS * HIDDEN)]


def test_states_of_different_cells_may_lie_flat_in_one_tensor(export: Export) -> None:
    axes = FREE | {"s": {0: "batch"}, "sn": {0: "batch"}}
    model = load(export(FlatOfTwoCells(), (X, torch.zeros(BATCH, 14)), "x s", "y sn", axes), 4, 1.0)
    assert states(model) == [(None, "s", 14)]
    assert [layer.kind for layer in model.graph.layers] == ["GRU", "LSTM"]


def test_a_state_that_is_given_and_never_returned_starts_from_zeros(export: Export) -> None:
    model = load(export(Started("GRU"), (X, STATE), "x h", "y", FREE | {"h": {1: "batch"}}), 4, 1.0)
    assert states(model) == [(0, "hidden", HIDDEN), (1, "hidden", HIDDEN)]
    assert ports(model)[0] == {"x": (INPUTS,)}


def test_a_file_cut_to_one_step_carries_what_it_returns(export: Export) -> None:
    model = load(export(OneStep(), (X[:, 0], STATE, STATE), "x h c", "y hn cn", ONE_STEP | H_AND_C), 4, 1.0)
    assert model.facts.one_step
    assert states(model) == [(None, "h", LAYERS * HIDDEN), (None, "c", LAYERS * HIDDEN)]


def test_a_cell_that_begins_anew_at_every_step_is_not_made_to_remember(export: Export) -> None:
    path = export(Forgetful(), (X[:, 0],), "x", "y", ONE_STEP)
    model = load(path, 4, 1.0)
    assert states(model) == []
    rows = np.random.default_rng(0).standard_normal((5, 1, 1, INPUTS)).astype(np.float32)
    original = onnxruntime.InferenceSession(path)
    for row in rows:
        answer = model.engine.run({"x": row}, np.zeros((1, 0), np.float32), trace=True)
        np.testing.assert_allclose(answer.outputs["y"][0], original.run(None, {"x": row[0]})[0], atol=1e-6)


def test_the_lengths_of_sequences_are_not_asked_for(export: Export) -> None:
    axes = FREE | {"n": {0: "batch"}}
    model = load(export(Lengths(), (X, torch.tensor([TIME, TIME])), "x n", "y", axes), 4, 1.0)
    assert ports(model)[0] == {"x": (INPUTS,)}
    assert states(model) == INSIDE


def test_states_that_are_only_returned_are_answers(export: Export) -> None:
    axes = FREE | {"hn": {1: "batch"}, "cn": {1: "batch"}}
    model = load(export(Returning(), (X,), "x", "y hn cn", axes), 4, 1.0)
    assert ports(model)[1] == {"y": (OUTPUTS,), "hn": (LAYERS, HIDDEN), "cn": (LAYERS, HIDDEN)}
    assert states(model) == INSIDE


def test_an_input_without_time_is_passed_with_each_step(export: Export) -> None:
    model = load(export(Told(), (X, X[:, 0]), "x k", "y", FREE | {"k": {0: "batch"}}), 4, 1.0)
    assert ports(model)[0] == {"x": (INPUTS,), "k": (INPUTS,)}


def test_a_buffer_that_no_cell_owns_is_state_if_the_file_beside_says_so(export: Export) -> None:
    args = (X[:, 0], torch.zeros(BATCH, INPUTS, 2), STATE, STATE)
    axes = ONE_STEP | H_AND_C | {"b": {0: "batch"}, "bn": {0: "batch"}}
    model = load(export(Context(), args, "x b h c", "y bn hn cn", axes, '[state]\nb = "bn"\n'), 4, 1.0)
    assert (None, "b", 2 * INPUTS) in states(model)
    assert ports(model) == ({"x": (INPUTS,)}, {"y": (OUTPUTS,)})


def test_a_model_without_any_cell_streams_if_its_state_is_declared(export: Export) -> None:
    args, axes = (X[:, 0], X[:, 0]), {name: {0: "batch"} for name in ("x", "m", "y", "mn")}
    path = export(Averaging(), args, "x m", "y mn", axes, '[state]\nm = "mn"\n')
    model = load(path, 4, 1.0)
    assert states(model) == [(None, "m", INPUTS)]
    assert not model.graph.trace
    path.with_name("model.toml").unlink()
    with pytest.raises(ModelRefused, match=r"no RNN, LSTM or GRU.*model.toml"):
        load(path, 4, 1.0)


@pytest.mark.parametrize(("rate", "kind"), [(16000, "LSTM"), (8000, "GRU")])
def test_a_branch_is_taken_once_what_decides_it_is_fixed(export: Export, rate: int, kind: str) -> None:
    path = export(scripted(), (X, torch.tensor(16000)), "x rate", "y", FREE, f"[fixed]\nrate = {rate}\n")
    model = load(path, 4, 1.0)
    assert [layer.kind for layer in model.graph.layers] == [kind]
    assert ports(model)[0] == {"x": (INPUTS,)}
    x = np.random.default_rng(1).standard_normal((1, 4, INPUTS)).astype(np.float32)
    (whole,) = onnxruntime.InferenceSession(path).run(None, {"x": x, "rate": np.array(rate)})
    state = model.graph.initial[np.newaxis]
    for step in range(4):
        answer = model.engine.run({"x": x[:, step][np.newaxis]}, state, trace=False)
        state = answer.state
        np.testing.assert_allclose(answer.outputs["y"][0], whole[:, step], atol=1e-6)


@pytest.mark.parametrize("samples", [8, 16])
def test_a_branch_that_the_size_of_a_block_decides_is_taken_once_that_is_said(export: Export, samples: int) -> None:
    one = STATE[:1, :1]
    axes = {"x": {0: "batch", 1: "samples"}, "y": {0: "batch"}} | H_AND_C
    path = export(scripted(Samples), (torch.zeros(1, 8), one, one), "x h c", "y hn cn", axes)
    with pytest.raises(ModelRefused, match=r"'samples' of 'x' is neither batch nor time.*under \[block\]: x = \d+"):
        load(path, 4, 1.0)
    path.with_name("model.toml").write_text(f"[block]\nx = {samples}\n")
    model = load(path, 4, 1.0)
    assert [layer.kind for layer in model.graph.layers] == ["LSTM"]
    assert ports(model) == ({"x": (samples,)}, {"y": (HIDDEN,)})
    original, carried = onnxruntime.InferenceSession(path), {"h": one.numpy(), "c": one.numpy()}
    state = model.graph.initial[np.newaxis]
    for x in np.random.default_rng(1).standard_normal((5, 1, samples)).astype(np.float32):
        y, carried["h"], carried["c"] = original.run(None, {"x": x} | carried)
        answer = model.engine.run({"x": x[np.newaxis]}, state, trace=False)
        state = answer.state
        np.testing.assert_allclose(answer.outputs["y"][0], y, atol=1e-6)


def test_branches_that_data_decide_are_refused_by_the_name_of_the_input_to_fix(export: Export) -> None:
    path = export(scripted(), (X, torch.tensor(16000)), "x rate", "y", FREE)
    with pytest.raises(
        ModelRefused, match=r"\(If\) hides the recurrent cells: .* depends on 'rate'.*under \[fixed\].*: rate = "
    ):
        load(path, 4, 1.0)


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("rate = ", "cannot be read"),
        ("[rates]\na = 1\n", r"expected the tables \[state\], \[start\], \[fixed\], \[block\], "),
        ("[fixed]\nrat = 1\n", "fixes 'rat', which is no input of the model; it has x, rate"),
        ("[fixed]\nrate = [1, 2]\n", "does not fit its shape"),
        ('[state]\nx = "z"\n', "has no output 'z'; it has y"),
        ('[state]\nz = "y"\n', "has no input 'z'; it has x, rate"),
    ],
)
def test_a_mistake_in_the_file_beside_a_model_is_named(export: Export, toml: str, complaint: str) -> None:
    with pytest.raises(ModelRefused, match=complaint):
        load(export(scripted(), (X, torch.tensor(16000)), "x rate", "y", FREE, toml), 4, 1.0)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("free", [{}, {"x": {0: "batch"}}, {"x": {1: "time"}}])
@pytest.mark.parametrize("net", [Plain, LastOnly])
def test_axes_that_the_exporter_fixed_are_freed(
    export: Export, net: type[Net], free: dict[str, dict[int, str]], batch: int
) -> None:
    model = load(export(net(), (X[:batch],), "x", "y", free), 4, 1.0)
    assert model.facts.freed
    assert ports(model) == ({"x": (INPUTS,)}, {"y": (OUTPUTS,)})
    assert states(model) == INSIDE


def test_fixed_axes_of_states_are_freed_with_those_of_the_data(export: Export) -> None:
    one = STATE[:, :1]
    model = load(export(Shown(), (X[:1], one, one), "x h c", "y hn cn", {}), 4, 1.0)
    assert states(model) == [(None, "h", LAYERS * HIDDEN), (None, "c", LAYERS * HIDDEN)]
    model = load(export(OneStep(), (X[:1, 0], one, one), "x h c", "y hn cn", {}), 4, 1.0)
    assert model.facts.one_step
    assert states(model) == [(None, "h", LAYERS * HIDDEN), (None, "c", LAYERS * HIDDEN)]


@pytest.mark.parametrize("axes", [FREE, {}])
def test_what_mixes_steps_outside_the_cells_is_refused_and_named(
    export: Export, axes: dict[str, dict[int, str]]
) -> None:
    with pytest.raises(ModelRefused, match=r"ReduceMean.*mixes steps with one another"):
        load(export(MeanOverTime(), (X,), "x", "y", axes), 4, 1.0)
