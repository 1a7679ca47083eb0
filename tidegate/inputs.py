"""What a caller passes in, checked and written as the tensors of one model. Knows its inputs and no sequence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidegate import wire
from tidegate.columns import Input, Limits, RowError, Rows
from tidegate.errors import refused
from tidegate.model import TensorSpec
from tidegate.v1.sequence_pb2 import FleetSteps, Steps
from tidegate.v1.tensor_pb2 import DataType
from tidegate.v1.tidegate_pb2 import PredictRequest
from tidegate.varints import Fields

# One input: anything that numpy takes as an array. Several: an array for each input's name. Or a row as a mapping from
# the names of its columns to what a table has there, also a text or a datetime; and for many rows a list of these.
Inputs = Any

# The messages that carry inputs.
Carrier = Steps | FleetSteps | PredictRequest

# What a message costs at most besides names and rows: tags, lengths, numbers; and each of its tensors, with each axis.
_MESSAGE_BYTES, _TENSOR_BYTES, _AXIS_BYTES = 48, 32, 10

_INPUT = Fields(Steps, "inputs", 2)

# Kinds of numpy's types whose names say little.
_NOT_NUMBERS = {"U": "text", "S": "bytes", "O": "Python objects"}


class OneInput:
    """One input of a model: turns arrays of its row shape into tensors.

    `head` is what a row begins with as the input of a Steps message, up to its numbers.
    """

    __slots__ = ("_limits", "_type", "dtype", "head", "name", "row")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.dtype = spec.dtype
        self.row = spec.shape
        self._type: DataType = wire.data_type_of(spec.dtype)
        self._limits = Limits(spec.name, spec.shape, spec.dtype, spec.legend)
        self.head = wire.head(_INPUT, spec.name, self._type, spec.shape, math.prod(spec.shape) * spec.dtype.itemsize)

    def array(self, values: Inputs) -> wire.Array:
        """The values in the model's type. Raises BadInput (WRONG_TYPE) where that would change what they mean."""
        if isinstance(values, np.ndarray) and values.dtype == self.dtype:
            return values
        try:
            array = np.asarray(values)
        except ValueError as error:  # rows of different lengths
            raise refused("WRONG_SHAPE", f"input {self.name!r} is no array: {error}") from None
        if not (np.can_cast(array.dtype, self.dtype, "same_kind") or self._harmless(array)):
            came = _NOT_NUMBERS.get(array.dtype.kind, array.dtype.name)
            raise refused("WRONG_TYPE", f"input {self.name!r} is {self.dtype.name}; an array of {came} came")
        with np.errstate(over="ignore"):  # beyond the type's range is Inf, which the server refuses by its name
            return array.astype(self.dtype)

    def _harmless(self, array: wire.Array) -> bool:
        """Whether an integer input gets integers (of another width or sign) that all fit."""
        if self.dtype.kind not in "iu" or array.dtype.kind not in "iub" or not array.size:
            return not array.size
        limits = np.iinfo(self.dtype)
        return bool(limits.min <= int(array.min()) and int(array.max()) <= limits.max)

    def write(self, array: wire.Array, message: Carrier) -> None:
        message.inputs.add(name=self.name, type=self._type, shape=array.shape, data=array.tobytes())

    def check_numbers(self, array: wire.Array) -> None:
        if not self._limits.hold(array):
            fault = self._limits.fault(array)
            raise refused("OUT_OF_RANGE" if fault.finite else "NOT_FINITE", fault.sentence)


@dataclass(slots=True, eq=False)  # frozen it would take three times as long to make, for each step
class Block:
    """Inputs that fit their model: one row, or the `rows` of many steps or sequences from number `first` on."""

    parts: Sequence[OneInput]
    arrays: Sequence[wire.Array]
    rows: int = 1
    first: int = 0

    @property
    def size(self) -> int:
        arrays = self.arrays
        return arrays[0].nbytes if len(arrays) == 1 else sum([array.nbytes for array in arrays])

    @property
    def alone(self) -> bool:
        """Whether it is one row without an axis for rows."""
        return self.arrays[0].ndim == len(self.parts[0].row)

    def write(self, message: Carrier) -> None:
        """Writes a tensor for each input, straight into the message that carries them: nothing is copied twice."""
        for part, array in zip(self.parts, self.arrays, strict=True):
            part.write(array, message)

    def cut(self, most: int) -> "list[Block]":
        """Runs of at most so many rows, for a message each. Raises BadInput.

        The server checks each message by itself: a number that it would refuse is refused here, or the messages before
        it would have changed the sequence.
        """
        if self.rows <= most:
            return [self]
        for part, array in zip(self.parts, self.arrays, strict=True):
            part.check_numbers(array)
        return [self._run(at, min(most, self.rows - at)) for at in range(0, self.rows, most)]

    def _run(self, at: int, rows: int) -> "Block":
        return Block(self.parts, [array[at : at + rows] for array in self.arrays], rows, self.first + at)


