"""Models of unusual kinds over the wire: windows, random numbers and narrow weights by model.toml; refused ones."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

import tidegate
from bench.processes.child import free_port
from tests.models.test_without_rule import UNREAD, written
from tests.running_server import RunningServer
from tests.torch_models import Spec, write
from tidegate.cli import pages
from tidegate.cli.sinks import CsvSink
from tidegate.drawing.glyphs import Style

if TYPE_CHECKING:
    from collections.abc import Iterator

CASE = Path(__file__).parents[1] / "models" / "cases" / "sampling_policy.onnx"
N, STEPS = 8, 30
ROWS = np.random.default_rng(8).standard_normal((3, STEPS, 3), dtype=np.float32)
ENDS = (np.arange(STEPS) + 1) % N == 0
OBSERVED = np.random.default_rng(8).standard_normal((24, 1, 4), dtype=np.float32)
SOON = tidegate.Resuming(longest_wait=0.5)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, answer in (("last", 'answer = "last"'), ("every", "")):
        (folder / name / "1").mkdir(parents=True)
        write(Spec(hidden=6, seed=3), folder / name / "1" / "model.onnx")
        (folder / name / "1" / "model.toml").write_text(f"[window]\nsteps = {N}\n{answer}\n")
    (folder / "policy" / "1").mkdir(parents=True)
    shutil.copy(CASE, folder / "policy" / "1" / "model.onnx")
    (folder / "policy" / "1" / "model.toml").write_text("[random]\nallow = true\n")
    for name in ("strings", "labels"):
        (folder / name / "1").mkdir(parents=True)
        shutil.copy(CASE.with_name(f"{name}.onnx"), folder / name / "1" / "model.onnx")
    (folder / "tried" / "1").mkdir(parents=True)
    written(UNREAD["TfIdfVectorizer"], folder / "tried" / "1")
    return folder


@pytest.fixture(scope="module")
def address(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = f"sqlite:{tmp_path_factory.mktemp('store') / 'store.db'}"
    with RunningServer(models, "--store", store, "--checkpoint-steps", "1") as server:
        yield server.ready().address


def whole(answer: tidegate.Answer) -> bytes:
    inside = [answer.layer[0][part].tobytes() for part in answer.layer[0].parts]
    return b"".join([*(array.tobytes() for array in answer.outputs.values()), *inside])


def test_a_file_that_no_message_carries_is_listed_with_its_reason_and_disturbs_no_other(address: str) -> None:
    with tidegate.connect(address) as client:
        listed = {model.name: model for model in client.models()}
        assert {name for name, model in listed.items() if model.status == "refused"} == {"strings", "labels"}
        assert "takes text" in listed["strings"].reason
        assert "returns text" in client.describe("labels").reason
        with client.sequence("every") as sequence:
            assert np.isfinite(sequence.step(ROWS[0, 0]).output).all()


def test_what_was_tried_and_is_not_proved_is_said_in_the_list(address: str) -> None:
    with tidegate.connect(address) as client:
        (model,) = (model for model in client.models() if model.name == "tried")
    assert model.status == "ready"
    assert "it was tried and is not proved: the TfIdfVectorizer that makes" in " ".join(model.remarks)
    assert "TfIdfVectorizer" in model.proof.unread


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


def actions(sequence: tidegate.Sequence, rows: np.ndarray) -> list[bytes]:
    return [sequence.step(row).output.tobytes() for row in rows]


def test_the_same_seed_draws_the_same_numbers_alone_in_a_fleet_and_at_once(address: str) -> None:
    with tidegate.connect(address) as client:
        assert "equal sequences get different answers" in " ".join(client.describe("policy").remarks)
        with client.sequence("policy", seed=5) as one, client.sequence("policy", seed=5) as same:
            wanted = actions(one, OBSERVED)
            assert actions(same, OBSERVED) == wanted
        with client.fleet("policy", 3, seed=4) as fleet:
            answers = [fleet.step(np.stack([row] * 3)).output for row in OBSERVED]
            assert [answer[1].tobytes() for answer in answers] == wanted
            assert len({answer.tobytes() for answer in answers[0]}) == 3
        assert [answer.output.tobytes() for answer in client.predict("policy", OBSERVED, seed=5)] == wanted
        with client.sequence("policy") as other, client.sequence("policy") as another:
            assert len({tuple(wanted), tuple(actions(other, OBSERVED)), tuple(actions(another, OBSERVED))}) == 3


def test_a_state_a_fork_a_rewind_and_a_resume_go_on_with_the_very_same_numbers(address: str) -> None:
    with tidegate.connect(address) as client, client.sequence("policy", seed=9) as one:
        wanted = actions(one, OBSERVED)
    client = tidegate.connect(address)
    sequence = client.sequence("policy", seed=9)
    assert actions(sequence, OBSERVED[:10]) == wanted[:10]
    state = sequence.state()
    assert state.arrays[-1, "tidegate/seed"].tolist() == [9, 0, 0, 0]
    with client.sequence("policy", state=state) as again, sequence.fork() as fork:
        assert actions(again, OBSERVED[10:]) == actions(fork, OBSERVED[10:]) == wanted[10:]
    back = sequence.rewind(9)
    assert actions(sequence, OBSERVED[back:15]) == wanted[back:15]
    first, kept = sequence.kept()
    place = (sequence.id, sequence.resume_token)
    client.close()
    with tidegate.connect(address) as elsewhere, elsewhere.resume(*place, answered=15) as taken:
        (rows,) = kept.values()
        actions(taken, rows[taken.next_step - first :])
        assert actions(taken, OBSERVED[15:]) == wanted[15:]


def test_a_sequence_that_no_server_kept_anything_of_is_opened_anew_with_its_seed(models: Path, tmp_path: Path) -> None:
    """The server is killed before its first checkpoint: the client has answers that its successor has to give again."""
    late = ("--checkpoint-ms", "600000", "--checkpoint-steps", "1000000")
    port = ("--port", str(free_port()))
    with RunningServer(models, "--store", f"sqlite:{tmp_path / 'one.db'}", *port, *late) as first:
        address = first.ready().address
        client = tidegate.connect(address, timeout=240, resume_within=240, resuming=SOON)
        sequence = client.sequence("policy")
        before = actions(sequence, OBSERVED[:5])
        first.process.kill()
        first.wait()
        with RunningServer(models, "--store", f"sqlite:{tmp_path / 'two.db'}", *port) as second:
            second.ready()
            after = actions(sequence, OBSERVED[5:10])
            seed = sequence.state().arrays[-1, "tidegate/seed"].astype(np.uint64)
            number = int(sum(int(part) << (16 * i) for i, part in enumerate(seed.tolist())))
            with client.sequence("policy", seed=number) as whole:
                assert actions(whole, OBSERVED[:10]) == before + after
            client.close()


# Narrower weights ----------------------------------------------------------------------------------------------------

TAKEN = 25
FLEET = np.random.default_rng(8).standard_normal((40, 3, 3), dtype=np.float32)


def say(models: Path, precision: str) -> None:
    (models / "net" / "1" / "model.toml").write_text(f'[weights]\nprecision = "{precision}"\n', encoding="utf-8")


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "net" / "1").mkdir(parents=True)
    write(Spec(hidden=40, seed=3), folder / "net" / "1" / "model.onnx")
    say(folder, "int8")
    return folder


@pytest.fixture
def starting(narrow: Path, tmp_path: Path) -> Iterator[Iterator[RunningServer]]:
    """Starts a server over the models and the same store with each `next`, and kills the one before."""

    def begun() -> Iterator[RunningServer]:
        while True:
            store = f"sqlite:{tmp_path / 'store.db'}"
            with RunningServer(narrow, "--store", store, "--checkpoint-steps", "1") as server:
                yield server.ready()

    servers = begun()
    yield servers
    servers.close()


def test_a_sequence_keeps_its_numbers_in_a_fleet_and_when_a_server_comes_back_with_another_precision(
    narrow: Path, starting: Iterator[RunningServer]
) -> None:
    first = next(starting)
    first.line("net version 1: weights in int8, as model.toml says: answers differ from the file's by at most")
    with tidegate.connect(first.address) as client:
        described = client.describe("net")
        narrowed = described.proof.narrowed
        assert (narrowed.weights, narrowed.steps) == ("int8", 300)
        assert f"{narrowed.error:.2g} ({100 * narrowed.share:.2g} % of their range)" in " ".join(described.remarks)
        assert f"within {narrowed.error:.2g} with weights in int8, " in "\n".join(pages.page(described, Style()))
        with client.sequence("net") as one, client.fleet("net", FLEET.shape[1]) as fleet:
            alone = [one.step(row) for row in FLEET[:, 0]]
            together = [fleet.step(rows) for rows in FLEET]
        got = np.stack([answers.output for answers in together])
        assert [answers.output[0].tobytes() for answers in together] == [answer.output.tobytes() for answer in alone]
        oracle = onnxruntime.InferenceSession(narrow / "net" / "1" / "model.onnx")
        wanted = oracle.run(None, {oracle.get_inputs()[0].name: FLEET.transpose(1, 0, 2)})[0].transpose(1, 0, 2)
        assert 0 < np.abs(got - wanted).max() < 2 * narrowed.error
    client = tidegate.connect(first.address)
    sequence = client.sequence("net")
    for row in FLEET[:TAKEN, 0]:
        sequence.step(row)
    place, (begun, kept) = (sequence.id, sequence.resume_token), sequence.kept()
    client.close()
    say(narrow, "float16")
    second = next(starting)
    with tidegate.connect(second.address) as client:
        assert client.describe("net").proof.narrowed.weights == "float16"
        with client.sequence("net") as other:
            assert [whole(other.step(row)) for row in FLEET[:, 0]] != [whole(answer) for answer in alone]
        with client.resume(*place, answered=TAKEN) as taken:
            (rows,) = kept.values()
            for row in rows[taken.next_step - begun :]:
                taken.step(row)
            assert [whole(taken.step(row)) for row in FLEET[TAKEN:, 0]] == [whole(answer) for answer in alone[TAKEN:]]
