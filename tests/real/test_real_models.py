"""Models that others published, over gRPC: step by step what their own files answer in onnxruntime."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

import stepgraph
import tidegate
from tests.real.conftest import fetched
from tests.real.published import REFUSED, REMEDIED, STREAMING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.real.published import Streaming
    from tests.running_server import RunningServer

STEPS, TOLERANCE = 200, 1e-5
COMPARED = {*range(20), 49, 99, STEPS - 1}  # of a file that takes whole sequences, which is run anew for each


class Original:
    """The file itself, run by whoever keeps its state."""

    def __init__(self, path: Path, how: Streaming) -> None:
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        kinds = {given.name: given for given in self._session.get_inputs()}
        self._fixed = {name: np.array(value, np.int64) for name, value in how.fixed.items() if name in kinds}
        self._state = {
            name: np.zeros([d if isinstance(d, int) and d else 1 for d in kinds[name].shape], np.float32)
            for name in how.states
        }
        self._how = how

    def step(self, rows: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs after the last of these rows, which begin with the sequence."""
        fed = {name: _fed(rows[name], shape) for name, shape in self._how.inputs.items()}
        given = {name: value[np.newaxis] for name, value in beside.items()}
        values = self._session.run(None, fed | given | self._fixed | self._state)
        outputs = dict(zip(self._names, values, strict=True))
        self._state = {given: outputs[returned] for given, returned in self._how.states.items()}
        return outputs


def _fed(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(rows, shape.index(-1)) if -1 in shape else rows[-1]


@pytest.mark.parametrize("name", STREAMING)
def test_a_published_model_streams_what_its_own_file_answers(name: str, served: RunningServer, models: Path) -> None:
    how = STREAMING[name]
    original = Original(models / name / "1" / "model.onnx", how)
    random = np.random.default_rng(0)
    rows = {
        given: random.normal(0, 0.3, (STEPS, *(d for d in shape if d != -1))).astype(np.float32)
        for given, shape in how.inputs.items()
    }
    beside = {given: random.uniform(0, 1, shape).astype(np.float32) for given, shape in how.beside.items()}
    with tidegate.connect(served.address) as client, client.sequence(name) as sequence:
        shapes = {given.name: given.shape for given in client.describe(name).inputs if given.name in rows}
        for step in range(STEPS):
            answer = sequence.step({given: rows[given][step].reshape(shapes[given]) for given in rows} | beside)
            if not how.states and step not in COMPARED:
                continue
            wanted = original.step({given: values[: step + 1] for given, values in rows.items()}, beside)
            got = answer.outputs[how.output]
            np.testing.assert_allclose(got, wanted[how.output].reshape(-1, *got.shape)[-1], TOLERANCE, TOLERANCE)
            for (layer, part), (output, index) in how.inside.items():
                np.testing.assert_allclose(
                    getattr(answer.layer[layer], part), wanted[output][index], TOLERANCE, TOLERANCE
                )


@pytest.mark.parametrize("name", REMEDIED)
def test_what_check_prints_below_a_refusal_makes_a_published_model_served(name: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(fetched(STREAMING[name].file), tmp_path / "model.onnx"))
    refused = stepgraph.check(path).report
    assert not refused.served
    path.with_name("model.toml").write_text("\n".join(refused.example))
    assert stepgraph.check(path).report.served


@pytest.mark.parametrize("name", STREAMING)
def test_a_published_model_says_which_cells_it_holds(name: str, served: RunningServer) -> None:
    with tidegate.connect(served.address) as client:
        described = client.describe(name)
    assert described.status == "ready"
    assert tuple(layer.kind for layer in described.layers) == STREAMING[name].cells
    file = STREAMING[name].file
    known = file.sha256 or hashlib.sha256(fetched(file).read_bytes()).hexdigest()
    assert (described.sha256 == known) == (not file.toml), "what model.toml says is part of a model's content"


@pytest.mark.parametrize("name", REFUSED)
def test_a_published_model_that_cannot_stream_is_refused_for_what_it_holds(name: str, served: RunningServer) -> None:
    _, reason = REFUSED[name]
    with tidegate.connect(served.address) as client:
        described = client.describe(name)
    assert described.status == "refused"
    assert re.search(reason, described.reason)
