"""Models that others published, over gRPC: step by step what their own files answer in onnxruntime."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

import tidegate
from tests.real.published import REFUSED, STREAMING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.real.published import Streaming
    from tests.running_server import RunningServer

STEPS, TOLERANCE = 20, 1e-5


class Original:
    """The file itself, run by whoever keeps its state."""

    def __init__(self, path: Path, how: Streaming) -> None:
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        kinds = {given.name: given for given in self._session.get_inputs()}
        self._fixed = {name: np.array(value, np.int64) for name, value in how.fixed.items()}
        self._state = {
            name: np.zeros([d if isinstance(d, int) and d else 1 for d in kinds[name].shape], np.float32)
            for name in how.states
        }
        self._how = how

    def step(self, rows: np.ndarray, beside: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs after the last of these rows, which begin with the sequence."""
        fed = (rows[-1:] if self._how.states else rows).reshape(self._how.shape)
        given = {name: value[np.newaxis] for name, value in beside.items()}
        values = self._session.run(None, {self._how.input: fed} | given | self._fixed | self._state)
        outputs = dict(zip(self._names, values, strict=True))
        self._state = {given: outputs[returned] for given, returned in self._how.states.items()}
        return outputs


@pytest.mark.parametrize("name", STREAMING)
def test_a_published_model_streams_what_its_own_file_answers(name: str, served: RunningServer, models: Path) -> None:
    how = STREAMING[name]
    original = Original(models / name / "1" / "model.onnx", how)
    random = np.random.default_rng(0)
    rows = random.normal(0, 0.3, (STEPS, how.shape[-1])).astype(np.float32)
    beside = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in how.beside.items()}
    with tidegate.connect(served.address) as client, client.sequence(name) as sequence:
        row = next(given.shape for given in client.describe(name).inputs if given.name == how.input)
        for step in range(STEPS):
            answer = sequence.step({how.input: rows[step].reshape(row)} | beside)
            wanted = original.step(rows[: step + 1], beside)
            got = answer.outputs[how.output]
            np.testing.assert_allclose(got, wanted[how.output].reshape(-1, *got.shape)[-1], atol=TOLERANCE)
            for (layer, part), (output, index) in how.inside.items():
                np.testing.assert_allclose(getattr(answer.layer[layer], part), wanted[output][index], atol=TOLERANCE)


@pytest.mark.parametrize("name", STREAMING)
def test_a_published_model_says_which_cells_it_holds(name: str, served: RunningServer) -> None:
    with tidegate.connect(served.address) as client:
        described = client.describe(name)
    assert described.status == "ready"
    assert tuple(layer.kind for layer in described.layers) == STREAMING[name].cells
    file = STREAMING[name].file
    assert (described.sha256 == file.sha256) == (not file.toml), "what model.toml says is part of a model's content"


@pytest.mark.parametrize("name", REFUSED)
def test_a_published_model_that_cannot_stream_is_refused_for_what_it_holds(name: str, served: RunningServer) -> None:
    _, reason = REFUSED[name]
    with tidegate.connect(served.address) as client:
        described = client.describe(name)
    assert described.status == "refused"
    assert re.search(reason, described.reason)
