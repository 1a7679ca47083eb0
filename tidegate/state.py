"""The state of a sequence as a value: taken out of one, kept in a file, given to another. Knows no connection."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zipfile import BadZipFile

import numpy as np

from tidegate import wire
from tidegate.errors import TidegateError
from tidegate.messages import read_tensor
from tidegate.v1 import sequence_pb2 as pb

# Which array of a state: the layer's index (-1: state that the model shows itself and no cell owns), and "hidden",
# "cell" or the name of the model's input that takes it.
Part = tuple[int, str]

_FORMAT = 1


class BadState(TidegateError):
    """A file that holds no state, or one of a later format; the message says which."""


@dataclass(frozen=True, eq=False)
class State:
    """What a sequence carried after `step` steps: an array [...one row] for each part, by (layer, name).

    Give it to `client.sequence(model, state=...)`: the new sequence begins at `step`. Equal if every number is, bit for
    bit.
    """

    model: str
    version: int
    step: int
    arrays: Mapping[Part, wire.Array] = field(repr=False)

    @classmethod
    def read(cls, message: pb.State) -> "State":
        """From the contract's message. Raises ProtocolError."""
        arrays = {(part.layer, part.name): read_tensor(part.value) for part in message.parts}
        return cls(message.model, message.version, message.step, arrays)

    def message(self) -> pb.State:
        """As the contract writes it. Raises WireError for an array that no tensor can carry."""
        state = pb.State(model=self.model, version=self.version, step=self.step)
        for (layer, name), array in self.arrays.items():
            part = state.parts.add(layer=layer, name=name)
            wire.encode_to(part.value, "", np.asarray(array))
        return state

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a NumPy .npz file of that name, which `load` reads and any numpy can look into."""
        pending: dict[str, Any] = {"format": _FORMAT, "model": self.model, "version": self.version, "step": self.step}
        pending["layers"] = np.array([layer for layer, _ in self.arrays], np.int32)
        pending["names"] = np.array([name for _, name in self.arrays], np.str_)
        pending |= {f"part{at}": array for at, array in enumerate(self.arrays.values())}
        with open(path, "wb") as file:  # noqa: PTH123 - savez would add a suffix to a path
            np.savez(file, **pending)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "State":
        """From a file that `save` wrote. Raises BadState, OSError."""
        try:
            with np.load(path, allow_pickle=False) as file:
                if int(file["format"]) != _FORMAT:
                    raise BadState(f"{os.fspath(path)} is a state of format {file['format']}; {_FORMAT} is known here")
                keys = zip(file["layers"].tolist(), file["names"].tolist(), strict=True)
                arrays = {key: file[f"part{at}"] for at, key in enumerate(keys)}
                return cls(str(file["model"]), int(file["version"]), int(file["step"]), arrays)
        except (KeyError, ValueError, BadZipFile, AttributeError, EOFError):
            raise BadState(f"{os.fspath(path)} holds no state of a sequence") from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        head, others = (self.model, self.version, self.step), (other.model, other.version, other.step)
        return head == others and _same(self.arrays, other.arrays)

    __hash__ = None  # type: ignore[assignment] # arrays have none


def _same(ours: Mapping[Part, wire.Array], theirs: Mapping[Part, wire.Array]) -> bool:
    def bits(array: wire.Array) -> tuple[object, ...]:
        return array.dtype, array.shape, array.tobytes()

    return ours.keys() == theirs.keys() and all(bits(array) == bits(theirs[key]) for key, array in ours.items())
