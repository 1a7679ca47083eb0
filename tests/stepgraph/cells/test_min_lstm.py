"""minLSTM, which no ONNX operator computes: written in torch, exported as plain operators, and named in the file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stepgraph.loading import load
from tests.stepgraph.cells.streaming import annotate, export, streamed

if TYPE_CHECKING:
    from pathlib import Path

INPUTS, HIDDEN, STEPS, BATCH = 3, 4, 40, 2
GATES = ("forget", "input", "candidate")


def _recurrence(f: Tensor, i: Tensor, n: Tensor) -> Tensor:
    h = torch.zeros_like(f[:, 0])
    hs = []
    for t in range(f.size(1)):
        h = f[:, t] * h + i[:, t] * n[:, t]
        hs.append(h)
    return torch.stack(hs, 1)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scripts are deprecated; what they are exported as is not
    recurrence = torch.jit.script(_recurrence)


class MinLSTM(nn.Module):
    """[B, T, I] to a head of [B, T, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.forget = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Sigmoid())
        self.input = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Sigmoid())
        self.candidate = nn.Linear(INPUTS, HIDDEN)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        f, i, n = self.forget(x), self.input(x), self.candidate(x)
        return self.head(recurrence(f / (f + i), i / (f + i), n))


class OneStep(MinLSTM):
    """[B, I] and the state [B, H] to the head and the new state."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        f, i, n = self.forget(x), self.input(x), self.candidate(x)
        h = (f * h + i * n) / (f + i)
        return self.head(h), h


SIGMOIDS = {"forget": "/forget/forget.1/Sigmoid_output_0", "input": "/input/input.1/Sigmoid_output_0"}
CANDIDATE = "/candidate/Add_output_0"
NAMED = {
    "sigmoids": SIGMOIDS | {"candidate": CANDIDATE},
    "divided by their sum": {
        "forget": "/Div_output_0",
        "input": "/Div_1_output_0",
        "candidate": "/candidate/Add_output_0",
    },
}


@pytest.mark.parametrize("named", NAMED)
def test_a_scripted_min_lstm_answers_as_torch_and_as_its_untouched_file_and_shows_the_gates_that_it_names(
    named: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = MinLSTM()
    path = export(net, tmp_path, [], x=torch.zeros(2, 5, INPUTS))
    (loop,) = (node for node in onnx.load(path).graph.node if node.op_type == "Loop")
    (state,) = (info.name for info in loop.attribute[0].g.input if info.name.startswith("h."))
    annotate(path, [{"kind": "minLSTM", "states": {"hidden": state}, "gates": NAMED[named]}])
    loaded = load(path, 4, 1e-3)
    (cell,) = loaded.graph.layers
    assert (cell.kind, cell.states, loaded.graph.gates_of(0)) == ("minLSTM", ("hidden",), GATES)
    x = torch.randn(BATCH, STEPS, INPUTS)
    got = streamed(loaded, x.numpy())
    with torch.no_grad():
        f, i, n = net.forget(x), net.input(x), net.candidate(x)
        whole = f + i if named != "sigmoids" else torch.ones_like(f)
        hidden = recurrence(f / (f + i), i / (f + i), n)
        wanted = {"y": net(x), "forget": f / whole, "input": i / whole, "candidate": n, "hidden": hidden}
    for name, tensor in wanted.items():
        np.testing.assert_allclose(got[name], tensor.transpose(0, 1).numpy(), atol=1e-6, err_msg=name)
    (original,) = onnxruntime.InferenceSession(path).run(["y"], {"x": x.numpy()})
    np.testing.assert_allclose(got["y"], original.transpose(1, 0, 2), atol=1e-6)


def test_one_step_of_a_min_lstm_with_its_state_as_input_and_output_shows_its_gates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = OneStep()
    gates = SIGMOIDS | {"candidate": "/candidate/Gemm_output_0"}
    cells = [{"kind": "minLSTM", "states": {"hidden": "h"}, "gates": gates}]
    path = export(net, tmp_path, cells, x=torch.zeros(2, INPUTS), h=torch.zeros(2, HIDDEN))
    path.with_name("model.toml").write_text('[state]\nh = "h_out"\n')
    x = torch.randn(BATCH, STEPS, INPUTS)
    got = streamed(load(path, 4, 1e-3), x.numpy())
    with torch.no_grad():
        f, i, n = net.forget(x), net.input(x), net.candidate(x)
        hidden = recurrence(f / (f + i), i / (f + i), n)
        wanted = {"forget": f, "input": i, "candidate": n, "hidden": hidden, "y": net.head(hidden)}
    for name, tensor in wanted.items():
        np.testing.assert_allclose(got[name], tensor.transpose(0, 1).numpy(), atol=1e-6, err_msg=name)
