"""What a server says about its models, as frozen values. They know the contract's messages and no call."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from tidegate import wire
from tidegate.columns import Column, Legend
from tidegate.columns.words import class_of
from tidegate.v1 import model_pb2 as pb


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output, as one step of one sequence sees it: `shape` is without batch and time.

    `columns` say more of each of its `features`, if the model does; for the last five see `Legend`.
    """

    name: str
    dtype: wire.DType
    shape: tuple[int, ...]
    features: tuple[str, ...]
    units: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    classes: tuple[str, ...] = ()
    timestamp: tuple[str, ...] = ()
    time_format: str = ""
    time_step: str = ""
    series: tuple[str, ...] = ()

    @property
    def legend(self) -> Legend:
        return Legend(self.columns, self.classes, self.timestamp, self.time_format, self.time_step, self.series)

    def class_of(self, scores: wire.Array) -> str:
        """The class of one row of an output that has `classes`: that of the greatest; "" if a score is NaN."""
        return class_of(self.legend, scores)

    @classmethod
    def read(cls, message: pb.TensorSpec) -> "TensorSpec":
        """From the contract's message. Raises WireError (WRONG_TYPE) for a type that this client does not know."""
        dtype = wire.dtype_of(message.type)
        return cls(**_fields(cls, message, dtype=dtype, columns=_columns(message)))


@dataclass(frozen=True, slots=True)
class Layer:
    """One recurrent layer. `kind` is the cell's name, like "LSTM"; `gates` are named as in the equations.

    `quantised`: it computes with 8 bits.
    """

    index: int
    kind: str
    node: str
    input_size: int
    hidden_size: int
    gates: tuple[str, ...]
    activations: tuple[str, ...]
    quantised: bool = False

    @classmethod
    def read(cls, message: pb.Layer) -> "Layer":
        kind = message.cell or _word(pb.CellKind.DESCRIPTOR, message.kind, "CELL_KIND_")
        return cls(**_fields(cls, message, kind=kind))


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A state of a model. `layer` is None where it is no layer's.

    `home` is "server", "interface", "loop" (of the file's `loop`), "ring" (the last elements that the node `loop` of
    the file looks back at) or "reset"; `unseen` says why no gates of it can be shown, "" if they can or if there are
    none.
    """

    layer: int | None
    name: str
    shape: tuple[int, ...]
    home: str
    loop: str
    unseen: str

    @classmethod
    def read(cls, message: pb.StateSpec) -> "StateSpec":
        home = _word(pb.StateHome.DESCRIPTOR, message.home, "STATE_HOME_").lower()
        return cls(**_fields(cls, message, layer=message.layer if message.layer >= 0 else None, home=home))


@dataclass(frozen=True, slots=True)
class Narrowed:
    """How far answers are from the file's because its weights are kept in a narrower type, as its owner asked.

    `error` is the largest difference over so many steps, `share` the largest in parts of the range of its output.
    """

    weights: str
    error: float
    share: float
    steps: int


@dataclass(frozen=True, slots=True)
class Proof:
    """How far the served step graph was from the file, relative to its largest values so far or to 1.

    A file that rounds to 8 bits was compared without its rounding; `unrounded` says how far it was with it.
    """

    max_error: float
    tolerance: float
    steps: int
    rounding: float | None = None
    unread: str = ""  # the node that no rule of reading tells enough of; "": proved for every length and value
    narrowed: Narrowed | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A sequence's state begins anew after so many steps; `last`: only the last of them is answered."""

    steps: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model. `status` is "loading", "ready" or "refused"; what follows `reason` is there if ready."""

    name: str
    version: int
    status: str
    reason: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    state_bytes: int
    sha256: str
    proof: Proof
    metadata: Mapping[str, str] = field(repr=False)  # it may be long
    states: tuple[StateSpec, ...] = ()
    remarks: tuple[str, ...] = ()  # notes on anything unusual about how it is served
    window: Window | None = None  # None: a sequence goes on without end

    @classmethod
    def read(cls, message: pb.Model) -> "Model":
        read = _fields(
            cls,
            message,
            status=_word(pb.ModelStatus.DESCRIPTOR, message.status, "MODEL_STATUS_").lower(),
            inputs=tuple(TensorSpec.read(spec) for spec in message.inputs),
            outputs=tuple(TensorSpec.read(spec) for spec in message.outputs),
            layers=tuple(Layer.read(layer) for layer in message.layers),
            proof=_proof(message.proof),
            metadata=dict(message.metadata),
            states=tuple(StateSpec.read(state) for state in message.states),
            window=Window(message.window.steps, message.window.last) if message.HasField("window") else None,
        )
        return cls(**read)


def _fields(kind_of: type, message: Message, **others: object) -> dict[str, Any]:
    """The values of a dataclass that a message has under the same names, repeated ones as tuples; and the others."""
    names = [field.name for field in fields(kind_of) if field.name not in others]
    plain = {name: getattr(message, name) for name in names}
    return others | {name: value if isinstance(value, str | int) else tuple(value) for name, value in plain.items()}


def _columns(message: pb.TensorSpec) -> tuple[Column, ...]:
    units = [*message.units, *[""] * len(message.features)]
    said = [*message.columns, *[pb.Column()] * (len(message.features) - len(message.columns))]
    return tuple(map(_column, message.features, units, said))


def _column(name: str, unit: str, said: pb.Column) -> Column:
    return Column(
        name,
        unit,
        said.missing,
        tuple(said.categories),
        said.lowest if said.HasField("lowest") else -inf,
        said.highest if said.HasField("highest") else inf,
        said.calendar,
        said.source,
        said.ahead,
    )


def _proof(message: pb.Proof) -> Proof:
    rounding = message.rounding if message.HasField("rounding") else None
    found = message.narrowed
    narrowed = Narrowed(found.weights, found.error, found.share, found.steps) if message.HasField("narrowed") else None
    return Proof(message.max_error, message.tolerance, message.steps, rounding, message.unread, narrowed)


def _word(enum: EnumDescriptor, number: int, prefix: str) -> str:
    """An enum's word without its prefix; a number newer than this client stays a number."""
    known = enum.values_by_number.get(number)
    return known.name.removeprefix(prefix) if known else str(number)
