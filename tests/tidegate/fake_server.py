"""A small server that keeps the contract with a toy recurrence, so that clients can be tested without a model.

Every hidden unit u of every layer follows h[u] = h[u] / 2 + sum of all inputs + u; the first output is the sum of all
hidden units of the last layer. Every column of a trace named N shows h + len(N), so that no two parts are alike.
Versions 2 to 4 of "toy", which have to be asked for, forget faster, h[u] / 4 and so on; version 3 has other inputs, and
the series of version 4 are told apart by a table's columns line and machine.

With a Store it keeps checkpoints, and everything of the contract that comes with them.
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

from bench.processes.child import free_port
from tidegate import Resuming, wire
from tidegate.messages import reason_name
from tidegate.v1 import error_pb2, model_pb2, tensor_pb2, tidegate_pb2, tidegate_pb2_grpc
from tidegate.v1 import sequence_pb2 as pb

AT_ONCE = Resuming(first_wait=0.01, longest_wait=0.05)  # how a client that lost its server comes back
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


BY_SERIES = tensor_spec("x", F32, [2], ["left", "right"])
BY_SERIES.series.extend(["line", "machine"])
LATER = [
    model(
        "toy",
        2,
        model_pb2.CELL_KIND_LSTM,
        [3, 3],
        [tensor_spec("x", F32, [2], ["left", "right"])],
        [tensor_spec("y", F32, [1])],
    ),
    model("toy", 3, model_pb2.CELL_KIND_LSTM, [3, 3], [tensor_spec("wide", F32, [3])], [tensor_spec("y", F32, [1])]),
    model("toy", 4, model_pb2.CELL_KIND_LSTM, [3, 3], [BY_SERIES], [tensor_spec("y", F32, [1])]),
]


class Refusal(Exception):
    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.error = error_pb2.Error(reason=reason, message=message)


def find(name: str, version: int) -> model_pb2.Model:
    for known in [*MODELS, *(later for later in LATER if version)]:
        if known.name == name and version in {0, known.version}:
            if known.status != model_pb2.MODEL_STATUS_READY:
                raise Refusal(error_pb2.REASON_MODEL_REFUSED, known.reason)
            return known
    raise Refusal(error_pb2.REASON_UNKNOWN_MODEL, f"there is no model {name!r}")


@dataclass
class Record:
    """What a store has of one sequence: its checkpoints, each the version and h after so many steps."""

    id: str
    token: str
    model: str
    checkpoints: dict[int, tuple[int, np.ndarray]]
    ended: int = 0  # the reason why it is no more
    written: bool = False  # whether it would outlive the server
    keep: int = 2  # so many of the checkpoints that its client needs no more
    owner: object = None  # the session that runs it
    fellows: list["Record"] = field(default_factory=list)  # those of the same Open, which are first written together

    def write(self, life: "Life", answered: int) -> None:
        """Writes a checkpoint, and lets go of those that its client needs no more."""
        self.checkpoints[life.step] = (life.model.version, life.h.copy())
        for record in (self, *self.fellows):
            record.written = True
        safe = sorted(step for step in self.checkpoints if step <= answered)
        for step in safe[: -self.keep]:
            del self.checkpoints[step]

    def newest(self, limit: int) -> int:
        steps = [step for step in self.checkpoints if step <= limit]
        if not steps:
            raise Refusal(error_pb2.REASON_CHECKPOINT_GONE, f"no checkpoint is kept at or before step {limit}")
        return max(steps)


class Store:
    """Checkpoints that outlive a server."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._made = 0

    def add(self, life: "Life", token: str, owner: object, route: str) -> Record:
        name = f"{route}-{self._made}"
        self._made += 1
        first = {life.step: (life.model.version, life.h.copy())}
        self.records[name] = record = Record(name, token, life.model.name, first, owner=owner)
        return record

    def lose_the_unwritten(self) -> None:
        """What a killed server takes with it."""
        self.records = {name: record for name, record in self.records.items() if record.written}

    def claim(self, resume: pb.Resume, owner: object) -> list[Record]:
        """The records of a Resume. Raises Refusal."""
        found = [self._claimable(name, resume.resume_token) for name in resume.sequence_ids]
        for record in found:
            record.owner = owner
        return found

    def _claimable(self, name: str, token: str) -> Record:
        record = self.records.get(name)
        if record is None:
            raise Refusal(error_pb2.REASON_UNKNOWN_SEQUENCE, f"no sequence {name} was ever kept here")
        if record.token != token:
            raise Refusal(error_pb2.REASON_WRONG_TOKEN, f"that is not the token of {name}")
        if record.ended:
            raise Refusal(record.ended, f"{name} is no more")
        return record


