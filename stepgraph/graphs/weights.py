"""Large weights of a model, kept beside its messages: a graph is copied many times, and they are not.

A tensor whose value is kept here says that it is external and names a key. Whoever takes values out of a model keeps
the arrays for as long as it, or a copy of it, is used; two copies share them.
"""

import math
from collections.abc import Mapping
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stepgraph.graphs.nodes import graphs, with_inner

LARGE = 2**24  # bytes of a tensor
_KEY = "location"
_KEPT: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()


def take(graph: onnx.GraphProto) -> list[np.ndarray]:
    """Takes the values of large initialisers out of a graph. A message gives their memory back when it is copied."""
    inside = (tensor for tensor in graph.initializer if tensor.data_location != TensorProto.EXTERNAL)
    return [_put(tensor, numpy_helper.to_array(tensor)) for tensor in inside if is_large(tensor)]


def put(tensor: TensorProto, data: memoryview) -> np.ndarray:
    """Makes these bytes the value of a tensor, which keeps its type and shape."""
    array = np.frombuffer(data, helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tensor.dims)
    return _put(tensor, array if array.flags.aligned else array.copy())


def beside(array: np.ndarray, name: str) -> TensorProto:
    """A tensor whose value is kept here."""
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
    _put(tensor, array)
    return tensor


def _put(tensor: TensorProto, array: np.ndarray) -> np.ndarray:
    name, kind, dims, key = tensor.name, tensor.data_type, list(tensor.dims), f"kept/{uuid4().hex}"
    _KEPT[key] = array
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.data_location = name, kind, TensorProto.EXTERNAL
    tensor.dims.extend(dims)
    tensor.external_data.add(key=_KEY, value=key)
    return array


def is_large(tensor: TensorProto) -> bool:
    """Whether a tensor has so many bytes that it is worth it, and numpy has the type of its elements."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return dtype.kind in "biuf" and math.prod(tensor.dims) * dtype.itemsize >= LARGE


def array(tensor: TensorProto) -> np.ndarray:
    """A tensor's value, wherever it is kept; not to be changed."""
    kept = _kept(tensor)
    return numpy_helper.to_array(tensor) if kept is None else kept


def of(model: onnx.ModelProto) -> Mapping[str, np.ndarray]:
    """The values of initialisers that are kept here and used, by name."""
    found = {tensor.name: value for tensor in model.graph.initializer if (value := _kept(tensor)) is not None}
    if not found:
        return found
    used = {name for node in with_inner(model.graph.node) for name in node.input}
    inner = {info.name for graph in graphs(model.graph) for info in graph.output}
    return {name: value for name, value in found.items() if name in used | inner}


def is_kept(tensor: TensorProto) -> bool:
    return _kept(tensor) is not None


def _kept(tensor: TensorProto) -> np.ndarray | None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    return _KEPT.get(next((entry.value for entry in tensor.external_data if entry.key == _KEY), ""))


def whole(tensor: TensorProto) -> TensorProto:
    """The tensor with its value in it."""
    kept = _kept(tensor)
    return tensor if kept is None else numpy_helper.from_array(kept, tensor.name)


def as_inputs(model: onnx.ModelProto) -> None:
    """Makes inputs of the initialisers that are kept here, for those who read a model and cannot reach them."""
    kept = {t.name: value for t in model.graph.initializer if (value := _kept(t)) is not None}
    given = {info.name for info in model.graph.input}
    rest = [tensor for tensor in model.graph.initializer if tensor.name not in kept]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in kept.items()
        if name not in given
    ]
    del model.graph.initializer[:]
    model.graph.initializer.extend(rest)
    model.graph.input.extend(infos)
