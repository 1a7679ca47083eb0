"""Drawn requests of the Open Inference Protocol, right ones, wrong ones and damaged ones: every one is answered, in its
turn, nobody else's answers change, and nothing stays open. `CASES` streams of up to `LONGEST` messages each; the
environment's FUZZ_CASES takes more.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING
from urllib.request import urlopen

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tritonclient.grpc import service_pb2 as pb

import tidegate
from bench.processes.child import free_port
from tests.running_server import PATIENCE, ROOT, RunningServer
from tests.server.edge.oip.speaking import ROWS, TritonStream, native, place, streaming

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES, LONGEST = int(os.environ.get("FUZZ_CASES", "250")), 8
METHOD = "/inference.GRPCInferenceService/{}"
STATUSES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}

VALUES = st.one_of(
    st.booleans().map(lambda value: {"bool_param": value}),
    st.integers(-2, 6).map(lambda value: {"int64_param": value}),
    st.sampled_from(("", "a", "b", "x" * 200, "\0")).map(lambda value: {"string_param": value}),
    st.floats().map(lambda value: {"double_param": value}),
    st.just({}),
)
NAMES = "sequence_id", "sequence_start", "sequence_end", "sequence_step", "sequence_restart", "priority", "triton_x", ""
SHAPES = st.one_of(
    st.sampled_from(((3,), (1, 4, 3), (2, 3), (1, 0, 3), (0, 3), (1, 3, 3, 3), (-1, 3), (2**40, 2**40, 0), ())),
    st.lists(st.integers(-1, 4), max_size=5).map(tuple),
)
FAULTS = (
    ("name", st.sampled_from(("y", ""))),
    ("datatype", st.sampled_from(("FP64", "BOOL", "BYTES", "INT8", ""))),
    ("shape", SHAPES),
    (
        "contents",
        st.sampled_from(({"int_contents": [1, 2, 3]}, {"bool_contents": [True]}, {"fp32_contents": [1, 0, 0]})),
    ),
)


def good(id_: int, start: bool, end: bool, steps: int) -> pb.ModelInferRequest:
    """A request that is answered, if its sequence is there and not running."""
    message = pb.ModelInferRequest(model_name="recall", raw_input_contents=[ROWS[:steps].tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=(1, steps, 3))
    message.parameters["sequence_id"].int64_param = id_
    message.parameters["sequence_start"].bool_param = start
    message.parameters["sequence_end"].bool_param = end
    return message


def worsen(message: pb.ModelInferRequest, draw: st.DrawFn) -> None:
    """Changes one thing, which may still be right."""
    what = draw(st.integers(0, 7))
    if what == 0:
        message.model_name = draw(st.sampled_from(("none", "", "recall@stable")))
    elif what == 1:
        message.model_version = draw(st.sampled_from(("1", "2", "-1", "x")))
    elif what == 2:
        message.parameters[draw(st.sampled_from(NAMES))].CopyFrom(pb.InferParameter(**draw(VALUES)))
    elif what == 3:
        message.raw_input_contents[:] = draw(st.lists(st.binary(max_size=16), max_size=2))
    elif what == 4:
        message.raw_input_contents[:] = [draw(arrays(np.float32, 3)).tobytes()]
    elif what == 5:
        for name in draw(st.lists(st.sampled_from(("y", "layer0.forget", "z")), max_size=3)):
            message.outputs.add(name=name)
    elif what == 6 and message.inputs:
        name, values = draw(st.sampled_from(FAULTS))
        fields = {"name": "x", "datatype": "FP32", "shape": (1, 3)} | {name: draw(values)}
        message.inputs[0].CopyFrom(pb.ModelInferRequest.InferInputTensor(**fields))
    else:
        message.inputs.add(name=draw(st.sampled_from(("x", "z"))), datatype="FP32", shape=(1, 3))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A message, often a good one, now and then a damaged one."""
    message = good(draw(st.integers(0, 3)), draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 4)))
    message.id = draw(st.text(max_size=3))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 1, 2)))):
        worsen(message, draw)
    data = message.SerializeToString()
    if draw(st.integers(0, 7)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 4)) :]
    return data


class Bystander:
    """Others of the same address, by both protocols: each of their answers is compared."""

    def __init__(self, stream: TritonStream, client: tidegate.Client, expected: np.ndarray) -> None:
        self._stream, self._client, self._expected = stream, client, expected
        self._steps = self._rounds()

    def step(self) -> None:
        next(self._steps)

    def _rounds(self) -> Iterator[None]:
        last = len(ROWS) - 1
        while True:
            with self._client.sequence("recall") as sequence:
                for at, row in enumerate(ROWS):
                    self._stream.send("recall", row[np.newaxis], **place("bystander", at, last))
                    for got in (sequence.step(row).output, self._stream.result().as_numpy("y")[0]):
                        assert got.tobytes() == self._expected[at].tobytes()
                    if at < last:
                        yield
            yield


def metric(port: int, name: str) -> float:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
        found = re.findall(rf"^tidegate_{name}(?:{{[^}}]*}})? (\S+)$", page.read().decode(), re.MULTILINE)
    assert found, name
    return sum(map(float, found))


def identified(data: bytes) -> str | None:
    """The id of a message, if it is one."""
    try:
        return pb.ModelInferRequest.FromString(data).id
    except DecodeError:
        return None


def test_every_request_is_answered_in_its_turn_and_nobody_elses_answers_change() -> None:
    port = free_port()
    with RunningServer(ROOT / "models", "--metrics-port", str(port)) as server:
        server.ready()
        fuzz(server)
        end = monotonic() + PATIENCE
        while metric(port, "sequences_open") or metric(port, "streams_open"):
            assert monotonic() < end, "something stays open"
        assert "Traceback" not in server.log


def called(alone: grpc.UnaryUnaryMultiCallable, message: bytes) -> str:
    """The name of the status of a single call."""
    try:
        alone(message, timeout=PATIENCE)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def fuzz(server: RunningServer) -> None:
    with (
        grpc.insecure_channel(server.address) as channel,
        streaming(server.address) as stream,
        tidegate.connect(server.address) as client,
    ):
        bystander = Bystander(stream, client, native(server.address, "recall", ROWS))
        on_stream = channel.stream_stream(
            METHOD.format("ModelStreamInfer"), None, pb.ModelStreamInferResponse.FromString
        )
        alone = channel.unary_unary(METHOD.format("ModelInfer"), None, pb.ModelInferResponse.FromString)
        resident, found = list[float](), Counter[str]()

        @settings(max_examples=CASES, suppress_health_check=list(HealthCheck), database=None)
        @given(st.lists(requests(), min_size=1, max_size=LONGEST))
        def answered(messages: list[bytes]) -> None:
            answers = list(on_stream(iter(messages), timeout=PATIENCE))
            assert len(answers) == len(messages)
            for message, answer in zip(messages, answers, strict=True):
                id_ = identified(message)
                assert id_ is None or answer.infer_response.id == id_
                assert bool(answer.error_message) != bool(answer.infer_response.outputs)
                assert "INTERNAL" not in answer.error_message
                found[answer.error_message.partition(":")[0]] += 1
            status = called(alone, messages[0])
            assert status in STATUSES
            found[status] += 1
            bystander.step()
            resident.append(server.resident)

        answered()
    right = found[""] + found["OK"]
    assert right > CASES, found
    assert found.total() - right > CASES, found
    assert len(found) > 9, found  # some of the 17 are rare
    assert resident[-1] - resident[len(resident) // 2] < 8  # MiB