@dataclass
class Life:
    """One sequence of the fake."""

    model: model_pb2.Model
    trace: pb.TraceSelection
    step: int = 0
    h: np.ndarray = field(default_factory=lambda: np.zeros(0))
    record: Record | None = None
    answered: int = 0

    def __post_init__(self) -> None:
        if not len(self.h):
            self.h = np.zeros(self.model.layers[0].hidden_size, np.float64)

    @property
    def checkpointed(self) -> int:
        """The newest checkpoint that is written."""
        return max(self.record.checkpoints) if self.record is not None and self.record.written else 0

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
        self.h = self.h / 2**self.model.version + sum(float(part.sum()) for part in row) + np.arange(len(self.h))
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
    store: Store | None = None
    every: int = 4  # steps from one checkpoint of a sequence to the next; 0: none
    break_after: int = -1  # messages that a stream brings before it breaks
    refuse: list[int] = field(default_factory=list)  # reasons for which it refuses what comes, one after the other
    refused: str = "resume"  # the requests that are refused so
    loading: int = 0  # so many descriptions say first that the model is still loading
    names_refused: bool = True  # whether a refusal tells which kind of request it is of, which older servers do not

    def __post_init__(self) -> None:
        self.gate.set()


class FakeServicer(tidegate_pb2_grpc.TidegateServicer):
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.streams = 0
        self.routes: list[str] = []  # of each stream
        self.ended_in_peace = 0
        self.requests: list[str] = []
        self.bundles: list[int] = []  # how many requests each message held
        self.dead = False  # killed: it writes nothing any more

    def ListModels(self, request, context):  # noqa: ANN001, ANN201, ARG002
        return tidegate_pb2.ListModelsResponse(models=MODELS)

    def DescribeModel(self, request, context):  # noqa: ANN001, ANN201
        if self.behaviour.loading:
            self.behaviour.loading -= 1
            known = model_pb2.Model(name=request.model, version=1, status=model_pb2.MODEL_STATUS_LOADING)
            return tidegate_pb2.DescribeModelResponse(model=known)
        for known in [*MODELS, *(later for later in LATER if request.version)]:
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
        self.routes.append(dict(context.invocation_metadata()).get("tidegate-sequence", ""))
        session = Session(self.behaviour, self.routes[-1])
        context.add_callback(lambda: None if self.dead else session.park())
        for bundle in request_iterator:
            self.bundles.append(1 + len(bundle.more))
            for request in (bundle, *bundle.more):
                for response in self._answer(session, request, context):
                    if self.behaviour.break_after == 0:
                        self.behaviour.break_after = -1
                        context.abort(grpc.StatusCode.UNAVAILABLE, "the stream broke")
                    self.behaviour.break_after -= 1
                    yield response
                if not context.is_active():
                    return
        self.ended_in_peace += 1

    def _answer(self, session, request, context):  # noqa: ANN001, ANN202
        self.requests.append(request.WhichOneof("request"))
        if self.behaviour.silent and request.HasField("steps"):
            return
        while not self.behaviour.gate.wait(0.05):
            if not context.is_active():
                return
        yield from session.answer(request)
        yield from session.release_taken()


