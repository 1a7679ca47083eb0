"""sLSTM, which no ONNX operator computes: written in torch, exported as plain operators, and named in the file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.report import examination
from tests.stepgraph.cells.streaming import annotate, export, streamed

if TYPE_CHECKING:
    from pathlib import Path

INPUTS, HIDDEN, STEPS, BATCH = 3, 4, 40, 2
GATES = {"input": "i", "forget": "f", "candidate": "z", "output": "o"}  # as torch's exporter names the variables
STATES = {"hidden": "h", "cell": "c", "normaliser": "n", "stabiliser": "m"}


def _recurrence(x: Tensor, R: Tensor) -> Tensor:
    h = torch.zeros_like(x[:, 0, : R.size(0)])
    c = torch.zeros_like(h)
    n = torch.zeros_like(h)
    m = torch.zeros_like(h)
    hs = []
    for t in range(x.size(1)):
        a_i, a_f, a_z, a_o = torch.chunk(x[:, t] + h @ R, 4, 1)
        kept = torch.log(torch.sigmoid(a_f)) + m
        m = torch.maximum(kept, a_i)
        i = torch.exp(a_i - m)
        f = torch.exp(kept - m)
        z = torch.tanh(a_z)
        o = torch.sigmoid(a_o)
        c = f * c + i * z
        n = f * n + i
        h = o * (c / n)
        hs.append(h)
    return torch.stack(hs, 1)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scripts are deprecated; what they are exported as is not
    recurrence = torch.jit.script(_recurrence)


class SLSTM(nn.Module):
    """[B, T, I] to a head of [B, T, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(INPUTS, 4 * HIDDEN)
        self.recurrent = nn.Parameter(torch.randn(HIDDEN, 4 * HIDDEN) / 2)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(recurrence(self.inputs(x), self.recurrent))

    def parts(self, x: Tensor) -> dict[str, Tensor]:
        """States and gates by the equations of the paper, [T, B, H] each."""
        h = c = n = m = torch.zeros(len(x), HIDDEN)
        seen: dict[str, list[Tensor]] = {}
        for row in self.inputs(x).transpose(0, 1):
            a_i, a_f, a_z, a_o = (row + h @ self.recurrent).chunk(4, 1)
            kept = nn.functional.logsigmoid(a_f) + m
            m = torch.maximum(kept, a_i)
            i, f, z, o = (a_i - m).exp(), (kept - m).exp(), a_z.tanh(), a_o.sigmoid()
            c, n = f * c + i * z, f * n + i
            h = o * c / n
            names = ("hidden", "cell", "normaliser", "stabiliser", *GATES)
            for name, part in zip(names, (h, c, n, m, i, f, z, o), strict=True):
                seen.setdefault(name, []).append(part)
        return {name: torch.stack(parts) for name, parts in seen.items()}


@pytest.fixture
def net() -> SLSTM:
    torch.manual_seed(0)
    return SLSTM()


def exported(net: SLSTM, folder: Path, gates: dict[str, str] = GATES) -> Path:
    """The file, which names its cell; what carries a state has the variable's name and a number in the loop's body."""
    path = export(net, folder, [], x=torch.zeros(2, 5, INPUTS))
    (loop,) = (node for node in onnx.load(path).graph.node if node.op_type == "Loop")
    carried = {info.name.split(".")[0]: info.name for info in loop.attribute[0].g.input}
    states = {state: carried[variable] for state, variable in STATES.items()}
    return annotate(path, [{"kind": "sLSTM", "input_size": INPUTS, "states": states, "gates": gates}])


def test_a_scripted_slstm_answers_as_torch_and_as_its_untouched_file_and_shows_its_gates(
    net: SLSTM, tmp_path: Path
) -> None:
    path = exported(net, tmp_path)
    loaded = load(path, 4, 1e-3)
    (cell,) = loaded.graph.layers
    assert (cell.kind, cell.hidden_size, cell.states) == ("sLSTM", HIDDEN, tuple(STATES))
    assert cell.gates == loaded.graph.gates_of(0) == tuple(GATES)
    x = 2 * torch.randn(BATCH, STEPS, INPUTS)
    got = streamed(loaded, x.numpy())
    with torch.no_grad():
        wanted = net.parts(x) | {"y": net(x).transpose(0, 1)}
    for name, tensor in wanted.items():
        np.testing.assert_allclose(got[name], tensor.numpy(), atol=1e-5, rtol=1e-5, err_msg=name)
    (original,) = onnxruntime.InferenceSession(path).run(["y"], {"x": x.numpy()})
    np.testing.assert_allclose(got["y"], original.transpose(1, 0, 2), atol=1e-5)


def test_gates_that_changed_places_are_found_by_the_proof_and_the_names_are_blamed(net: SLSTM, tmp_path: Path) -> None:
    path = exported(net, tmp_path, GATES | {"input": "f", "forget": "i"})
    with pytest.raises(ModelRefused, match=r"tidegate\.cells names gates and states of 'cell 0' \(sLSTM\)"):
        load(path, 4, 1e-3)


def test_the_report_says_where_its_states_live(net: SLSTM, tmp_path: Path) -> None:
    report = examination.examine(exported(net, tmp_path))
    assert [(state.layer, state.name, state.home) for state in report.states] == [(0, name, "loop") for name in STATES]
    assert [trace.shown for trace in report.traces] == [(*STATES, *GATES)]
