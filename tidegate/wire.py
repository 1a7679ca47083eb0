"""numpy arrays to and from `tidegate.v1.Tensor`.

Pure functions, used by clients and by the server. They know types, shapes and bytes; they do not know models,
sequences, or what a message means.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from tidegate.v1.error_pb2 import REASON_MALFORMED, REASON_WRONG_SHAPE, REASON_WRONG_SIZE, REASON_WRONG_TYPE
from tidegate.v1.tensor_pb2 import ENCODING_VALUES, DataType, Tensor
from tidegate.varints import Fields

Array: TypeAlias = NDArray[Any]
DType: TypeAlias = np.dtype[Any]

# Little-endian whatever the host is: on a little-endian one these are the native types.
_CODES = ("<f4", "<f8", "<f2", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "?")
_DTYPES: dict[int, DType] = {
    DataType.Value(f"DATA_TYPE_{dtype.name.upper()}"): dtype for dtype in map(np.dtype, _CODES)
}
MAX_AXES = 32  # of a tensor: what numpy of every release can hold
_NUMBERS = 2**14  # that are made objects of at a time: each takes ten times the room of a float32
_LITTLE = sys.byteorder == "little"
_LAYOUTS: dict[tuple[int, tuple[int, ...]], tuple[DType, int]] = {}  # of a type and shape that came before: its bytes
_MOST_LAYOUTS = 1_024
_DATA = Fields(Tensor, "data", 2)
_DATA_TYPES: dict[DType, DataType] = {dtype: cast(DataType, code) for code, dtype in _DTYPES.items()}


class WireError(ValueError):
    """A tensor that does not mean anything, or an array that no tensor can carry.

    `reason` is the number of a `tidegate.v1.Reason`; `message` says what was wrong, where, and what was expected.
    """

    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def dtype_of(data_type: int) -> DType:
    """The little-endian numpy type of a `DataType`. Raises WireError (WRONG_TYPE) for a number that is none."""
    dtype = _DTYPES.get(data_type)
    if dtype is None:
        raise WireError(REASON_WRONG_TYPE, f"{data_type} is not a DataType; known are {_span(_DTYPES)}")
    return dtype


def data_type_of(dtype: DType) -> DataType:
    """The `DataType` of a numpy type of any byte order. Raises WireError (WRONG_TYPE) if tensors cannot carry it."""
    code = _DATA_TYPES.get(dtype)
    if code is None:
        code = _DATA_TYPES.get(dtype.newbyteorder("<"))
    if code is None:
        names = ", ".join(known.name for known in _DATA_TYPES)
        raise WireError(REASON_WRONG_TYPE, f"a tensor cannot hold {dtype.name}; it can hold {names}")
    return code


def encode(name: str, array: Array, encoding: int = 0) -> Tensor:
    """An array as a tensor, in row-major order whatever its strides are.

    With ENCODING_VALUES the elements are written as doubles, which a person can read; integers beyond 2^53 are rounded.
    Raises WireError (WRONG_TYPE) if tensors cannot carry the array's type.
    """
    tensor = Tensor()
    encode_to(tensor, name, array, encoding)
    return tensor


def encode_to(tensor: Tensor, name: str, array: Array, encoding: int = 0) -> None:
    """Like `encode`, into an empty tensor that is part of a larger message: nothing is copied twice."""
    code = data_type_of(array.dtype)
    tensor.name = name
    tensor.type = code
    tensor.shape.extend(array.shape)
    if encoding == ENCODING_VALUES:
        flat = array.ravel()
        for start in range(0, flat.size, _NUMBERS):
            tensor.values.extend(flat[start : start + _NUMBERS].astype(np.float64).tolist())
    else:
        little = _LITTLE and array.dtype.isnative
        tensor.data = (array if little else array.astype(_DTYPES[code])).tobytes()


def head(field: Fields, name: str, code: DataType, shape: Sequence[int], size: int) -> bytes:
    """What a tensor begins with as the value of a field, up to its numbers, which take `size` bytes."""
    tensor = Tensor(name=name, type=code, shape=shape).SerializeToString() + (_DATA[size] if size else b"")
    return field[len(tensor) + size] + tensor


def decode(tensor: Tensor, data: bytes | memoryview | None = None) -> Array:
    """A tensor as an array of its type and shape; from `data` a read-only view of the message's own bytes, no copy.

    `data` is given where it lies beside the message.

    Raises WireError: WRONG_TYPE (an unknown type, or elements that do not fit it), WRONG_SHAPE (a negative axis,
    or too many axes), WRONG_SIZE (more or fewer elements than the shape says), MALFORMED (both `data` and `values`).
    """
    axes = tensor.shape
    if len(axes) > MAX_AXES:
        raise WireError(REASON_WRONG_SHAPE, f"{_label(tensor)} has {len(axes)} axes; {MAX_AXES} is the limit")
    shape = tuple(axes)
    layout = _LAYOUTS.get((tensor.type, shape))
    if layout is not None and not tensor.values:
        dtype, size = layout
        data = tensor.data if data is None else data
        if len(data) == size:
            return np.ndarray(shape, dtype, data)
    return _decoded(tensor, shape, tensor.data if data is None else data)


def _decoded(tensor: Tensor, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    dtype = dtype_of(tensor.type)
    if min(shape, default=0) < 0:
        raise WireError(REASON_WRONG_SHAPE, f"{_label(tensor)} has a negative axis in its shape {list(shape)}")
    count = math.prod(shape)
    if tensor.values:
        return _shaped(tensor, _from_values(tensor, dtype, count), shape)
    if len(data) != count * dtype.itemsize:
        raise WireError(REASON_WRONG_SIZE, _wrong_size(tensor, dtype, count, len(data)))
    flat = np.frombuffer(data, dtype)
    if dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
        raise WireError(REASON_WRONG_TYPE, f"{_label(tensor)} is bool and holds a byte that is neither 0 nor 1")
    if dtype.kind != "b" and count and len(_LAYOUTS) < _MOST_LAYOUTS:
        _LAYOUTS[tensor.type, shape] = dtype, len(data)
    return _shaped(tensor, flat, shape)


def _shaped(tensor: Tensor, flat: Array, shape: tuple[int, ...]) -> Array:
    try:
        return flat.reshape(shape)
    except ValueError as error:  # an empty array with an axis beyond all memory
        raise WireError(REASON_WRONG_SHAPE, f"{_label(tensor)} has the shape {list(shape)}: {error}") from None


def _from_values(tensor: Tensor, dtype: DType, count: int) -> Array:
    """The elements of a tensor written by hand, [count], read-only like those that come as bytes."""
    if tensor.data:
        raise WireError(REASON_MALFORMED, f"{_label(tensor)} has both data and values; exactly one of them is expected")
    if len(tensor.values) != count:
        raise WireError(REASON_WRONG_SIZE, _wrong_size(tensor, dtype, count))
    tensor.DiscardUnknownFields()  # so that the values are the last bytes that it is written as: none is an object
    written = tensor.SerializeToString()
    values = np.frombuffer(written, "<f8", count, len(written) - 8 * count)
    if dtype.kind != "f":
        _check_whole(tensor, values, dtype)
    with np.errstate(over="ignore"):  # too large for the type becomes Inf, which a model's check refuses by its name
        flat = values.astype(dtype)
    flat.flags.writeable = False
    return flat


def _check_whole(tensor: Tensor, values: NDArray[np.float64], dtype: DType) -> None:
    """Refuses values that an integer type cannot hold: fractions, NaN, and what lies beyond its range."""
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    # float(2^63 - 1) rounds up to 2^63, which does not fit: compare with the first value beyond the range.
    fits = (values >= float(low)) & (values < float(high + 1)) & (np.floor(values) == values)
    if not fits.all():
        odd = values[~fits][0]
        raise WireError(
            REASON_WRONG_TYPE, f"{_label(tensor)} is {dtype.name} and holds {odd:g}; whole numbers {low} to {high} fit"
        )


def _wrong_size(tensor: Tensor, dtype: DType, elements: int, size: int = 0) -> str:
    expected = f"{elements} elements of {dtype.name} in the shape {list(tensor.shape)}"
    if tensor.values:
        return f"{_label(tensor)} has {len(tensor.values)} values; {expected} were expected"
    return f"{_label(tensor)} has {size} bytes; {expected} take {elements * dtype.itemsize}"


def _label(tensor: Tensor) -> str:
    return f"tensor {tensor.name[:64]!r}" if tensor.name else "the tensor"


def _span(codes: dict[int, DType]) -> str:
    return ", ".join(f"{code} ({dtype.name})" for code, dtype in codes.items())