class Session:
    """One stream of the fake."""

    def __init__(self, behaviour: Behaviour, route: str = "k") -> None:
        self.behaviour = behaviour
        self.route = route
        self.lives: dict[int, Life] = {}

    def answer(self, request: pb.StreamRequest) -> Iterator[pb.StreamResponse]:
        kind = request.WhichOneof("request")
        try:
            self._check_size(request)
            self._check_willing(kind)
            yield from getattr(self, f"_{kind}")(getattr(request, kind))
        except Refusal as refusal:
            yield self._failure(request, refusal)

    def park(self) -> None:
        """The client is gone: the sequences are kept as they stand."""
        for life in self.lives.values():
            if life.record is not None and life.record.owner is self:
                life.record.write(life, life.answered)
        self.lives.clear()

    def release(self, reason: int) -> pb.StreamResponse:
        """Lets go of everything."""
        handles = list(self.lives)
        for life in self.lives.values():
            if life.record is not None and reason != error_pb2.REASON_DRAINING:
                life.record.ended = reason
        self.park()
        return pb.StreamResponse(
            released=pb.Released(handles=handles, error=error_pb2.Error(reason=reason, message="let go"))
        )

    def release_taken(self) -> list[pb.StreamResponse]:
        """Lets go of what others have claimed."""
        taken = [handle for handle in self.lives if self._taken(handle)]
        for handle in taken:
            del self.lives[handle]
        error = error_pb2.Error(reason=error_pb2.REASON_TAKEN_OVER, message="it goes on on another stream")
        return [pb.StreamResponse(released=pb.Released(handles=taken, error=error))] if taken else []

    def write(self, handle: int) -> pb.StreamResponse:
        """Writes a checkpoint, and tells it."""
        life = self.lives[handle]
        if life.record is not None:
            life.record.write(life, life.answered)
        steps = np.array([life.checkpointed], "<u8").tobytes()
        handles = np.array([handle], "<u4").tobytes()
        return pb.StreamResponse(checkpointed=pb.Checkpointed(handles=handles, steps=steps))

    def _check_size(self, request: pb.StreamRequest) -> None:
        if 0 < self.behaviour.max_message < request.ByteSize():
            raise Refusal(error_pb2.REASON_TOO_LARGE, f"a message of {request.ByteSize()} bytes came")

    def _check_willing(self, kind: str) -> None:
        if self.behaviour.refuse and kind == self.behaviour.refused:
            raise Refusal(self.behaviour.refuse.pop(0), "not now")

    def _failure(self, request: pb.StreamRequest, refusal: Refusal) -> pb.StreamResponse:
        body = getattr(request, request.WhichOneof("request"))
        handles = list(body.handles) if request.HasField("fleet") else [body.handle]
        first = body.first_step if request.HasField("steps") else body.steps[0] if request.HasField("fleet") else 0
        if request.HasField("resume"):
            handles = list(range(body.handle, body.handle + len(body.sequence_ids)))
        here = [handle for handle in handles if handle in self.lives and not self._taken(handle)]
        expected = [self.lives[handle].step for handle in here] if len(here) == len(handles) else []
        kind = request.WhichOneof("request") if self.behaviour.names_refused else ""
        return pb.StreamResponse(
            failure=pb.Failure(
                handles=handles, first_step=first, expected_steps=expected, error=refusal.error, request=kind
            )
        )

    def _open(self, order: pb.Open) -> Iterator[pb.StreamResponse]:
        found = find(order.model, order.version)
        handles = range(order.handle, order.handle + max(1, order.count))
        first, h = 0, np.zeros(0)
        if order.HasField("state"):
            first, h = order.state.step, read_state(order.state, found)
        self.lives |= {handle: Life(found, order.trace, first, h.copy()) for handle in handles}
        token = ""
        if self.behaviour.store is not None:
            token = f"token of {order.handle}"
            for handle in handles:
                self.lives[handle].record = self.behaviour.store.add(self.lives[handle], token, self, self.route)
            fellows = [self.lives[handle].record for handle in handles]
            for record in fellows:
                record.fellows = fellows
        yield self._opened(order.handle, list(handles), token)

    def _resume(self, resume: pb.Resume) -> Iterator[pb.StreamResponse]:
        assert self.behaviour.store is not None
        handles = range(resume.handle, resume.handle + len(resume.sequence_ids))
        if any(handle in self.lives for handle in handles):
            raise Refusal(error_pb2.REASON_HANDLE_IN_USE, "a handle is in use")
        records = self.behaviour.store.claim(resume, self)
        starts = [record.newest(answered) for record, answered in zip(records, resume.answered, strict=True)]
        for handle, record, start, answered in zip(handles, records, starts, resume.answered, strict=True):
            version, h = record.checkpoints[start]
            life = Life(find(record.model, version), resume.trace, start, h.copy(), record, answered)
            self.lives[handle] = life
        yield self._opened(resume.handle, list(handles), resume.resume_token)

    def _opened(self, handle: int, handles: list[int], token: str) -> pb.StreamResponse:
        lives = [self.lives[handle] for handle in handles]
        names = [
            life.record.id if life.record is not None else f"s{at}" for at, life in zip(handles, lives, strict=True)
        ]
        opened = pb.Opened(
            handle=handle,
            sequence_ids=names,
            model=lives[0].model.name,
            version=lives[0].model.version,
            trace=lives[0].columns,
            max_message_bytes=self.behaviour.max_message,
            resume_token=token,
            next_steps=[life.step for life in lives] if any(life.step for life in lives) else (),
        )
        return pb.StreamResponse(opened=opened)

    def _read_state(self, read: pb.ReadState) -> Iterator[pb.StreamResponse]:
        life = self._life(read.handle)
        state = pb.State(model=life.model.name, version=life.model.version, step=life.step)
        state.parts.add(layer=0, name="hidden", value=wire.encode("", life.h))
        yield pb.StreamResponse(state=pb.SequenceState(handle=read.handle, state=state))

    def _rewind(self, rewind: pb.Rewind) -> Iterator[pb.StreamResponse]:
        life = self._life(rewind.handle)
        if life.record is None:
            raise Refusal(error_pb2.REASON_CHECKPOINT_GONE, "no checkpoints are kept here")
        step = life.record.newest(rewind.step)
        for later in [kept for kept in life.record.checkpoints if kept > step]:
            del life.record.checkpoints[later]
        life.step, life.h = step, life.record.checkpoints[step][1].copy()
        life.answered = min(life.answered, step)
        life.record.written = True
        yield pb.StreamResponse(rewound=pb.Rewound(handle=rewind.handle, next_step=step))

    def _move(self, move: pb.Move) -> Iterator[pb.StreamResponse]:
        life = self._life(move.handle)
        found = find(life.model.name, move.version)
        life.model = found
        yield pb.StreamResponse(
            moved=pb.Moved(handle=move.handle, version=found.version, next_step=life.step, trace=life.columns)
        )

    def _steps(self, steps: pb.Steps) -> Iterator[pb.StreamResponse]:
        life = self._life(steps.handle)
        rows = check(life, steps.inputs)
        if steps.first_step != life.step:
            raise Refusal(error_pb2.REASON_WRONG_STEP, f"step {steps.first_step} came; {life.step} was expected")
        life.answered = steps.answered
        for at in range(0, len(rows), self.behaviour.part):
            part = rows[at : at + self.behaviour.part]
            first = life.step
            outputs, trace = run_rows(life, part, self.behaviour.every)
            answers = pb.Answers(
                handle=steps.handle, first_step=first, outputs=outputs, trace=trace, checkpointed=life.checkpointed
            )
            yield pb.StreamResponse(answers=answers)

    def _fleet(self, fleet: pb.FleetSteps) -> Iterator[pb.StreamResponse]:
        handles, steps = np.frombuffer(fleet.handles, "<u4").tolist(), np.frombuffer(fleet.steps, "<u8").tolist()
        lives = [self._life(handle) for handle in handles]
        rows = check(lives[0], fleet.inputs)
        if [life.step for life in lives] != steps:
            raise Refusal(error_pb2.REASON_WRONG_STEP, "a step of this fleet is out of order")
        for life, answered in zip(lives, np.frombuffer(fleet.answered, "<u8").tolist(), strict=False):
            life.answered = answered
        order = list(range(len(rows)))
        if self.behaviour.backwards:
            order.reverse()
        for at in range(0, len(order), self.behaviour.part):
            part = order[at : at + self.behaviour.part]
            yield fleet_answer(fleet, part, lives, rows, self.behaviour.every)

    def _close(self, close: pb.Close) -> Iterator[pb.StreamResponse]:
        handles = range(close.handle, close.handle + max(1, close.count))
        here = [handle for handle in handles if handle in self.lives and not self._taken(handle)]
        if not close.park:
            here = [handle for handle in handles if self._life(handle)]
        steps = [self.lives[handle].step if handle in here else 0 for handle in handles]
        for handle in here:
            life = self.lives.pop(handle)
            if life.record is not None and close.park:
                life.record.write(life, life.answered)
            elif life.record is not None:
                life.record.ended = error_pb2.REASON_SEQUENCE_ENDED
        yield pb.StreamResponse(closed=pb.Closed(handle=close.handle, count=len(steps), steps=steps))

    def _life(self, handle: int) -> Life:
        if handle not in self.lives:
            raise Refusal(error_pb2.REASON_UNKNOWN_HANDLE, f"nothing is open under the handle {handle}")
        if self._taken(handle):  # Released is to say so
            raise Refusal(error_pb2.REASON_UNKNOWN_HANDLE, f"the sequence under handle {handle} is being closed")
        return self.lives[handle]

    def _taken(self, handle: int) -> bool:
        record = self.lives[handle].record
        return record is not None and record.owner is not self


