"""What keeps a sound file from being served however it is read: ports that no message carries."""

import onnx
from onnx import TensorProto

from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.graphs.graph import Graph

TYPES = ("FLOAT16", "FLOAT", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL")
_CARRIED = frozenset(map(TensorProto.DataType.Value, TYPES))


def check(model: onnx.ModelProto) -> None:
    """Raises ModelRefused with the port, and what to do about it."""
    for info in Graph(model).inputs.values():
        if _strange(info):
            raise ModelRefused(
                f"input '{info.name}' takes {_kind(info)}, and only tensors of numbers can be sent. {_advice(info)}"
            )
    for info in model.graph.output:
        if _strange(info):
            raise ModelRefused(
                f"output '{info.name}' returns {_kind(info)}, and only tensors of numbers can be sent. Leave it out by "
                f'`leave_out = ["{info.name}"]` in {sidecar.FILE} beside the file, under [outputs], and name its '
                "classes in the metadata"
            )


def _strange(info: onnx.ValueInfoProto) -> bool:
    """Whether a port holds what no message carries. A port without a type passes: a run shows it."""
    kind = info.type.tensor_type.elem_type
    other = info.type.WhichOneof("value") not in (None, "tensor_type")
    return other or (kind != TensorProto.UNDEFINED and kind not in _CARRIED)


def _advice(info: onnx.ValueInfoProto) -> str:
    match info.type.WhichOneof("value"), info.type.tensor_type.elem_type:
        case "tensor_type", TensorProto.STRING:
            return (
                "Let clients send the index of each word or category, and leave the table that makes numbers of text "
                "out of the graph"
            )
        case "tensor_type", _:
            return "Let the file take float32, and cast it to that type by itself"
    return "Export the file with a tensor in its place, which clients always send or the file starts from zeros"


def _kind(info: onnx.ValueInfoProto) -> str:
    if info.type.WhichOneof("value") != "tensor_type":
        return f"a value that is no tensor ({info.type.WhichOneof('value').removesuffix('_type')})"
    name = TensorProto.DataType.Name(info.type.tensor_type.elem_type)
    return "text (strings)" if name == "STRING" else f"numbers of the type {name.lower()}"
