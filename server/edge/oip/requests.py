"""Translates the requests of the Open Inference Protocol into the types of the rooms below. Decides nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from server.edge.fields import Beside, Buffer, Cut, cut
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.edge.varints import packed
from server.errors import BadInput, OverLimit, Reason, Refusal, UnknownModel
from server.runtime.input_check import Named, by_name
from stepgraph.rewriting.ports import Port

TYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
NAMES = {dtype: name for name, dtype in TYPES.items()}
_CONTENTS = {  # the field of typed contents; half precision has none
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_AS_IN_MEMORY = {"bool_contents", "fp32_contents", "fp64_contents"}
_WHOLE = "int64_param", "uint64_param"
_PARAMETERS: Mapping[str, Sequence[str]] = {  # and what they may be
    "sequence_id": (*_WHOLE, "string_param"),
    "sequence_step": _WHOLE,
    **dict.fromkeys(("sequence_start", "sequence_end", "sequence_restart"), ("bool_param",)),
}
_IGNORED = {"triton_enable_empty_final_response"}  # every answer is the last one of its request
_LONGEST_ID = 128  # characters of a sequence's, as Triton has it
_MOST = 64  # tensors, and outputs that are asked for
_MOST_OUTPUTS = 1_024
_MOST_AXES = 32
_DIGITS = 20  # of a version, which 64 bits hold

SequenceId = int | str


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a sequence a request is. `step`: the number of its first step, if its client counts them."""

    id: SequenceId
    start: bool = False
    end: bool = False
    step: int | None = None
    restart: bool = False  # a running sequence of this id gives way


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One request of `size` bytes. `outputs`: those that are asked for by name, empty for all of the model's."""

    id: str
    model: str
    version: int
    inputs: Named
    outputs: tuple[str, ...] = ()
    place: Place | None = None  # None: in no sequence
    size: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The inputs of a request, each [N, T, ...row]: N rows of T steps. `axes`: how many of these it came with."""

    inputs: Named
    batch: int
    axes: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """What came instead of a request that can be taken: why it cannot, and its id, if it has one."""

    id: str
    why: Refusal


def reader(limit: int) -> Callable[[Buffer], Asked | Rejected]:
    """A deserialiser. For a message that cannot be taken it returns the refusal, so that the stream goes on."""

    def read(data: Buffer) -> Asked | Rejected:
        id_ = ""
        try:
            if len(data) > limit:
                raise OverLimit(f"a message of {len(data)} bytes came; {limit} is the limit. Send fewer steps in one")
            request = cut(pb.ModelInferRequest, data)
            id_ = request.message.id
            return asked(request, len(data))
        except Refusal as refusal:
            return Rejected(id_, refusal)

    return read


def asked(come: Cut[pb.ModelInferRequest], size: int = 0) -> Asked:
    """Raises Refusal: it contradicts itself, or asks for what this server does not do."""
    request = come.message
    inputs, outputs, place = _inputs(request, come.beside), _outputs(request.outputs), _place(request.parameters)
    return Asked(request.id, request.model_name, version_of(request.model_version), inputs, outputs, place, size)


def version_of(text: str) -> int:
    """The number of a version; 0 where none is named. Raises UnknownModel."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise UnknownModel(f"version {text[:60]!r} is no number", Reason.UNKNOWN_VERSION)
    return int(text)


def steps_of(inputs: Named, ports: Sequence[Port]) -> Steps:
    """Makes both axes of inputs that may lack them: [...row] is one step, [N, ...row] one of each of N rows.

    What is wrong beside names and numbers of axes is found by the model's own check. Raises BadInput.
    """
    if len(inputs) == len(ports) == 1:  # nearly always: one step of one input
        (name, x), port = inputs[0], ports[0]
        if name == port.name and x.shape == (1, *port.row):
            return Steps([(name, x[np.newaxis])], 1, 1)
    named = by_name(ports, inputs)
    axes = {named[port.name].ndim - len(port.row) for port in ports} or {0}
    if len(axes) > 1 or not 0 <= min(axes) <= 2:
        got = ", ".join(f"'{name}' {list(x.shape)}" for name, x in named.items())
        expected = "; ".join(f"'{port.name}' {_shapes(port.row)}" for port in ports)
        raise BadInput(f"inputs have the shapes {got}; expected {expected}", Reason.WRONG_SHAPE)
    (given,) = axes
    made = [(name, x.reshape(*x.shape[:given], *(1,) * (2 - given), *x.shape[given:])) for name, x in named.items()]
    batches = {len(x) for _, x in made}
    if len(batches) > 1 or 0 in batches:
        raise BadInput(f"inputs have batches of {sorted(batches)} rows; expected one, of 1 or more", Reason.WRONG_SHAPE)
    return Steps(made, min(batches, default=1), given)


def _shapes(row: Sequence[int]) -> str:
    shapes = ([*lead, *map(str, row)] for lead in ((), ("1",), ("1", "steps")))
    return " or ".join(f"[{', '.join(shape)}]" for shape in shapes)


# Tensors --------------------------------------------------------------------------------------------------------------


def _inputs(request: pb.ModelInferRequest, beside: Beside) -> Named:
    inputs, given = request.inputs, request.raw_input_contents
    if len(inputs) > _MOST:
        raise OverLimit(f"{len(inputs)} inputs came; {_MOST} is the limit")
    if given and len(given) != len(inputs):
        raise BadInput(f"{len(given)} raw contents came for {len(inputs)} inputs", Reason.MALFORMED)
    if not given:
        return [(tensor.name, _typed(tensor)) for tensor in inputs]
    raw = [beside.get(x, x) if beside else x for x in given]
    return [(tensor.name, _raw(tensor, data)) for tensor, data in zip(inputs, raw, strict=True)]