def read_state(state: pb.State, model: model_pb2.Model) -> np.ndarray:
    if [(part.layer, part.name) for part in state.parts] != [(0, "hidden")]:
        raise Refusal(error_pb2.REASON_WRONG_STATE, f"the state has not the parts of {model.name}")
    h = wire.decode(state.parts[0].value)
    if h.shape != (model.layers[0].hidden_size,):
        raise Refusal(error_pb2.REASON_WRONG_STATE, f"the state of {model.name} has another shape")
    return h


def fleet_answer(fleet: pb.FleetSteps, part: list[int], lives: list[Life], rows: list, every: int) -> pb.StreamResponse:
    results = [run_rows(lives[row], [rows[row]], every) for row in part]
    safe = np.array([lives[row].checkpointed for row in part], "<u8")
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
        checkpointed=safe.tobytes() if safe.any() else b"",
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


def run_rows(
    life: Life, rows: list[list[np.ndarray]], every: int = 0
) -> tuple[list[tensor_pb2.Tensor], tensor_pb2.Tensor | None]:
    first = life.step
    results = []
    for row in rows:
        results.append(life.run([np.asarray(part) for part in row]))
        if life.record is not None and every and life.step % every == 0:
            life.record.write(life, life.answered)
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

    def __init__(self, port: int = 0, guard: grpc.ServerInterceptor | None = None, **behaviour: object) -> None:
        self.behaviour = Behaviour(**behaviour)
        self.servicer = FakeServicer(self.behaviour)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[guard] if guard else [])
        tidegate_pb2_grpc.add_TidegateServicer_to_server(self.servicer, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port or free_port()}")
        self.address = f"127.0.0.1:{self.port}"

    def vanish(self) -> None:
        self.servicer.dead = True
        self._server.stop(None).wait()

    def cut(self) -> None:
        """Breaks every stream at its next message."""
        self.behaviour.break_after = 0

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.behaviour.gate.set()
        self.vanish()


def expected(rows: np.ndarray, moved_at: int = 2**62) -> np.ndarray:
    """What "toy" answers to rows [T, 2], by its recurrence written out: [T]. From `moved_at` on it is version 2."""
    h = np.zeros(3)
    answers = []
    for step, row in enumerate(rows):
        h = h / (2 if step < moved_at else 4) + float(np.float32(row[0]) + np.float32(row[1])) + np.arange(3)
        answers.append(h.sum())
    return np.array(answers, np.float32)
