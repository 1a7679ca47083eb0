"""Answers and errors as messages of the Open Inference Protocol. Decides nothing but what an output is called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.edge.oip.requests import NAMES, Asked
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.edge.pieces import Message, Numbers, Part, field, made_of
from server.edge.status import reason_name
from server.edge.varints import VARINT
from server.errors import BadInput, Reason, TidegateError
from server.runtime.served_model import ServedModel
from stepgraph.rewriting.columns import Columns
from stepgraph.rewriting.stepgraph import StepGraph
from tidegate.varints import tag

_INFER_RESPONSE = tag(pb.ModelStreamInferResponse, "infer_response", 2)
_ID, _PARAMETERS, _RAW = (tag(pb.ModelInferResponse, name, 2) for name in ("id", "parameters", "raw_output_contents"))
_INT64 = tag(pb.InferParameter, "int64_param", 0)
_STEP = b"\x0a\x0dsequence_step\x12"  # the key of an entry, and the tag of its value
_KEPT = 256  # descriptions of outputs that are kept as bytes


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What the steps of a request gave: `batch` rows of `steps` steps, in parts that follow each other.

    `outputs[name]` are [n, ...row] each, `trace` [n, columns] each, or None.
    `axes`: with how many of these two the inputs came. `step`: the number of the first one in its sequence.
    """

    model: ServedModel
    outputs: Mapping[str, Sequence[np.ndarray]]
    trace: Sequence[np.ndarray] | None
    batch: int
    steps: int
    axes: int
    step: int | None = None


def trace_name(columns: Columns) -> str:
    """What a state or a gate is called as an output: layer0.forget; state.NAME if the file's interface carries it."""
    return f"state.{columns.name}" if columns.layer is None else f"layer{columns.layer}.{columns.name}"


def trace_outputs(graph: StepGraph) -> dict[str, Columns]:
    """The states and gates of a model by name; a name that an output of the file has is that output's."""
    taken = {port.name for port in graph.outputs}
    return {name: columns for columns in graph.trace if (name := trace_name(columns)) not in taken}


def wants_trace(names: Sequence[str], graph: StepGraph) -> bool:
    """Whether a state or a gate is among the outputs that are asked for. Raises BadInput: something else is."""
    unknown = set(names) - {port.name for port in graph.outputs}
    if unknown and (strange := unknown - trace_outputs(graph).keys()):
        known = ", ".join([*(port.name for port in graph.outputs), *trace_outputs(graph)])
        raise BadInput(f"there is no output '{min(strange):.64}'; this model has {known}", Reason.WRONG_NAME)
    return bool(unknown)


class Writer:
    """Writes answers. What those of a kind have in common is kept as bytes: messages that follow each other are one."""

    def __init__(self) -> None:
        self._heads: dict[object, bytes] = {}

    def answer(self, asked: Asked, made: Made, *, streamed: bool = False) -> Message:
        """A ModelInferResponse, or the message of a stream that holds it."""
        outputs, id_ = _wanted(asked, made), asked.id.encode()
        parts: list[Part] = [self._head(made, outputs, streamed)]
        if id_:
            parts += (_ID, VARINT[len(id_)], id_)
        if made.step is not None:
            step = _INT64 + VARINT[made.step]
            entry = _STEP + VARINT[len(step)] + step
            parts += (_PARAMETERS, VARINT[len(entry)], entry)
        for _, rows in outputs:
            parts += field(_RAW, [Numbers(x) for x in rows])
        return made_of(field(_INFER_RESPONSE, parts) if streamed else parts)

    def _head(self, made: Made, outputs: Sequence[tuple[str, Sequence[np.ndarray]]], streamed: bool) -> bytes:
        model, lead = made.model, (made.batch, made.steps)[: made.axes]
        key = model.name, model.version, streamed, lead, *((name, x.shape[1:], x.dtype) for name, (x, *_) in outputs)
        if (head := self._heads.get(key)) is None:
            message = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version))
            for name, (x, *_) in outputs:
                shape = *lead, *x.shape[1:]
                message.outputs.add(name=name, datatype=NAMES[x.dtype.newbyteorder("<")], shape=shape)
            if streamed:
                message.parameters["triton_final_response"].bool_param = True
            head = message.SerializeToString()
            if len(self._heads) >= _KEPT:
                self._heads.clear()  # so that shapes of all sizes do not crowd out those that come again
            self._heads[key] = head
        return head


def error(id_: str, model: str, error: TidegateError) -> bytes:
    """The message of a stream for a request that failed. Its text begins with the reason; the stream goes on."""
    reason = reason_name(error.reason)
    of = f" (request '{id_}')" if id_ else ""
    message = pb.ModelStreamInferResponse(error_message=f"{reason}: {error}{of}")
    message.infer_response.id, message.infer_response.model_name = id_, model
    message.infer_response.parameters["tidegate_reason"].string_param = reason
    message.infer_response.parameters["triton_final_response"].bool_param = True
    return message.SerializeToString()


def _wanted(asked: Asked, made: Made) -> list[tuple[str, Sequence[np.ndarray]]]:
    """The outputs that were asked for."""
    if not asked.outputs:
        return list(made.outputs.items())
    traces = trace_outputs(made.model.graph)
    return [(name, made.outputs[name] if name in made.outputs else _cut(made, traces[name])) for name in asked.outputs]


def _cut(made: Made, columns: Columns) -> list[np.ndarray]:
    assert made.trace is not None, "it was asked for"
    return [part[:, columns.span] for part in made.trace]
