"""The tensors that a model file holds, wherever in it: how many bytes each declares, and how many are there."""

import math
from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto

from stepgraph.errors import ModelRefused

_BITS = {
    **dict.fromkeys(("INT2", "UINT2"), 2),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("BOOL", "INT8", "UINT8", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 8),
    **dict.fromkeys(("FLOAT8E8M0",), 8),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("INT32", "UINT32", "FLOAT"), 32),
    **dict.fromkeys(("INT64", "UINT64", "DOUBLE", "COMPLEX64"), 64),
    **dict.fromkeys(("COMPLEX128",), 128),
}
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


def label(tensor: TensorProto) -> str:
    return f"the tensor '{tensor.name}'" if tensor.name else "a tensor without a name"


def check(tensor: TensorProto) -> None:
    """Compares what a tensor declares with what is there, before anybody makes room for it."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return  # compared when it is read
    if tensor.data_type == TensorProto.STRING:
        _compare(tensor, _elements(tensor), len(tensor.string_data), "strings")
    elif tensor.HasField("raw_data"):
        check_size(tensor, len(tensor.raw_data))
    else:
        fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
        kind, declared = _kind(tensor), _elements(tensor) * _PARTS.get(_kind(tensor), 1)
        packed = -(-declared * _BITS[kind] // 8) if _BITS[kind] < 8 else declared
        _compare(tensor, packed, sum(len(field) for field in fields), "numbers")


def check_size(tensor: TensorProto, size: int) -> None:
    """The same of a tensor whose raw bytes are known to be `size`."""
    _compare(tensor, -(-_elements(tensor) * _BITS[_kind(tensor)] // 8), size, "bytes")


def _kind(tensor: TensorProto) -> str:
    kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else ""
    if kind not in _BITS:
        raise ModelRefused(f"{label(tensor)} has the element type {tensor.data_type}, which ONNX has not")
    return kind


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