class InputLayout:
    """The inputs of one model version."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._inputs = tuple(OneInput(spec) for spec in specs)
        self.rows = Rows([Input(spec.name, spec.shape, spec.dtype.kind != "f", spec.legend) for spec in specs])
        self.single = self._inputs[0] if len(self._inputs) == 1 else None
        self.row_bytes = max(1, sum(math.prod(part.row) * part.dtype.itemsize for part in self._inputs))

    def row(self, values: Inputs) -> tuple[OneInput, bytes] | None:
        """The only input and its numbers, where they are an array of its type and shape; else None."""
        single = self.single
        if single is None or type(values) is not np.ndarray:
            return None
        fits = values.shape == single.row and values.dtype == single.dtype
        return (single, values.tobytes()) if fits else None

    def step(self, values: Inputs) -> Block:
        arrays = self._arrays(values)
        for part, array in zip(self._inputs, arrays, strict=True):
            if array.shape != part.row:
                raise _wrong_shape(part, array, list(part.row))
        return Block(self._inputs, arrays)

    def block(self, values: Inputs, axis: str = "steps", rows: int | None = None) -> Block:
        """Many rows: each array is [rows, ...the model's row]. `axis` names the rows in an error."""
        arrays = self._arrays(values)
        expected = rows if rows is not None else (arrays[0].shape[0] if arrays[0].ndim else 0)
        for part, array in zip(self._inputs, arrays, strict=True):
            if array.shape != (expected, *part.row):
                raise _wrong_shape(part, array, [axis if rows is None else rows, *part.row])
        return Block(self._inputs, arrays, expected)

    def rows_within(self, limit: int, extra: int = 0) -> int:
        """How many rows a message of `limit` bytes holds, each with `extra` bytes besides. Raises BadInput for none."""
        frame = _MESSAGE_BYTES + sum(_frame_bytes(part) for part in self._inputs)
        row = extra + self.row_bytes
        if frame + row > limit:
            raise refused("TOO_LARGE", f"one row takes {frame + row} bytes; this server takes {limit} in a message")
        return (limit - frame) // row

    def _arrays(self, values: Inputs) -> list[wire.Array]:
        # nearly always it is an array, which has no names to look for
        if isinstance(values, np.ndarray) or not isinstance(values := self._by_input(values), Mapping):
            if self.single is None:
                raise refused("WRONG_NAME", f"the model has the inputs {self._names()}: give an array for each name")
            return [self.single.array(values)]
        if values.keys() != {part.name for part in self._inputs}:
            raise refused("WRONG_NAME", f"the model has the inputs {self._names()}; {_listed(values)} came")
        return [part.array(values[part.name]) for part in self._inputs]

    def _by_input(self, values: Inputs) -> Inputs:
        """The same; a row by its columns, or a list of such rows, as an array for each input. Raises BadInput."""
        many = isinstance(values, list | tuple) and bool(values) and isinstance(values[0], Mapping)
        if not many and not (isinstance(values, Mapping) and self._is_row(values)):
            return values
        try:
            rows = list(map(self.rows.named_row, values)) if many else self.rows.named_row(values)
            return self.rows.arrays(np.array(rows))
        except RowError as error:
            raise refused(error.reason, str(error)) from None

    def _is_row(self, values: Mapping[str, Any]) -> bool:
        """Whether these are the columns of a row, and no arrays by the names of inputs."""
        if values.keys() == {part.name for part in self._inputs}:
            return any(value is None or isinstance(value, str) for value in values.values())
        return self.rows.named and not any(map(np.ndim, values.values()))

    def _names(self) -> str:
        return _listed([part.name for part in self._inputs])


def _frame_bytes(part: OneInput) -> int:
    return _TENSOR_BYTES + len(part.name.encode()) + _AXIS_BYTES * (len(part.row) + 1)


def _wrong_shape(part: OneInput, array: wire.Array, expected: list[int | str] | list[int]) -> Exception:
    wanted = ", ".join(str(axis) for axis in expected)
    return refused("WRONG_SHAPE", f"input {part.name!r} has the shape {list(array.shape)}; [{wanted}] was expected")


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
