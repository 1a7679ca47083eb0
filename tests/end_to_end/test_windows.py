"""Models that answer the last step of each window only, over the wire: chunks, fleets, forks, rewinds and resumes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tidegate
from tests.running_server import RunningServer
from tests.torch_models import Spec, write
from tidegate.cli.sinks import CsvSink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

N, STEPS = 8, 30
ROWS = np.random.default_rng(8).standard_normal((3, STEPS, 3), dtype=np.float32)
ENDS = (np.arange(STEPS) + 1) % N == 0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    put(models, "last", 'answer = "last"')
    put(models, "every", "")
    store = f"sqlite:{tmp_path_factory.mktemp('store') / 'store.db'}"
    with RunningServer(models, "--store", store, "--checkpoint-steps", "1") as server:
        yield server.ready().address


def put(models: Path, name: str, answer: str) -> None:
    folder = models / name / "1"
    folder.mkdir(parents=True)
    write(Spec(hidden=6, seed=3), folder / "model.onnx")
    (folder / "model.toml").write_text(f"[window]\nsteps = {N}\n{answer}\n")


def whole(answer: tidegate.Answer) -> bytes:
    inside = [answer.layer[0][part].tobytes() for part in answer.layer[0].parts]
    return b"".join([*(array.tobytes() for array in answer.outputs.values()), *inside])


def test_the_model_says_its_window_and_an_answer_says_whether_it_is_one(address: str) -> None:
    with tidegate.connect(address) as client, client.sequence("last") as sequence:
        model = client.describe("last")
        assert model.window == tidegate.model.Window(N, last=True)
        assert f"after every {N} steps" in " ".join(model.remarks)
        answers = [sequence.step(row) for row in ROWS[0]]
        assert [answer.answered for answer in answers] == ENDS.tolist()
        assert np.isnan(np.stack([answer.output for answer in answers])).any(axis=1).tolist() == (~ENDS).tolist()
        text = io.StringIO()
        sink = CsvSink(text, model)
        for answer in answers:
            sink.write(answer)
        assert [bool(line.split(",")[1]) for line in text.getvalue().splitlines()[1:]] == ENDS.tolist()
        assert client.describe("every").window == tidegate.model.Window(N)


@pytest.mark.parametrize("model", ["last", "every"])
def test_steps_chunks_fleets_and_a_whole_sequence_have_the_same_bits(address: str, model: str) -> None:
    with tidegate.connect(address) as client:
        with client.sequence(model) as one:
            alone = [whole(one.step(row)) for row in ROWS[0]]
        with client.sequence(model) as other:
            chunks = [other.chunk(part) for part in np.split(ROWS[0], [3, 20])]
            assert np.concatenate([chunk.answered for chunk in chunks]).tolist() == [
                bool(end) or model == "every" for end in ENDS
            ]
            assert [whole(answer) for chunk in chunks for answer in chunk] == alone
        assert [whole(answer) for answer in client.predict(model, ROWS[0])] == alone
        with client.fleet(model, 3) as fleet, client.sequence(model) as mixed:
            fleet.step(ROWS[1:, 0], members=[1, 2])  # the others are a step ahead in their windows
            for step, row in enumerate(ROWS[0, :20]):
                answers = fleet.step(np.stack([row, *ROWS[1:, step + 1]]))
                ends = [(step + 1) % N == 0, *[(step + 2) % N == 0] * 2]
                assert answers.answered.tolist() == [end or model == "every" for end in ends]
                assert answers.output[0].tobytes() == mixed.step(row).output.tobytes()


def test_the_place_within_a_window_goes_along_with_a_fork_a_rewind_and_a_resume(address: str) -> None:
    with tidegate.connect(address) as client, client.sequence("last") as one:
        wanted = [whole(one.step(row)) for row in ROWS[0]]
    client = tidegate.connect(address)
    sequence = client.sequence("last")
    for row in ROWS[0, :13]:
        sequence.step(row)
    with sequence.fork() as fork:
        assert [whole(fork.step(row)) for row in ROWS[0, 13:]] == wanted[13:]
    back = sequence.rewind(11)
    assert [whole(sequence.step(row)) for row in ROWS[0, back:18]] == wanted[back:18]
    first, kept = sequence.kept()
    place = (sequence.id, sequence.resume_token)
    client.close()
    with tidegate.connect(address) as elsewhere, elsewhere.resume(*place, answered=18) as taken:
        (rows,) = kept.values()
        for row in rows[taken.next_step - first :]:
            taken.step(row)
        assert [whole(taken.step(row)) for row in ROWS[0, 18:]] == wanted[18:]
