"""Names and shapes of the inputs and outputs of a step graph. Pure onnx."""

import numpy as np
import onnx
from onnx import helper

from stepgraph.rewriting.ports import Port


def of_input(port: Port) -> onnx.ValueInfoProto:
    shape: list[int | str] = list(port.shape(1, 1))
    if port.batch is not None:
        shape[port.batch] = "batch"
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), shape)


def of_output(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(port.dtype), None)


def matrix(name: str, dtype: np.dtype) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), ["batch", None])
