"""The life of a sequence of the Open Inference Protocol: errors, and what outlives calls, streams and servers."""

from __future__ import annotations

import queue
import re
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

import tidegate
from server.access import token_secret
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import Right
from server.edge.oip.requests import steps_of
from server.errors import BadInput, Reason
from stepgraph.rewriting.ports import Port
from tests.running_server import RunningServer
from tests.server.edge.oip.speaking import PATIENCE, ROWS, connected, inputs, native, place, request, streaming, stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tritonclient.grpc import InferenceServerClient, service_pb2

HALF = len(ROWS) // 2
LAST = len(ROWS) - 1


@pytest.fixture(scope="module")
def expected(server: RunningServer) -> np.ndarray:
    return native(server.address, "lstm", ROWS)


@pytest.fixture
def client(server: RunningServer) -> Iterator[InferenceServerClient]:
    with connected(server.address) as connection:
        yield connection


def step(client: InferenceServerClient, at: int, id_: int | str, last: int = LAST, **more: object) -> np.ndarray:
    """One step of ROWS, as a call."""
    result = client.infer("lstm", inputs(ROWS[at : at + 1]), **place(id_, at, last) | more)
    return result.as_numpy("y")[0]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InferenceServerException) as error:
        call()
    return error.value.message()


def kept_tokens(path: Path, shown: str, *models: str) -> TokenFile:
    """A file in which a secret is that of token 'ann', for these models; for none, there is no such token."""
    file = TokenFile(path)
    with file.change() as tokens:
        tokens.clear()
        if models:
            tokens["ann"] = Token("ann", frozenset({Right.PREDICT}), models, (token_secret.digest(shown),))
    return file


# Errors ---------------------------------------------------------------------------------------------------------------


def bad(**fields: object) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": (1, 3)} | fields


RAW = ROWS[0].tobytes()
CLASSES: dict[str, Any] = {"classification": {}}
MISTAKES = {
    "WRONG_SHAPE: inputs have the shapes": (bad(shape=(3, 1, 1, 1)), [RAW], {}),
    "WRONG_SHAPE: input 'x' has shape": (bad(shape=(1, 1, 2)), [RAW[:8]], {}),
    "WRONG_SHAPE: a batch of 2": (bad(shape=(2, 3)), [RAW * 2], {}),
    "WRONG_SIZE: input 'x' is FP32": (bad(), [RAW[1:]], {}),
    "WRONG_TYPE: input 'x' is float64": (bad(datatype="FP64"), [RAW * 2], {}),
    "WRONG_TYPE: input 'x' is 'BYTES'": (bad(datatype="BYTES"), [RAW], {}),
    "WRONG_TYPE: input 'x' is FP32 and has contents": (bad(contents={"int_contents": [1, 2, 3]}), [], {}),
    "WRONG_SIZE: input 'x' is FP32 [1, 3] and has 2": (bad(contents={"fp32_contents": [1, 2]}), [], {}),
    "WRONG_NAME: inputs are 'z'": (bad(name="z"), [RAW], {}),
    "NOT_FINITE: input 'x' holds": (bad(), [np.full(3, np.nan, np.float32).tobytes()], {}),
    "MALFORMED: input 'x' has contents beside": (bad(contents={"fp32_contents": [1, 2, 3]}), [RAW], {}),
    "MALFORMED: 2 raw contents": (bad(), [RAW, RAW], {}),
    "MALFORMED: parameter 'triton_x'": (bad(), [RAW], {"triton_x": 1}),
    "MALFORMED: parameter 'sequence_end' is int64": (bad(), [RAW], {"sequence_end": 1}),
    "WRONG_STEP: step 9 came": (bad(), [RAW], {"sequence_step": 9}),
    "TOO_LARGE: a sequence id": (bad(), [RAW], {"sequence_id": "x" * 129}),
}