def _raw(tensor: pb.ModelInferRequest.InferInputTensor, data: Buffer) -> np.ndarray:
    if tensor.HasField("contents"):
        raise BadInput(f"input '{tensor.name:.64}' has contents beside raw contents", Reason.MALFORMED)
    dtype, shape, count = _described(tensor)
    if len(data) != count * dtype.itemsize:
        raise _wrong_size(tensor, f"{len(data)} bytes", f"{count * dtype.itemsize}")
    flat = np.frombuffer(data, dtype)
    if dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
        raise BadInput(f"input '{tensor.name:.64}' holds a byte that is neither 0 nor 1", Reason.WRONG_TYPE)
    return _shaped(tensor, flat, shape)


def _typed(tensor: pb.ModelInferRequest.InferInputTensor) -> np.ndarray:
    dtype, shape, count = _described(tensor)
    field = _CONTENTS.get(tensor.datatype)
    if field is None or any(other.name != field for other, _ in tensor.contents.ListFields()):
        raise BadInput(
            f"input '{tensor.name:.64}' is {tensor.datatype} and has contents of another field; "
            f"expected {field or 'raw contents'}",
            Reason.WRONG_TYPE,
        )
    values = getattr(tensor.contents, field)
    if len(values) != count:
        raise _wrong_size(tensor, f"{len(values)} values", str(count))
    tensor.contents.DiscardUnknownFields()  # so that the numbers are the last bytes: an object is made of none
    written = tensor.contents.SerializeToString()
    if field in _AS_IN_MEMORY or not count:
        return _shaped(tensor, np.frombuffer(written, dtype, count, len(written) - count * dtype.itemsize), shape)
    whole = packed(written).view(np.int64 if dtype.kind == "i" else np.uint64)
    bounds = np.iinfo(dtype)
    if (least := whole.min()) < bounds.min or (most := whole.max()) > bounds.max:
        odd = least if least < bounds.min else most
        raise BadInput(
            f"input '{tensor.name:.64}' is {tensor.datatype} and holds {odd}; {bounds.min} to {bounds.max} fit",
            Reason.WRONG_TYPE,
        )
    return _shaped(tensor, whole.astype(dtype), shape)


def _described(tensor: pb.ModelInferRequest.InferInputTensor) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """The type, the shape and how many numbers that is."""
    if "shared_memory_region" in tensor.parameters:
        raise Refusal("this server takes inputs in messages, not by shared memory", Reason.MALFORMED)
    dtype, shape = TYPES.get(tensor.datatype), tuple(tensor.shape[: _MOST_AXES + 1])
    if dtype is None:
        raise BadInput(
            f"input '{tensor.name:.64}' is {tensor.datatype[:20]!r}; expected one of {', '.join(TYPES)}",
            Reason.WRONG_TYPE,
        )
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0:
        raise BadInput(
            f"input '{tensor.name:.64}' has the shape {list(shape)[:_MOST_AXES]}; "
            f"up to {_MOST_AXES} axes of 0 or more may be",
            Reason.WRONG_SHAPE,
        )
    return dtype, shape, prod(shape)


def _wrong_size(tensor: pb.ModelInferRequest.InferInputTensor, got: str, expected: str) -> BadInput:
    return BadInput(
        f"input '{tensor.name:.64}' is {tensor.datatype} {list(tensor.shape)} and has {got}; expected {expected}",
        Reason.WRONG_SIZE,
    )


def _shaped(tensor: pb.ModelInferRequest.InferInputTensor, flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return flat.reshape(shape)
    except ValueError as error:  # an empty array with an axis beyond all memory
        raise BadInput(f"input '{tensor.name:.64}' has the shape {list(shape)}: {error}", Reason.WRONG_SHAPE) from None


def _outputs(outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]) -> tuple[str, ...]:
    if len(outputs) > _MOST_OUTPUTS:
        raise OverLimit(f"{len(outputs)} outputs were asked for; {_MOST_OUTPUTS} is the limit")
    for output in outputs:
        if output.parameters.keys() & {"shared_memory_region", "classification"}:
            raise Refusal(
                f"output '{output.name:.64}' is asked for by shared memory or as classes; neither is done here"
            )
    return tuple({output.name: None for output in outputs})  # each once, however often it is asked for


# Parameters -----------------------------------------------------------------------------------------------------------


def _place(given: Mapping[str, pb.InferParameter]) -> Place | None:
    found = dict[str, Any]()
    for name in given:
        if (kinds := _PARAMETERS.get(name)) is not None:
            kind = given[name].WhichOneof("parameter_choice")
            if kind not in kinds:
                expected = " or ".join(kinds)
                raise BadInput(f"parameter '{name}' is {kind or 'empty'}; expected {expected}", Reason.MALFORMED)
            found[name] = getattr(given[name], kind)
        elif name.startswith("triton_") and name not in _IGNORED:
            raise BadInput(f"parameter '{name:.64}' is unknown; names from triton_ on are reserved", Reason.MALFORMED)
    id_, step = found.get("sequence_id"), found.get("sequence_step")
    if not id_:
        return None
    if isinstance(id_, str) and len(id_) > _LONGEST_ID:
        raise OverLimit(f"a sequence id of {len(id_)} characters came; {_LONGEST_ID} is the limit")
    if step is not None and step < 0:
        raise BadInput(f"sequence_step is {step}; expected 0 or more", Reason.WRONG_STEP)
    start, end, restart = (found.get(f"sequence_{flag}", False) for flag in ("start", "end", "restart"))
    return Place(id_, start, end, step, restart)
