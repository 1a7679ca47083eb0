"""A small server that keeps the contract with a toy recurrence, so that clients can be tested without a model.

Every hidden unit u of every layer follows h[u] = h[u] / 2 + sum of all inputs + u; the first output is the sum of all
hidden units of the last layer. Every column of a trace named N shows h + len(N), so that no two parts are alike.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tidegate import wire
from tidegate.errors import reason_name
from tidegate.v1 import error_pb2, model_pb2, tensor_pb2, tidegate_pb2, tidegate_pb2_grpc
from tidegate.v1 import sequence_pb2 as pb

GATES = {
    model_pb2.CELL_KIND_LSTM: ["input", "forget", "candidate", "output"],
    model_pb2.CELL_KIND_GRU: ["update", "reset", "candidate"],
    model_pb2.CELL_KIND_RNN: [],
}


def tensor_spec(name: str, code: int, shape: list[int], features: list[str] | None = None) -> model_pb2.TensorSpec:
    return model_pb2.TensorSpec(name=name, type=code, shape=shape, features=features, units=[""] * len(features or ()))


def model(name: str, version: int, kind: int, hidden: list[int], inputs: list, outputs: list) -> model_pb2.Model:
    message = model_pb2.Model(
        name=name,
        version=version,
        status=model_pb2.MODEL_STATUS_READY,
        inputs=inputs,
        outputs=outputs,
        state_bytes=8 * sum(hidden),
        sha256="ab" * 32,
        proof=model_pb2.Proof(max_error=2e-7, tolerance=1e-5, steps=64),
        metadata={"tidegate.description": f"A toy called {name}."},
    )
    offset = 0
    cell = ["cell"] if kind == model_pb2.CELL_KIND_LSTM else []
    for index, size in enumerate(hidden):
        message.layers.add(
            index=index, kind=kind, node=f"/rnn{index}", input_size=1, hidden_size=size, gates=GATES[kind]
        )
        for part in ["hidden", *cell, *GATES[kind]]:
            message.trace.add(layer=index, name=part, offset=offset, size=size)
            offset += size
    return message


F32 = tensor_pb2.DATA_TYPE_FLOAT32
I64 = tensor_pb2.DATA_TYPE_INT64
MODELS = [
    model_pb2.Model(
        name="broken", version=1, status=model_pb2.MODEL_STATUS_REFUSED, reason="node /lstm is bidirectional"
    ),
    model(
        "pair",
        1,
        model_pb2.CELL_KIND_GRU,
        [2],
        [tensor_spec("a", F32, [1]), tensor_spec("token", I64, [])],
        [tensor_spec("y", F32, [1]), tensor_spec("top", I64, [])],
    ),
    model(
        "toy",
        1,
        model_pb2.CELL_KIND_LSTM,
        [3, 3],
        [tensor_spec("x", F32, [2], ["left", "right"])],
        [tensor_spec("y", F32, [1])],
    ),
]


class Refusal(Exception):
    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.error = error_pb2.Error(reason=reason, message=message)


def find(name: str, version: int) -> model_pb2.Model:
    for known in MODELS:
        if known.name == name and version in {0, known.version}:
            if known.status != model_pb2.MODEL_STATUS_READY:
                raise Refusal(error_pb2.REASON_MODEL_REFUSED, known.reason)
            return known
    raise Refusal(error_pb2.REASON_UNKNOWN_MODEL, f"there is no model {name!r}")


@dataclass
class Life:
    """One sequence of the fake."""

    model: model_pb2.Model
    trace: pb.TraceSelection
    step: int = 0
    h: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.h = np.zeros(self.model.layers[0].hidden_size, np.float64)

    @property
    def columns(self) -> list[model_pb2.TraceColumns]:
        if self.trace.none:
            return []
        names = {1: ["hidden"], 2: ["cell"], 3: list(self.model.layers[0].gates)}
        parts = [name for part in self.trace.parts or (1, 2, 3) for name in names[part]]
        layers = list(self.trace.layers) or range(len(self.model.layers))
        offset, found = 0, []
        for run in self.model.trace:
            if run.name in parts and run.layer in layers:
                found.append(model_pb2.TraceColumns(layer=run.layer, name=run.name, offset=offset, size=run.size))
                offset += run.size
        return found

    def run(self, row: list[np.ndarray]) -> list[np.ndarray]:
        """One step; one row of each output, and at the end the trace's row."""
        self.h = self.h / 2 + sum(float(part.sum()) for part in row) + np.arange(len(self.h))
        self.step += 1
        outputs = [np.full(tuple(spec.shape), self.h.sum(), wire.dtype_of(spec.type)) for spec in self.model.outputs]
        columns = [self.h + len(run.name) for run in self.columns]
        return [*outputs, np.concatenate(columns).astype(np.float32) if columns else np.zeros(0, np.float32)]

    def traced(self, step: int) -> bool:
        return not self.trace.none and step % max(1, self.trace.every) == 0


