"""The tensors that a model file holds, wherever in it: how many bytes each declares, and how many are there."""

import math
from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto, helper

from stepgraph.errors import ModelRefused
from stepgraph.graphs.nodes import graphs

_PACKED = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4}  # types of less than a byte, in bits
_PARTS = {"COMPLEX64": 2, "COMPLEX128": 2}  # entries of the typed fields for one element


def within(message: Message) -> Iterator[TensorProto]:
    """Every tensor in a message: initialisers, constants, attributes, in subgraphs and functions too."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        if isinstance(current, TensorProto):
            yield current
            continue
        for field, value in reversed(current.ListFields()):
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting.extend([value] if isinstance(value, Message) else reversed(value))


def mentions(model: ModelProto, kind: int) -> bool:
    """Whether a tensor of a model can have this type: one that is stored or is an input has it, or a cast makes it."""
    return any(info.type.tensor_type.elem_type == kind for info in model.graph.input) or any(
        any(tensor.data_type == kind for tensor in graph.initializer)
        or any(a.t.data_type == kind or (a.i == kind and a.name == "to") for node in graph.node for a in node.attribute)
        for graph in graphs(model.graph)
    )


def label(tensor: TensorProto) -> str:
    return f"the tensor '{tensor.name}'" if tensor.name else "a tensor without a name"


def check(tensor: TensorProto) -> None:
    """Compares what a tensor declares with what is there, before memory is allocated for it."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return  # compared when it is read
    if tensor.data_type == TensorProto.STRING:
        _compare(tensor, _elements(tensor), len(tensor.string_data), "strings")
    elif tensor.HasField("raw_data"):
        check_size(tensor, len(tensor.raw_data))
    else:
        kind, declared = _kind(tensor), _elements(tensor) * _PARTS.get(_kind(tensor), 1)
        packed = -(-declared * _PACKED[kind] // 8) if kind in _PACKED else declared
        _compare(tensor, packed, len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))), "numbers")


def check_size(tensor: TensorProto, size: int) -> None:
    """The same of a tensor whose raw bytes are known to be `size`."""
    bits = _PACKED.get(_kind(tensor)) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    _compare(tensor, -(-_elements(tensor) * bits // 8), size, "bytes")


def _kind(tensor: TensorProto) -> str:
    if tensor.data_type not in helper.get_all_tensor_dtypes():
        raise ModelRefused(f"{label(tensor)} has the element type {tensor.data_type}, which ONNX has not")
    return TensorProto.DataType.Name(tensor.data_type)


def _elements(tensor: TensorProto) -> int:
    if min(tensor.dims, default=0) < 0:
        raise ModelRefused(f"{label(tensor)} declares the shape {list(tensor.dims)}")
    return math.prod(tensor.dims)


def _compare(tensor: TensorProto, declared: int, there: int, unit: str) -> None:
    if declared != there:
        raise ModelRefused(
            f"{label(tensor)} declares the shape {list(tensor.dims)}, which takes {declared} {unit}, and {there} are "
            "there: the file is damaged, or weights were left out of it. Export it again"
        )
