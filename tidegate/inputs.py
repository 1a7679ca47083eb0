"""What a caller passes in, as the tensors of one model. Knows the model's inputs and no sequence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidegate import wire
from tidegate.errors import refused
from tidegate.model import TensorSpec
from tidegate.v1.tensor_pb2 import DataType, Tensor

# One input: anything that numpy takes as an array. Several: an array for each input's name.
Inputs = Any


@dataclass(frozen=True, slots=True)
class Block:
    """The inputs of `rows` steps (or of one step of `rows` sequences), ready to send."""

    tensors: list[Tensor]
    rows: int


class _Input:
    """One input of a model: turns arrays of its row shape into tensors."""

    __slots__ = ("_type", "dtype", "name", "row")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.dtype = spec.dtype
        self.row = spec.shape
        self._type: DataType = wire.data_type_of(spec.dtype)

    def array(self, values: Inputs) -> wire.Array:
        """The values in the model's type. Raises BadInput (WRONG_TYPE) where that would change what they mean."""
        if isinstance(values, np.ndarray) and values.dtype == self.dtype:
            return values
        try:
            array = np.asarray(values)
        except ValueError as error:  # rows of different lengths
            raise refused("WRONG_SHAPE", f"input {self.name!r} is no array: {error}") from None
        if not (np.can_cast(array.dtype, self.dtype, "same_kind") or self._harmless(array)):
            raise refused("WRONG_TYPE", f"input {self.name!r} is {self.dtype.name}; an array of {array.dtype} came")
        with np.errstate(over="ignore"):  # beyond the type's range is Inf, which the server refuses by its name
            return array.astype(self.dtype)

    def _harmless(self, array: wire.Array) -> bool:
        """Whether an integer input gets integers (of another width or sign) that all fit."""
        if self.dtype.kind not in "iu" or array.dtype.kind not in "iub" or not array.size:
            return not array.size
        limits = np.iinfo(self.dtype)
        return bool(limits.min <= int(array.min()) and int(array.max()) <= limits.max)

    def tensor(self, array: wire.Array) -> Tensor:
        return Tensor(name=self.name, type=self._type, shape=array.shape, data=array.tobytes())


class InputLayout:
    """The inputs of one model version."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._inputs = tuple(_Input(spec) for spec in specs)
        self._single = self._inputs[0] if len(self._inputs) == 1 else None

    def step(self, values: Inputs) -> list[Tensor]:
        """The tensors of one step; each array has exactly the shape of the model's row."""
        single = self._single
        if single is not None and not isinstance(values, Mapping):
            array = single.array(values)
            if array.shape != single.row:
                raise _wrong_shape(single, array, list(single.row))
            return [single.tensor(array)]
        arrays = self._arrays(values)
        for part, array in zip(self._inputs, arrays, strict=True):
            if array.shape != part.row:
                raise _wrong_shape(part, array, list(part.row))
        return [part.tensor(array) for part, array in zip(self._inputs, arrays, strict=True)]

    def block(self, values: Inputs, axis: str = "steps", rows: int | None = None) -> Block:
        """The tensors of many rows: each array is [rows, ...the model's row]. `axis` names the rows in an error."""
        arrays = self._arrays(values)
        expected = rows if rows is not None else (arrays[0].shape[0] if arrays[0].ndim else 0)
        for part, array in zip(self._inputs, arrays, strict=True):
            if array.shape != (expected, *part.row):
                raise _wrong_shape(part, array, [axis if rows is None else rows, *part.row])
        return Block([part.tensor(array) for part, array in zip(self._inputs, arrays, strict=True)], expected)

    def _arrays(self, values: Inputs) -> list[wire.Array]:
        if not isinstance(values, Mapping):
            if self._single is None:
                raise refused("WRONG_NAME", f"the model has the inputs {self._names()}: give an array for each name")
            return [self._single.array(values)]
        if values.keys() != {part.name for part in self._inputs}:
            raise refused("WRONG_NAME", f"the model has the inputs {self._names()}; {_listed(values)} came")
        return [part.array(values[part.name]) for part in self._inputs]

    def _names(self) -> str:
        return _listed([part.name for part in self._inputs])


def _wrong_shape(part: _Input, array: wire.Array, expected: list[int | str] | list[int]) -> Exception:
    wanted = ", ".join(str(axis) for axis in expected)
    return refused("WRONG_SHAPE", f"input {part.name!r} has the shape {list(array.shape)}; [{wanted}] was expected")


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
