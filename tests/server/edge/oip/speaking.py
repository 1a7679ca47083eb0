"""What the tests of the Open Inference Protocol have in common: stock tritonclient, and messages written by hand."""

from __future__ import annotations

import queue
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype

import tidegate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Given: TypeAlias = "np.ndarray | Mapping[str, np.ndarray]"

PATIENCE = 120  # seconds
ROWS = np.random.default_rng(14).normal(size=(12, 3)).astype(np.float32)


def inputs(given: Given) -> list[triton.InferInput]:
    made = []
    for name, x in (given if isinstance(given, dict) else {"x": given}).items():
        tensor = triton.InferInput(name, list(x.shape), np_to_triton_dtype(x.dtype))
        tensor.set_data_from_numpy(x)
        made.append(tensor)
    return made


def requested(*names: str) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name) for name in names]


def native(address: str, model: str, rows: Iterable[Given], output: str = "y") -> np.ndarray:
    """The outputs [T, ...] by the native API, step by step."""
    with tidegate.connect(address) as client, client.sequence(model) as sequence:
        return np.stack([sequence.step(row).outputs[output] for row in rows])


def place(id_: int | str, at: int, last: int) -> dict[str, Any]:
    """The arguments of request `at` of a sequence of `last` + 1."""
    return {"sequence_id": id_, "sequence_start": at == 0, "sequence_end": at == last}


class TritonStream:
    """`start_stream` of tritonclient, with its callbacks in a queue."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._client = client
        self._answers: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
        client.start_stream(lambda result, error: self._answers.put((result, error)))

    def send(self, model: str, given: Given, **more: object) -> None:
        self._client.async_stream_infer(model, inputs(given), **more)

    def result(self) -> triton.InferResult:
        result, error = self._answers.get(timeout=PATIENCE)
        assert error is None, error
        return result

    def error(self) -> str:
        result, error = self._answers.get(timeout=PATIENCE)
        assert result is None, result.get_response()
        return error.message()


@contextmanager
def connected(address: str) -> Iterator[triton.InferenceServerClient]:
    """A client on a connection of its own."""
    with triton.InferenceServerClient(address, channel_args=[("grpc.use_local_subchannel_pool", 1)]) as client:
        yield client


@contextmanager
def streaming(address: str) -> Iterator[TritonStream]:
    """A stream of a client of its own."""
    with connected(address) as client:
        yield TritonStream(client)
        client.stop_stream()


@contextmanager
def stub(address: str) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """For messages that tritonclient does not write."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(model: str, tensors: Sequence[Mapping[str, Any]], **more: object) -> service_pb2.ModelInferRequest:
    """`tensors`: the fields of each input."""
    parameters = more.pop("parameters", {})
    made = service_pb2.ModelInferRequest(model_name=model, inputs=tensors, **more)
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(made.parameters[name], kind, value)
    return made
