"""Weights in a narrower type, as model.toml has them, over the wire: no sequence goes on with other numbers unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

import tidegate
from tests.running_server import RunningServer
from tests.torch_models import Spec, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS, SEQUENCES, TAKEN = 40, 3, 25
ROWS = np.random.default_rng(8).standard_normal((STEPS, SEQUENCES, 3), dtype=np.float32)


def whole(answer: tidegate.Answer) -> bytes:
    inside = [answer.layer[0][part].tobytes() for part in answer.layer[0].parts]
    return b"".join([answer.output.tobytes(), *inside])


def say(models: Path, precision: str) -> None:
    (models / "net" / "1" / "model.toml").write_text(f'[weights]\nprecision = "{precision}"\n', encoding="utf-8")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "net" / "1").mkdir(parents=True)
    write(Spec(hidden=40, seed=3), folder / "net" / "1" / "model.onnx")
    say(folder, "int8")
    return folder


@pytest.fixture
def starting(models: Path, tmp_path: Path) -> Iterator[Iterator[RunningServer]]:
    """Starts a server over the models and the same store with each `next`; kills the one before, as a machine might."""

    def begun() -> Iterator[RunningServer]:
        while True:
            store = f"sqlite:{tmp_path / 'store.db'}"
            with RunningServer(models, "--store", store, "--checkpoint-steps", "1") as server:
                yield server.ready()

    servers = begun()
    yield servers
    servers.close()


def test_a_sequence_keeps_its_numbers_in_a_fleet_and_when_a_server_comes_back_with_another_precision(
    models: Path, starting: Iterator[RunningServer]
) -> None:
    first = next(starting)
    first.line("net version 1: weights in int8, as model.toml says: answers differ from the file's by at most")
    with tidegate.connect(first.address) as client:
        described = client.describe("net")
        narrowed = described.proof.narrowed
        assert (narrowed.weights, narrowed.steps) == ("int8", 300)
        assert f"{narrowed.error:.2g} ({100 * narrowed.share:.2g} % of their range)" in " ".join(described.remarks)
        with client.sequence("net") as one, client.fleet("net", SEQUENCES) as fleet:
            alone = [one.step(row) for row in ROWS[:, 0]]
            together = [fleet.step(rows) for rows in ROWS]
        got = np.stack([answers.output for answers in together])
        assert [answers.output[0].tobytes() for answers in together] == [answer.output.tobytes() for answer in alone]
        oracle = onnxruntime.InferenceSession(models / "net" / "1" / "model.onnx")
        wanted = oracle.run(None, {oracle.get_inputs()[0].name: ROWS.transpose(1, 0, 2)})[0].transpose(1, 0, 2)
        assert 0 < np.abs(got - wanted).max() < 2 * narrowed.error
    client = tidegate.connect(first.address)
    sequence = client.sequence("net")
    for row in ROWS[:TAKEN, 0]:
        sequence.step(row)
    place, (begun, kept) = (sequence.id, sequence.resume_token), sequence.kept()
    client.close()
    say(models, "float16")
    second = next(starting)
    with tidegate.connect(second.address) as client:
        assert client.describe("net").proof.narrowed.weights == "float16"
        with client.sequence("net") as other:
            assert [whole(other.step(row)) for row in ROWS[:, 0]] != [whole(answer) for answer in alone]
        with client.resume(*place, answered=TAKEN) as taken:
            (rows,) = kept.values()
            for row in rows[taken.next_step - begun :]:
                taken.step(row)
            assert [whole(taken.step(row)) for row in ROWS[TAKEN:, 0]] == [whole(answer) for answer in alone[TAKEN:]]
