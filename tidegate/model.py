"""What a server says about its models, as frozen values. They know the contract's messages and no call."""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import EnumDescriptor

from tidegate import wire
from tidegate.v1 import model_pb2 as pb


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output, as one step of one sequence sees it: `shape` is without batch and time."""

    name: str
    dtype: wire.DType
    shape: tuple[int, ...]
    features: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def read(cls, message: pb.TensorSpec) -> "TensorSpec":
        """From the contract's message. Raises WireError (WRONG_TYPE) for a type that this client does not know."""
        dtype = wire.dtype_of(message.type)
        return cls(message.name, dtype, tuple(message.shape), tuple(message.features), tuple(message.units))


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
        """From the contract's message."""
        return cls(
            index=message.index,
            kind=message.cell or _word(pb.CellKind.DESCRIPTOR, message.kind, "CELL_KIND_"),
            node=message.node,
            input_size=message.input_size,
            hidden_size=message.hidden_size,
            gates=tuple(message.gates),
            activations=tuple(message.activations),
            quantised=message.quantised,
        )


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A state of a model. `layer` is None where it is no layer's.

    `home` is "server", "interface", "loop" (of the file's `loop`) or "reset"; `unseen` says why no gates of it can be
    shown, "" if they can or if there are none.
    """

    layer: int | None
    name: str
    shape: tuple[int, ...]
    home: str
    loop: str
    unseen: str

    @classmethod
    def read(cls, message: pb.StateSpec) -> "StateSpec":
        """From the contract's message."""
        return cls(
            layer=message.layer if message.layer >= 0 else None,
            name=message.name,
            shape=tuple(message.shape),
            home=_word(pb.StateHome.DESCRIPTOR, message.home, "STATE_HOME_").lower(),
            loop=message.loop,
            unseen=message.unseen,
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """How far the served step graph was from the file, relative to its largest values so far or to 1.

    A file that rounds to 8 bits was compared without its rounding; `unrounded` says how far it was with it.
    """

    max_error: float
    tolerance: float
    steps: int
    rounding: float | None = None


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
    metadata: Mapping[str, str]
    states: tuple[StateSpec, ...] = ()
    remarks: tuple[str, ...] = ()  # notes on anything unusual about how it is served

    @classmethod
    def read(cls, message: pb.Model) -> "Model":
        """From the contract's message."""
        return cls(
            name=message.name,
            version=message.version,
            status=_word(pb.ModelStatus.DESCRIPTOR, message.status, "MODEL_STATUS_").lower(),
            reason=message.reason,
            inputs=tuple(TensorSpec.read(spec) for spec in message.inputs),
            outputs=tuple(TensorSpec.read(spec) for spec in message.outputs),
            layers=tuple(Layer.read(layer) for layer in message.layers),
            state_bytes=message.state_bytes,
            sha256=message.sha256,
            proof=_proof(message.proof),
            metadata=dict(message.metadata),
            states=tuple(StateSpec.read(state) for state in message.states),
            remarks=tuple(message.remarks),
        )


def _proof(message: pb.Proof) -> Proof:
    rounding = message.rounding if message.HasField("rounding") else None
    return Proof(message.max_error, message.tolerance, message.steps, rounding)


def _word(enum: EnumDescriptor, number: int, prefix: str) -> str:
    """An enum's word without its prefix; a number newer than this client stays a number."""
    known = enum.values_by_number.get(number)
    return known.name.removeprefix(prefix) if known else str(number)
