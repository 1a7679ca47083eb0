"""minGRU, which no ONNX operator computes: written in torch, exported as plain operators, and named in the file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import tidegate
from stepgraph.errors import ModelRefused
from stepgraph.loading import load
from stepgraph.report import examination
from tests.running_server import RunningServer
from tests.stepgraph.cells.streaming import export, streamed

if TYPE_CHECKING:
    from pathlib import Path


INPUTS, HIDDEN, STEPS, BATCH = 3, 4, 7, 2
GATES = {"update": "/update/update.1/Sigmoid_output_0", "candidate": "/candidate/Add_output_0"}
STATES = {"hidden": "h.11"}  # what torch's exporter calls `h` in the body of the loop
ENTRY = {"kind": "minGRU", "name": "memory", "input_size": INPUTS, "states": STATES, "gates": GATES}


def _recurrence(z: Tensor, n: Tensor) -> Tensor:
    h = torch.zeros_like(z[:, 0])
    hs = []
    for t in range(z.size(1)):
        h = (1 - z[:, t]) * h + z[:, t] * n[:, t]
        hs.append(h)
    return torch.stack(hs, 1)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scripts are deprecated; what they are exported as is not
    recurrence = torch.jit.script(_recurrence)


class MinGRU(nn.Module):
    """[B, T, I] to a head of [B, T, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.update = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Sigmoid())
        self.candidate = nn.Linear(INPUTS, HIDDEN)
        self.head = nn.Linear(HIDDEN, 2)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.update(x), self.candidate(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(recurrence(*self.gates(x)))


class OneStep(MinGRU):
    """[B, I] and the state [B, H] to the head and the new state."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        z, n = self.gates(x)
        h = (1 - z) * h + z * n
        return self.head(h), h


@pytest.fixture
def net() -> MinGRU:
    torch.manual_seed(0)
    return MinGRU()


def test_a_scripted_min_gru_answers_as_torch_and_as_its_untouched_file_and_shows_its_gates(
    net: MinGRU, tmp_path: Path
) -> None:
    path = export(net, tmp_path, [ENTRY], x=torch.zeros(2, 5, INPUTS))
    loaded = load(path, 4, 1e-3)
    (cell,) = loaded.graph.layers
    assert (cell.kind, cell.node, cell.input_size, cell.hidden_size) == ("minGRU", "memory", INPUTS, HIDDEN)
    assert (cell.states, cell.gates, loaded.graph.gates_of(0)) == (("hidden",), ("update", "candidate"), cell.gates)
    x = torch.randn(BATCH, STEPS, INPUTS)
    got = streamed(loaded, x.numpy())
    with torch.no_grad():
        z, n = net.gates(x)
        wanted = {"y": net(x), "update": z, "candidate": n, "hidden": recurrence(z, n)}
    for name, tensor in wanted.items():
        np.testing.assert_allclose(got[name], tensor.transpose(0, 1).numpy(), atol=1e-6, err_msg=name)
    (original,) = onnxruntime.InferenceSession(path).run(["y"], {"x": x.numpy()})
    np.testing.assert_allclose(got["y"], original.transpose(1, 0, 2), atol=1e-6)


def test_one_step_of_a_min_gru_with_its_state_as_input_and_output_shows_its_gates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = OneStep()
    gates = GATES | {"candidate": "/candidate/Gemm_output_0"}
    cells = [ENTRY | {"states": {"hidden": "h"}, "gates": gates}]
    path = export(net, tmp_path, cells, x=torch.zeros(2, INPUTS), h=torch.zeros(2, HIDDEN))
    path.with_name("model.toml").write_text('[state]\nh = "h_out"\n')
    x = torch.randn(BATCH, STEPS, INPUTS)
    got = streamed(load(path, 4, 1e-3), x.numpy())
    with torch.no_grad():
        z, n = net.gates(x)
        wanted = {"update": z, "candidate": n, "hidden": recurrence(z, n), "y": net.head(recurrence(z, n))}
    for name, tensor in wanted.items():
        np.testing.assert_allclose(got[name], tensor.transpose(0, 1).numpy(), atol=1e-6, err_msg=name)


def test_gates_that_changed_places_are_found_by_the_proof_and_the_names_are_blamed(net: MinGRU, tmp_path: Path) -> None:
    swapped = {"update": GATES["candidate"], "candidate": GATES["update"]}
    path = export(net, tmp_path, [ENTRY | {"gates": swapped}], x=torch.zeros(2, 5, INPUTS))
    with pytest.raises(
        ModelRefused, match=r"tidegate\.cells names gates and states of 'memory' \(minGRU\), and by the"
    ):
        load(path, 4, 1e-3)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("[{", "cannot be read: JSONDecodeError"),
        ([{}], "cannot be read: KeyError"),
        ([ENTRY | {"kind": "maxGRU"}], "names a 'maxGRU'; known are RNN, LSTM, GRU, minGRU"),
        ([ENTRY | {"gates": {"update": "z"}}], "gives the gates update of a minGRU, which has update, candidate"),
        ([ENTRY | {"states": {"hidden": "no"}}], r"'no' is a state; carried from step to step are h\.11"),
        ([ENTRY | {"gates": GATES | {"update": "no"}}], "'no' is a gate, and no node makes it"),
    ],
    ids=["no JSON", "no kind", "an unknown kind", "a gate left out", "an unknown state", "an unknown gate"],
)
def test_an_annotation_that_cannot_be_followed_is_refused(
    net: MinGRU, tmp_path: Path, cells: object, reason: str
) -> None:
    path = export(net, tmp_path, cells, x=torch.zeros(2, 5, INPUTS))
    with pytest.raises(ModelRefused, match=f"tidegate.cells.*{reason}"):
        load(path, 4, 1e-3)


def test_a_client_reads_the_gates_of_a_min_gru_by_name(net: MinGRU, tmp_path: Path) -> None:
    (tmp_path / "memory" / "1").mkdir(parents=True)
    export(net, tmp_path / "memory" / "1", [ENTRY], x=torch.zeros(2, 5, INPUTS))
    x = torch.randn(1, STEPS, INPUTS)
    with RunningServer(tmp_path) as server, tidegate.Client(server.ready().address) as client:
        (layer,) = client.describe("memory").layers
        assert (layer.kind, layer.gates, layer.input_size) == ("minGRU", ("update", "candidate"), INPUTS)
        with client.sequence("memory") as sequence:
            answers = sequence.chunk(x[0].numpy())
    with torch.no_grad():
        z, n = net.gates(x)
    for gate, wanted in (("update", z), ("candidate", n), ("hidden", recurrence(z, n))):
        np.testing.assert_allclose(answers.layer[0][gate], wanted[0].numpy(), atol=1e-6, err_msg=gate)


def test_the_report_of_a_min_gru_says_where_its_state_lives_and_what_a_trace_shows(net: MinGRU, tmp_path: Path) -> None:
    report = examination.examine(export(net, tmp_path, [ENTRY], x=torch.zeros(2, 5, INPUTS)))
    assert [(cell.kind, cell.input_size, cell.hidden_size) for cell in report.cells] == [("minGRU", INPUTS, HIDDEN)]
    assert [(state.layer, state.name, state.home) for state in report.states] == [(0, "hidden", "loop")]
    assert [trace.shown for trace in report.traces] == [("hidden", "update", "candidate")]
    assert not report.remarks  # the loop that torch exports collects its rows in a sequence, and is read to its end