def test_an_error_comes_with_the_requests_id_and_its_reason_and_the_stream_and_the_sequence_go_on(
    server: RunningServer, expected: np.ndarray
) -> None:
    sent = [request("lstm", [bad()], raw_input_contents=[RAW], parameters={"sequence_id": 31, "sequence_start": True})]
    for at, (tensor, raw, parameters) in enumerate(MISTAKES.values()):
        given = {"sequence_id": 31} | parameters
        sent.append(request("lstm", [tensor], raw_input_contents=raw, parameters=given, id=f"wrong {at}"))
    row = ROWS[1].tobytes()
    sent.append(
        request("lstm", [bad()], raw_input_contents=[row], parameters={"sequence_id": 31, "sequence_end": True})
    )
    with stub(server.address) as service:
        first, *wrong, last = service.ModelStreamInfer(iter(sent), timeout=120)
    assert [answer.infer_response.id for answer in wrong] == [f"wrong {at}" for at in range(len(MISTAKES))]
    for answer, said in zip(wrong, MISTAKES, strict=True):
        assert answer.error_message.startswith(said)
        assert answer.infer_response.parameters["tidegate_reason"].string_param == said.partition(":")[0]
    assert [answer.error_message for answer in (first, last)] == ["", ""]
    assert first.infer_response.raw_output_contents[0] == expected[0].tobytes()
    assert last.infer_response.raw_output_contents[0] == expected[1].tobytes()


@pytest.mark.parametrize("steps", [(), (1,), (1, 1)])
def test_an_input_of_an_unknown_name_is_refused_with_the_names_whatever_its_shape(steps: tuple[int, ...]) -> None:
    ports = [Port("x", np.dtype(np.float32), (3,), 0, None)]
    for odd in ((), (1,), (1, 1), (2, 1, 1, 1)):
        inputs = [("x", np.zeros((*steps, 3), np.float32)), ("z", np.zeros(odd, np.float32))]
        with pytest.raises(BadInput, match="inputs are 'x', 'z'; this model takes 'x'") as refused:
            steps_of(inputs, ports)
        assert refused.value.reason is Reason.WRONG_NAME