@dataclass
class Behaviour:
    """How the fake behaves beyond the contract's plain case."""

    part: int = 10**9  # rows of one answer message
    silent: bool = False  # never answers a step
    gate: threading.Event = field(default_factory=threading.Event)  # steps are answered while it is set
    most_waiting: int = 0  # the most steps that were sent before they were answered
    max_message: int = 0  # bytes of the largest request; 0: does not say, as an older server
    backwards: bool = False  # parts of fleets come last first, rows reversed

    def __post_init__(self) -> None:
        self.gate.set()


class FakeServicer(tidegate_pb2_grpc.TidegateServicer):
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.streams = 0
        self.ended_in_peace = 0
        self.requests: list[str] = []

    def ListModels(self, request, context):  # noqa: ANN001, ANN201, ARG002
        return tidegate_pb2.ListModelsResponse(models=MODELS)

    def DescribeModel(self, request, context):  # noqa: ANN001, ANN201
        for known in MODELS:
            if known.name == request.model and request.version in {0, known.version}:
                return tidegate_pb2.DescribeModelResponse(model=known)
        return abort(context, error_pb2.REASON_UNKNOWN_MODEL, f"there is no model {request.model!r}")

    def Predict(self, request, context):  # noqa: ANN001, ANN201
        try:
            life = Life(find(request.model, request.version), request.trace)
            outputs, trace = run_rows(life, check(life, request.inputs))
        except Refusal as refusal:
            abort(context, refusal.error.reason, refusal.error.message)
        return tidegate_pb2.PredictResponse(
            model=life.model.name, version=life.model.version, outputs=outputs, trace=trace, columns=life.columns
        )

    def Stream(self, request_iterator, context):  # noqa: ANN001, ANN201
        self.streams += 1
        session = Session(self.behaviour)
        for request in request_iterator:
            self.requests.append(request.WhichOneof("request"))
            if self.behaviour.silent and request.HasField("steps"):
                continue
            while not self.behaviour.gate.wait(0.05):
                if not context.is_active():
                    return
            yield from session.answer(request)
        self.ended_in_peace += 1


