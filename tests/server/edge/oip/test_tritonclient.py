"""Stock tritonclient, row by row of what it can do; every number is that of the native API, bit for bit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

import tidegate
from tests.running_server import RunningServer
from tests.server.edge.oip.speaking import ROWS, connected, inputs, native, place, request, requested, streaming, stub
from tests.zoo import repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.zoo import Zoo

LAST = len(ROWS) - 1
TOKENS = np.arange(len(ROWS), dtype=np.int64) % 10


@pytest.fixture(scope="module", params=["http2", "grpc"])
def address(request: pytest.FixtureRequest, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = repository(zoo, tmp_path_factory.mktemp("oip"), "lstm", "gru", "pair", "garbage")
    with RunningServer(models, "--transport", request.param, "--max-message-mib", "1") as server:
        yield server.ready().address


@pytest.fixture(scope="module")
def expected(address: str) -> np.ndarray:
    """The outputs [T, 2] of `lstm` for ROWS, by the native API."""
    return native(address, "lstm", ROWS)


def same(got: np.ndarray, expected: np.ndarray) -> bool:
    return (got.shape, got.dtype, got.tobytes()) == (expected.shape, expected.dtype, expected.tobytes())


# What there is --------------------------------------------------------------------------------------------------------


def test_a_server_says_that_it_lives_and_which_models_are_ready(address: str) -> None:
    with connected(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        ready = {name: client.is_model_ready(name) for name in ("lstm", "pair", "garbage", "none")}
        assert ready == {"lstm": True, "pair": True, "garbage": False, "none": False}
        assert client.is_model_ready("lstm", "1")
        assert not client.is_model_ready("lstm", "2")


def test_metadata_names_the_extensions_and_what_a_model_takes_and_gives(address: str) -> None:
    with connected(address) as client:
        server, model = client.get_server_metadata(as_json=True), client.get_model_metadata("pair", as_json=True)
    assert server["name"] == "tidegate"
    assert {"sequence", "sequence(string_id)", "statistics"} <= set(server["extensions"])
    assert (model["name"], model["versions"], model["platform"]) == ("pair", ["1"], "onnxruntime_onnx")
    assert model["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": ["-1", "3"]},
        {"name": "token", "datatype": "INT64", "shape": ["-1"]},
    ]
    assert [output["name"] for output in model["outputs"]] == ["y", "share"]


def test_the_configuration_says_that_sequences_are_taken_and_names_match_the_metadata(address: str) -> None:
    with connected(address) as client:
        for name in ("lstm", "pair"):
            config, model = client.get_model_config(name).config, client.get_model_metadata(name)
            assert config.WhichOneof("scheduling_choice") == "sequence_batching"
            assert config.max_batch_size > 0
            assert not config.model_transaction_policy.decoupled
            for ports, described in ((config.input, model.inputs), (config.output, model.outputs)):
                assert [(port.name, [-1, *port.dims]) for port in ports] == [(p.name, list(p.shape)) for p in described]
        traced = client.get_model_config("lstm").config.parameters["trace_outputs"].string_value.split(", ")
    parts = ("hidden", "cell", "input", "forget", "candidate", "output")
    assert traced == [f"layer{layer}.{part}" for layer in (0, 1) for part in parts]


def test_the_index_lists_every_version_and_why_one_is_refused(address: str) -> None:
    with connected(address) as client:
        index = client.get_model_repository_index().models
    assert {model.name: model.state for model in index} == {
        "lstm": "READY",
        "gru": "READY",
        "pair": "READY",
        "garbage": "UNAVAILABLE",
    }
    assert next(model.reason for model in index if model.name == "garbage")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_log_settings(),
        lambda client: client.get_trace_settings(),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_system_shared_memory("a", "/a", 8),
        lambda client: client.unregister_cuda_shared_memory("a"),
    ],
)
def test_what_this_server_does_not_have_is_unimplemented_with_a_sentence(
    address: str, call: Callable[[triton.InferenceServerClient], object]
) -> None:
    with connected(address) as client, pytest.raises(InferenceServerException, match="this server has no") as refused:
        call(client)
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_statistics_count_the_requests_that_were_answered_and_those_that_failed(address: str) -> None:
    with connected(address) as client:

        def counts() -> tuple[int, int, int]:
            (found,) = client.get_inference_statistics("gru", "1").model_stats
            stats = found.inference_stats
            durations = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
            assert {duration.count for duration in durations} == {stats.success.count}
            assert stats.success.ns > 0 or not stats.success.count
            assert found.execution_count <= found.inference_count
            return stats.success.count, found.inference_count, stats.fail.count

        before = counts()
        for at in range(3):
            client.infer("gru", inputs(ROWS[at : at + 1]), **place(5, at, 2))
        client.infer("gru", inputs(ROWS[np.newaxis]))
        with pytest.raises(InferenceServerException):
            client.infer("gru", inputs(ROWS[:1, :2]))
        after = counts()
    assert np.subtract(after, before).tolist() == [4, 3 + len(ROWS), 1]


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", [7, 2**62, "seven", "with a name / ü"])
def test_a_sequence_of_single_calls_has_the_numbers_of_the_native_api(
    address: str, expected: np.ndarray, id_: int | str
) -> None:
    with connected(address) as client:
        for at in range(len(ROWS)):
            result = client.infer("lstm", inputs(ROWS[at : at + 1]), request_id=f"r{at}", **place(id_, at, LAST))
            assert same(result.as_numpy("y"), expected[at : at + 1])
            response = result.get_response()
            assert (response.id, response.model_name, response.model_version) == (f"r{at}", "lstm", "1")
            assert response.parameters["sequence_step"].int64_param == at


@pytest.mark.parametrize("id_", [7, "seven"])
def test_a_sequence_on_a_stream_has_them_in_order(address: str, expected: np.ndarray, id_: int | str) -> None:
    with streaming(address) as stream:
        for at in range(len(ROWS)):  # all before the first answer
            stream.send("lstm", ROWS[at : at + 1], request_id=f"r{at}", **place(id_, at, LAST))
        for at in range(len(ROWS)):
            result = stream.result()
            assert result.get_response().id == f"r{at}"
            assert same(result.as_numpy("y"), expected[at : at + 1])


async def test_the_asyncio_client_has_them_too(address: str, expected: np.ndarray) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        for at in range(len(ROWS)):
            result = await client.infer("lstm", inputs(ROWS[at : at + 1]), **place("aio", at, LAST))
            assert same(result.as_numpy("y"), expected[at : at + 1])

        async def requests() -> AsyncIterator[dict[str, object]]:
            for at in range(len(ROWS)):
                yield {"model_name": "lstm", "inputs": inputs(ROWS[at : at + 1]), **place(9, at, LAST)}

        answers = client.stream_infer(requests())
        for at in range(len(ROWS)):
            result, error = await asyncio.wait_for(anext(answers), 120)
            assert error is None
            assert same(result.as_numpy("y"), expected[at : at + 1])


def test_sequences_beside_each_other_on_a_stream_do_not_disturb_each_other(address: str) -> None:
    orders = {id_: np.random.default_rng(id_).permutation(ROWS) for id_ in range(1, 9)}
    wanted = {id_: native(address, "lstm", rows) for id_, rows in orders.items()}
    with streaming(address) as stream:
        for at in range(len(ROWS)):
            for id_, rows in orders.items():
                stream.send("lstm", rows[at : at + 1], request_id=str(id_), **place(id_, at, LAST))
        for at in range(len(ROWS)):
            for id_ in orders:
                result = stream.result()
                assert result.get_response().id == str(id_)
                assert same(result.as_numpy("y"), wanted[id_][at : at + 1])


def test_several_steps_go_into_one_request(address: str, expected: np.ndarray) -> None:
    with connected(address) as client:
        first = client.infer("lstm", inputs(ROWS[np.newaxis, :5]), sequence_id=4, sequence_start=True)
        second = client.infer("lstm", inputs(ROWS[5]), sequence_id=4)
        third = client.infer("lstm", inputs(ROWS[np.newaxis, 6:]), sequence_id=4, sequence_end=True)
    assert same(first.as_numpy("y"), expected[np.newaxis, :5])
    assert same(second.as_numpy("y"), expected[5])
    assert same(third.as_numpy("y"), expected[np.newaxis, 6:])


def test_a_model_with_several_inputs_and_outputs_gives_those_that_are_asked_for(address: str) -> None:
    rows = [{"x": ROWS[at], "token": TOKENS[at]} for at in range(len(ROWS))]
    wanted = {name: native(address, "pair", rows, name) for name in ("y", "share")}
    with connected(address) as client:
        for at in range(len(ROWS)):
            given = {"x": ROWS[at : at + 1], "token": TOKENS[at : at + 1]}
            names = ("share",) if at % 2 else ()
            result = client.infer("pair", inputs(given), outputs=requested(*names), **place(1, at, LAST))
            assert [output.name for output in result.get_response().outputs] == list(names or ("y", "share"))
            for name in names or ("y", "share"):
                assert same(result.as_numpy(name), wanted[name][at : at + 1])


def test_states_and_gates_are_outputs_that_are_asked_for_by_name_whenever_one_likes(
    address: str, expected: np.ndarray
) -> None:
    with tidegate.connect(address) as client, client.sequence("lstm") as sequence:
        traces = [sequence.step(row).layer for row in ROWS]
    with connected(address) as client:
        for at in range(len(ROWS)):
            names = ["layer1.forget", "y", "layer0.cell"] if at % 3 == 1 else []  # not at first, and not always
            result = client.infer("lstm", inputs(ROWS[at : at + 1]), outputs=requested(*names), **place(3, at, LAST))
            assert [output.name for output in result.get_response().outputs] == (names or ["y"])
            assert same(result.as_numpy("y"), expected[at : at + 1])
            if names:
                assert same(result.as_numpy("layer1.forget")[0], traces[at][1].forget)
                assert same(result.as_numpy("layer0.cell")[0], traces[at][0].cell)


def test_a_request_of_no_sequence_is_stateless(address: str, expected: np.ndarray) -> None:
    with connected(address) as client:
        for _ in range(2):
            assert same(client.infer("lstm", inputs(ROWS[:1])).as_numpy("y"), expected[:1])
        whole = client.infer("lstm", inputs(ROWS[np.newaxis]), outputs=requested("y", "layer0.hidden"))
        assert same(whole.as_numpy("y"), expected[np.newaxis])
        assert whole.as_numpy("layer0.hidden").shape == (1, len(ROWS), 8)
        batch = client.infer("lstm", inputs(ROWS)).as_numpy("y")  # one step of each of twelve
    assert same(batch, np.concatenate([native(address, "lstm", row[np.newaxis]) for row in ROWS]))
    with streaming(address) as stream:
        for at in range(3):
            stream.send("lstm", ROWS[at : at + 1], request_id=str(at))
        for at in range(3):
            result = stream.result()
            assert (result.get_response().id, same(result.as_numpy("y"), batch[at : at + 1])) == (str(at), True)


def test_typed_contents_are_taken_like_raw_ones(address: str, expected: np.ndarray) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": (1, 3)}
    with stub(address) as server:
        for at in range(3):
            contents = {"fp32_contents": ROWS[at].tolist()}
            parameters = {"sequence_id": 11, "sequence_start": at == 0, "sequence_end": at == 2}
            answer = server.ModelInfer(request("lstm", [x | {"contents": contents}], parameters=parameters))
            assert answer.raw_output_contents[0] == expected[at].tobytes()
        token = {"name": "token", "datatype": "INT64", "shape": (1,), "contents": {"int64_contents": [TOKENS[1]]}}
        typed = server.ModelInfer(request("pair", [token, x | {"contents": {"fp32_contents": ROWS[1].tolist()}}]))
    rows = [{"x": ROWS[1], "token": TOKENS[1]}]
    assert typed.raw_output_contents[0] == native(address, "pair", rows).tobytes()


def test_a_client_may_ask_for_empty_final_responses_and_every_answer_is_the_last_of_its_request(address: str) -> None:
    with streaming(address) as stream:
        for at in range(2):
            stream.send("lstm", ROWS[:1], enable_empty_final_response=True, **place(21, at, 1))
        for _ in range(2):
            assert stream.result().get_response().parameters["triton_final_response"].bool_param