def test_a_message_that_is_none_is_answered_and_the_stream_goes_on(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        good = request("lstm", [bad()], raw_input_contents=[RAW]).SerializeToString()
        garbage, answer = call(iter([b"\xff\xff", good]), timeout=120)
    assert b"MALFORMED: a message came that is no ModelInferRequest" in garbage
    assert b"MALFORMED" not in answer


@pytest.mark.parametrize(
    ("code", "said", "model", "more"),
    [
        ("NOT_FOUND", "there is no model 'none'", "none", {}),
        ("NOT_FOUND", "has no version 3", "lstm", {"model_version": "3"}),
        ("NOT_FOUND", "'one' is no number", "lstm", {"model_version": "one"}),
        ("FAILED_PRECONDITION", "was refused", "garbage", {}),
        ("INVALID_ARGUMENT", "no output 'q'", "lstm", {"outputs": [{"name": "q"}]}),
        (
            "INVALID_ARGUMENT",
            "shared memory",
            "lstm",
            {"outputs": [{"name": "y", "parameters": CLASSES}]},
        ),
    ],
)
def test_a_call_that_is_refused_has_a_status_of_its_own(
    server: RunningServer, code: str, said: str, model: str, more: dict[str, Any]
) -> None:
    with stub(server.address) as service, pytest.raises(grpc.RpcError) as refused:
        service.ModelInfer(request(model, [bad()], raw_input_contents=[RAW], **more))
    assert (refused.value.code().name, said in refused.value.details()) == (code, True)


def test_an_output_that_is_asked_for_a_thousand_times_comes_once(server: RunningServer) -> None:
    with stub(server.address) as service:
        outputs = [{"name": "y"}] * 1_000 + [{"name": "layer0.forget"}]
        answer = service.ModelInfer(request("lstm", [bad()], raw_input_contents=[RAW], outputs=outputs))
    assert [output.name for output in answer.outputs] == ["y", "layer0.forget"]
    assert len(answer.raw_output_contents) == 2


def test_a_sequence_that_is_here_is_not_for_a_token_whose_rights_were_taken_away(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path
) -> None:
    shown = token_secret.make()
    allow = partial(kept_tokens, tmp_path / "tokens.json", shown)
    file = allow("*")
    server = start(lstm_only, "--tokens", str(file.path)).ready()
    header = {"headers": {"authorization": f"Bearer {shown}"}}
    with connected(server.address) as client:
        step(client, 0, 7, **header)
        allow("other*")
        server.line("read 1 tokens")
        said = refused(lambda: step(client, 1, 7, **header))
        assert said == refused(lambda: step(client, LAST, 7, **header)), "nor may it be ended"
        assert "token 'ann' may not predict with model 'lstm'" in said
        server.line("oip-.*-7 .* parked after step 1")
        before = len(server.lines)
        allow("*")
        server.line("read 1 tokens", after=before)
        step(client, 1, 7, **header)


def test_sequences_and_streams_of_a_token_that_is_changed_or_removed_leave_at_once_and_go_on_when_it_is_back(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    shown = token_secret.make()
    file = kept_tokens(tmp_path / "tokens.json", shown, "*")
    server = start(lstm_only, "--tokens", str(file.path)).ready()
    header = [("authorization", f"Bearer {shown}")]
    first = request("lstm", [bad()], raw_input_contents=[RAW], parameters={"sequence_id": 9, "sequence_start": True})
    with connected(server.address) as client, stub(server.address) as service:

        def opened() -> Iterator[Any]:
            sent = queue.Queue[Any]()  # open until the call ends
            sent.put(first)
            call = service.ModelStreamInfer(iter(sent.get, None), metadata=header, timeout=120)
            call.add_callback(lambda: sent.put(None))
            return iter(call)

        for at in range(2):
            step(client, at, 8, headers=dict(header))
        stream = opened()
        assert not next(stream).error_message
        kept_tokens(file.path, shown, "other*")
        with pytest.raises(grpc.RpcError, match="what token 'ann' may do was changed"):
            next(stream)
        assert next(opened()).error_message.startswith("PERMISSION_DENIED: token 'ann' may not predict")
        server.line("sequences of token:ann with model 'lstm' are parked: it may not predict with it any more")
        server.line(r"oip-\w+-8 .* parked after step 2")
        kept_tokens(file.path, shown)
        server.line("read 0 tokens")
        with pytest.raises(grpc.RpcError, match="not known here, or not any more"):
            next(opened())
        kept_tokens(file.path, shown, "*")
        assert step(client, 2, 8, headers=dict(header)).tobytes() == expected[2].tobytes()


def test_the_native_api_learns_nothing_of_a_sequence_whose_id_it_worked_out(server: RunningServer) -> None:
    with connected(server.address) as client:
        step(client, 0, 65)
    with tidegate.connect(server.address) as operator:
        (id_,) = [one.id for one in operator.admin.sequences() if one.id.endswith("-65")]
        said = set()
        for asked in (id_, id_[:-1] + "6"):
            with pytest.raises(tidegate.SequenceLost) as error:
                operator.resume(asked, "guessed", answered=1)
            said.add((error.value.reason, str(error.value).replace(asked, "ID")))
    assert said == {("UNKNOWN_SEQUENCE", "no sequence 'ID' is kept here (UNKNOWN_SEQUENCE)")}


def test_each_way_in_which_a_sequence_is_not_there_has_its_own_reason(server: RunningServer) -> None:
    with streaming(server.address) as stream:
        stream.send("lstm", ROWS[:1], sequence_id=41)
        assert stream.error().startswith("UNKNOWN_SEQUENCE: no sequence 'oip-")
        for at in range(2):
            stream.send("lstm", ROWS[:1], **place(41, at, 1))
            stream.result()
        stream.send("lstm", ROWS[:1], sequence_id=41)
        assert stream.error().startswith(("SEQUENCE_ENDED", "UNKNOWN_SEQUENCE"))  # a short one was never in the store
        stream.send("lstm", ROWS[:1], sequence_id=42, sequence_start=True)
        stream.result()
        stream.send("lstm", ROWS[:1], sequence_id=42, model_version="2")
        assert stream.error().startswith("WRONG_STATE: the sequence is of version 1")
        stream.send("lstm", ROWS[:1], sequence_id=42, sequence_start=True)
        assert stream.error().startswith("SEQUENCE_RUNNING: sequence 42 of model 'lstm' is running")


# One sequence, whoever asks -------------------------------------------------------------------------------------------


def test_a_second_start_is_refused_and_the_running_sequence_goes_on(
    server: RunningServer, client: InferenceServerClient, expected: np.ndarray
) -> None:
    got = [step(client, 0, 51)]
    with connected(server.address) as other:
        assert "is running" in refused(lambda: step(other, 0, 51))
    assert "is running" in refused(lambda: step(client, 0, 51))
    got += [step(client, at, 51) for at in range(1, len(ROWS))]
    assert np.stack(got).tobytes() == expected.tobytes()
    assert step(client, 0, 51).tobytes() == expected[0].tobytes()  # and the id is free again
    step(client, 1, 51, last=1)


def test_a_start_that_says_so_has_the_running_sequence_give_way(
    client: InferenceServerClient, expected: np.ndarray
) -> None:
    for at in range(3):
        step(client, at, 52)
    again = step(client, 0, 52, parameters={"sequence_restart": True})
    assert again.tobytes() == expected[0].tobytes()
    assert step(client, 1, 52, last=1).tobytes() == expected[1].tobytes()


def test_a_start_that_says_so_is_answered_where_the_running_sequence_ends_at_once(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--store", "none").ready()  # nothing is written before it has ended
    with connected(server.address) as client:
        first = step(client, 0, 52)
        step(client, 1, 52)
        again = step(client, 0, 52, parameters={"sequence_restart": True}, client_timeout=60)
        assert again.tobytes() == first.tobytes()
        step(client, 1, 52, last=1)


def test_a_start_whose_first_step_is_refused_has_begun_nothing(client: InferenceServerClient) -> None:
    for _ in range(2):
        message = refused(lambda: client.infer("lstm", inputs(ROWS[:1] * np.nan), sequence_id=53, sequence_start=True))
        assert "nan" in message
    step(client, 0, 53)
    step(client, 1, 53, last=1)


def test_numbers_strings_and_models_are_apart(client: InferenceServerClient, expected: np.ndarray) -> None:
    gru = client.infer("gru", inputs(ROWS[:1]), sequence_id=54, sequence_start=True).as_numpy("y")
    for at in range(2):
        for id_ in (54, "54"):
            assert step(client, at, id_, last=1).tobytes() == expected[at].tobytes()
    client.infer("gru", inputs(ROWS[1:2]), sequence_id=54, sequence_end=True)
    assert gru.tobytes() != expected[0].tobytes()


def test_a_sequence_goes_on_over_calls_streams_and_connections_of_its_client(
    server: RunningServer, expected: np.ndarray
) -> None:
    got = []
    for at in range(len(ROWS)):
        if at % 3 == 0:
            with connected(server.address) as other:
                got.append(step(other, at, "moves"))
        else:
            with streaming(server.address) as stream:
                stream.send("lstm", ROWS[at : at + 1], **place("moves", at, LAST))
                got.append(stream.result().as_numpy("y")[0])
    assert np.stack(got).tobytes() == expected.tobytes()


def test_a_start_after_its_client_is_gone_begins_anew(server: RunningServer, expected: np.ndarray) -> None:
    for _ in range(2):  # the second finds what the first has left
        with streaming(server.address) as stream:
            for at in range(3):
                stream.send("lstm", ROWS[at : at + 1], **place("left", at, LAST))
                assert stream.result().as_numpy("y")[0].tobytes() == expected[at].tobytes()


def once(address: str, at: int, id_: int, **more: object) -> service_pb2.ModelStreamInferResponse:
    """The answer to a request that is the only one of its stream, which its client half-closes at once."""
    x = ROWS[at : at + 1]
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape}
    asked = request("lstm", [tensor], raw_input_contents=[x.tobytes()], parameters={"sequence_id": id_} | more)
    with stub(address) as server:
        (answer,) = server.ModelStreamInfer(iter([asked]), timeout=PATIENCE)
    return answer


def test_a_sequence_that_the_last_request_of_a_stream_ends_has_ended(server: RunningServer) -> None:
    for id_ in range(400, 405):
        assert not once(server.address, 0, id_, sequence_start=True).error_message
        assert not once(server.address, 1, id_, sequence_end=True).error_message
        assert "SEQUENCE_ENDED" in once(server.address, 2, id_).error_message


def test_answers_of_a_stream_that_have_left_count_no_more_however_many_there_were(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    x = np.zeros((1, 4_000, 3), np.float32)
    asked = request("lstm", [{"name": "x", "datatype": "FP32", "shape": x.shape}], raw_input_contents=[x.tobytes()])
    with stub(start(lstm_only, "--max-answer-mib", "1").ready().address) as client:
        asking: queue.SimpleQueue[object] = queue.SimpleQueue()
        call, size = client.ModelStreamInfer(iter(asking.get, None), timeout=PATIENCE), 0
        while size < 2 * 2**20:
            asking.put(asked)
            answer = next(call)
            assert not answer.error_message
            size += sum(map(len, answer.infer_response.raw_output_contents))
        asking.put(None)


# Restarts -------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_stopped_and_started_again_goes_on_with_the_same_numbers(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    store = ("--store", f"sqlite:{tmp_path / 'store'}")
    server = start(lstm_only, *store).ready()
    with connected(server.address) as client, streaming(server.address) as stream:
        for at in range(HALF):
            assert step(client, at, 61).tobytes() == expected[at].tobytes()
            stream.send("lstm", ROWS[at : at + 1], **place("streamed", at, LAST))
            assert stream.result().as_numpy("y")[0].tobytes() == expected[at].tobytes()
        server.terminate()
        assert "server is stopping" in stream.error()  # the stream's status
    assert server.wait() == 0
    server = start(lstm_only, *store).ready()
    with connected(server.address) as client:
        for id_ in (61, "streamed"):
            for at in range(HALF, len(ROWS)):
                assert step(client, at, id_).tobytes() == expected[at].tobytes()
        assert "was closed by its client" in refused(lambda: step(client, 1, 61))


def test_after_a_crash_a_sequence_is_not_continued_from_an_earlier_step_unless_its_client_counts_the_steps(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    arguments = ("--store", f"sqlite:{tmp_path / 'store'}", "--checkpoint-ms", "1", "--checkpoint-steps", "1")
    server = start(lstm_only, *arguments).ready()
    with connected(server.address) as client:
        for at in range(HALF):
            step(client, at, 62)
    with tidegate.connect(server.address) as operator:
        while not any(kept.checkpointed for kept in operator.admin.sequences()):
            pass  # until something of it is written
    server.process.send_signal(signal.SIGKILL)
    server.wait()
    server = start(lstm_only, *arguments).ready()
    with connected(server.address) as client:
        message = refused(lambda: step(client, HALF, 62))
        assert "was not parked" in message
        told = refused(lambda: step(client, LAST, 62, parameters={"sequence_step": LAST}))
        at = int(re.search(r"the sequence takes step (\d+) next", told).group(1))
        assert at <= HALF  # as many steps as were written
        for later in range(at, len(ROWS)):
            got = step(client, later, 62, parameters={"sequence_step": later})
            assert got.tobytes() == expected[later].tobytes()


@pytest.mark.parametrize("store", ["memory:", "none"])
def test_an_idle_sequence_is_parked_or_where_nothing_is_kept_ended_and_that_is_said(
    start: Callable[..., RunningServer], lstm_only: Path, expected: np.ndarray, store: str
) -> None:
    server = start(lstm_only, "--store", store, "--idle-seconds", "0.3").ready()
    with connected(server.address) as client, streaming(server.address) as stream:
        for at in range(2):  # at once: it is not to be idle in between
            stream.send("lstm", ROWS[at : at + 1], **place(63, at, LAST))
        assert [stream.result().as_numpy("y")[0].tobytes() for _ in range(2)] == [e.tobytes() for e in expected[:2]]
        server.line(r"oip-\w+-63 .* (parked|disconnected) after step 2")
        if store == "none":
            assert "keeps no checkpoints" in refused(lambda: step(client, 2, 63))
        else:
            for at in range(2, len(ROWS)):
                assert step(client, at, 63).tobytes() == expected[at].tobytes()


@pytest.mark.parametrize("transport", ["http2", "grpc"])
def test_once_its_stream_has_ended_a_sequence_goes_on_at_another_server(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, expected: np.ndarray, transport: str
) -> None:
    arguments = "--store", f"sqlite:{tmp_path / 'store'}", "--transport", transport
    servers = [start(lstm_only, *arguments) for _ in range(2)]
    for at in range(len(ROWS)):
        with streaming(servers[at % 2].ready().address) as stream:
            stream.send("lstm", ROWS[at : at + 1], **place(64, at, LAST))
            assert stream.result().as_numpy("y")[0].tobytes() == expected[at].tobytes()
    with streaming(servers[0].address) as stream:
        stream.send("lstm", ROWS[:1], sequence_id=64)
        assert stream.error().startswith("SEQUENCE_ENDED"), "the end was written, too"


# Load and unload ------------------------------------------------------------------------------------------------------


def test_a_model_is_unloaded_and_loaded_while_its_sequences_go_on(
    start: Callable[..., RunningServer], lstm_only: Path, expected: np.ndarray
) -> None:
    server = start(lstm_only).ready()
    with connected(server.address) as client:
        step(client, 0, 71)
        client.unload_model("lstm")
        assert not client.is_model_ready("lstm")
        (model,) = client.get_model_repository_index().models
        assert (model.state, model.reason) == ("UNAVAILABLE", "unloaded")
        assert "withdrawn" in refused(lambda: step(client, 0, 72))
        assert step(client, 1, 71).tobytes() == expected[1].tobytes()
        client.load_model("lstm")
        assert client.is_model_ready("lstm")
        assert step(client, 0, 72).tobytes() == expected[0].tobytes()
        assert "there is no folder" in refused(lambda: client.load_model("none"))
        assert "no parameter" in refused(lambda: client.load_model("lstm", config="{}"))