class Session:
    """One stream of the fake."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.lives: dict[int, Life] = {}

    def answer(self, request: pb.StreamRequest) -> Iterator[pb.StreamResponse]:
        kind = request.WhichOneof("request")
        try:
            self._check_size(request)
            yield from getattr(self, f"_{kind}")(getattr(request, kind))
        except Refusal as refusal:
            yield self._failure(request, refusal)

    def _check_size(self, request: pb.StreamRequest) -> None:
        if 0 < self.behaviour.max_message < request.ByteSize():
            raise Refusal(error_pb2.REASON_TOO_LARGE, f"a message of {request.ByteSize()} bytes came")

    def _failure(self, request: pb.StreamRequest, refusal: Refusal) -> pb.StreamResponse:
        body = getattr(request, request.WhichOneof("request"))
        handles = list(body.handles) if request.HasField("fleet") else [body.handle]
        first = body.first_step if request.HasField("steps") else body.steps[0] if request.HasField("fleet") else 0
        expected = [self.lives[handle].step for handle in handles if handle in self.lives]
        return pb.StreamResponse(
            failure=pb.Failure(handles=handles, first_step=first, expected_steps=expected, error=refusal.error)
        )

    def _open(self, order: pb.Open) -> Iterator[pb.StreamResponse]:
        found = find(order.model, order.version)
        handles = range(order.handle, order.handle + max(1, order.count))
        self.lives |= {handle: Life(found, order.trace) for handle in handles}
        opened = pb.Opened(
            handle=order.handle,
            sequence_ids=[f"s{handle}" for handle in handles],
            model=found.name,
            version=found.version,
            trace=self.lives[order.handle].columns,
            max_message_bytes=self.behaviour.max_message,
        )
        yield pb.StreamResponse(opened=opened)

    def _steps(self, steps: pb.Steps) -> Iterator[pb.StreamResponse]:
        life = self._life(steps.handle)
        rows = check(life, steps.inputs)
        if steps.first_step != life.step:
            raise Refusal(error_pb2.REASON_WRONG_STEP, f"step {steps.first_step} came; {life.step} was expected")
        for at in range(0, len(rows), self.behaviour.part):
            part = rows[at : at + self.behaviour.part]
            first = life.step
            outputs, trace = run_rows(life, part)
            yield pb.StreamResponse(
                answers=pb.Answers(handle=steps.handle, first_step=first, outputs=outputs, trace=trace)
            )

    def _fleet(self, fleet: pb.FleetSteps) -> Iterator[pb.StreamResponse]:
        handles, steps = np.frombuffer(fleet.handles, "<u4").tolist(), np.frombuffer(fleet.steps, "<u8").tolist()
        lives = [self._life(handle) for handle in handles]
        rows = check(lives[0], fleet.inputs)
        if [life.step for life in lives] != steps:
            raise Refusal(error_pb2.REASON_WRONG_STEP, "a step of this fleet is out of order")
        order = list(range(len(rows)))
        if self.behaviour.backwards:
            order.reverse()
        for at in range(0, len(order), self.behaviour.part):
            part = order[at : at + self.behaviour.part]
            yield fleet_answer(fleet, part, lives, rows)

    def _close(self, close: pb.Close) -> Iterator[pb.StreamResponse]:
        handles = range(close.handle, close.handle + max(1, close.count))
        steps = [self._life(handle).step for handle in handles]
        for handle in handles:
            del self.lives[handle]
        yield pb.StreamResponse(closed=pb.Closed(handle=close.handle, count=len(steps), steps=steps))

    def _life(self, handle: int) -> Life:
        if handle not in self.lives:
            raise Refusal(error_pb2.REASON_UNKNOWN_HANDLE, f"nothing is open under the handle {handle}")
        return self.lives[handle]


def fleet_answer(fleet: pb.FleetSteps, part: list[int], lives: list[Life], rows: list) -> pb.StreamResponse:
    results = [run_rows(lives[row], [rows[row]]) for row in part]
    steps = np.frombuffer(fleet.steps, "<u8")[part]
    traces = [wire.decode(trace) for _, trace in results if trace is not None]
    answers = pb.FleetAnswers(
        handles=np.frombuffer(fleet.handles, "<u4")[part].tobytes(),
        steps=steps.tobytes(),
        outputs=[
            wire.encode(outputs[0].name, np.concatenate([wire.decode(tensor) for tensor in outputs]))
            for outputs in zip(*(outputs for outputs, _ in results), strict=True)
        ],
        trace=wire.encode("", np.concatenate(traces)) if traces else None,
    )
    return pb.StreamResponse(fleet=answers)


def check(life: Life, tensors: Iterable[tensor_pb2.Tensor]) -> list[list[np.ndarray]]:
    """The rows of a request, each a list of one array for each input. Raises Refusal."""
    try:
        arrays = {tensor.name: wire.decode(tensor) for tensor in tensors}
    except wire.WireError as error:
        raise Refusal(error.reason, error.message) from error
    blocks = []
    for spec in life.model.inputs:
        array = arrays[spec.name]
        if array.dtype != wire.dtype_of(spec.type):
            raise Refusal(error_pb2.REASON_WRONG_TYPE, f"{spec.name} is {array.dtype}")
        blocks.append(array[np.newaxis] if array.ndim == len(spec.shape) else array)
        if list(blocks[-1].shape[1:]) != list(spec.shape):
            raise Refusal(error_pb2.REASON_WRONG_SHAPE, f"{spec.name} has the shape {array.shape}")
        if not np.isfinite(array).all():
            raise Refusal(error_pb2.REASON_NOT_FINITE, f"{spec.name} holds NaN or Inf")
    return [list(row) for row in zip(*blocks, strict=True)]


def run_rows(life: Life, rows: list[list[np.ndarray]]) -> tuple[list[tensor_pb2.Tensor], tensor_pb2.Tensor | None]:
    first = life.step
    results = [life.run([np.asarray(part) for part in row]) for row in rows]
    outputs = [
        wire.encode(spec.name, np.stack([result[at] for result in results]))
        for at, spec in enumerate(life.model.outputs)
    ]
    traces = [result[-1] for at, result in enumerate(results) if life.traced(first + at)]
    return outputs, wire.encode("", np.stack(traces)) if traces else None


def abort(context: grpc.ServicerContext, reason: int, message: str) -> None:
    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=reason_name(reason), domain="tidegate"))
    code = grpc.StatusCode.NOT_FOUND if reason == error_pb2.REASON_UNKNOWN_MODEL else grpc.StatusCode.INVALID_ARGUMENT
    context.abort_with_status(rpc_status.to_status(Status(code=code.value[0], message=message, details=[detail])))


class FakeServer:
    """The fake on a free port, as a context manager."""

    def __init__(self, port: int = 0, **behaviour: object) -> None:
        self.behaviour = Behaviour(**behaviour)
        self.servicer = FakeServicer(self.behaviour)
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        tidegate_pb2_grpc.add_TidegateServicer_to_server(self.servicer, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"

    def vanish(self) -> None:
        self._server.stop(None).wait()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.behaviour.gate.set()
        self.vanish()


def expected(rows: np.ndarray) -> np.ndarray:
    """What "toy" answers to rows [T, 2], by its recurrence written out: [T]."""
    h = np.zeros(3)
    answers = []
    for row in rows:
        h = h / 2 + float(np.float32(row[0]) + np.float32(row[1])) + np.arange(3)
        answers.append(h.sum())
    return np.array(answers, np.float32)
