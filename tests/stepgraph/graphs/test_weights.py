"""Large weights lie beside a model and are not copied with it; what is served is the same as with all in one message.

What counts as large is lowered here, to a few numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from stepgraph.graphs import weights
from stepgraph.isolation.packing import pack, unpack
from stepgraph.isolation.verdict import Proved, put_together, taken_apart
from stepgraph.loading import load
from stepgraph.proving.reference import sequences

if TYPE_CHECKING:
    from stepgraph.model import LoadedModel

MODELS = Path(__file__).parents[2] / "models"
FEW = 300  # bytes
FILES = (
    MODELS / "made" / "keras3" / "tokens.onnx",
    MODELS / "made" / "torch-dynamo" / "lstm.onnx",
    MODELS / "cases" / "float_tokens.onnx",
    MODELS / "cases" / "hierarchical.onnx",
)


def answers(model: LoadedModel) -> dict[str, np.ndarray]:
    data = sequences(model.facts, 5, 1, 0)
    return dict(model.engine.run(data, model.graph.start(1), trace=False).outputs)


@pytest.mark.parametrize("beside", [False, True], ids=["in the file", "beside it"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_model_with_large_weights_answers_with_the_same_bits(
    file: Path, beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = answers(load(file, 2, 0.0))
    path = tmp_path / "model.onnx"
    onnx.save(onnx.load(file), path, save_as_external_data=beside, location="model.onnx.data", size_threshold=FEW)
    monkeypatch.setattr(weights, "LARGE", FEW)
    loaded = load(path, 2, 0.0)
    assert loaded.graph.weights
    handed_over = put_together(unpack(Proved, pack(taken_apart(loaded))), 0.0, fresh=True)
    for model in (loaded, handed_over):
        for name, value in answers(model).items():
            np.testing.assert_array_equal(value, wanted[name])


def test_copies_of_a_model_share_its_large_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGE", FEW)
    model = onnx.load(FILES[2])
    size = model.ByteSize()
    taken = weights.take(model.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert copy.ByteSize() + sum(array.nbytes for array in taken) < size + len(taken) * FEW
    assert all(found is given for found, given in zip(weights.of(copy).values(), taken, strict=True))


def test_weights_that_nobody_keeps_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGE", FEW)
    model = onnx.load(FILES[2])
    assert weights.take(model.graph)
    assert not weights.of(model)
