"""The opening of sequences: what is asked for, and what came of it."""

from dataclasses import dataclass

from tidegate.answers import TraceLayout
from tidegate.inputs import InputLayout
from tidegate.trace import Trace
from tidegate.v1 import sequence_pb2 as pb

_USUAL_LIMIT = 4 * 2**20  # of a message, where a server does not say: gRPC's own


@dataclass(frozen=True, slots=True)
class Order:
    """What to open: `count` sequences of a model (version 0: the newest), and what of their inside to show."""

    model: str
    version: int
    count: int
    trace: Trace

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a fleet of {self.count}: it needs at least one member")

    def request(self, handle: int) -> pb.StreamRequest:
        """The message that opens them under `handle` and the numbers after it."""
        opening = pb.Open(
            handle=handle, count=self.count, model=self.model, version=self.version, trace=self.trace.message()
        )
        return pb.StreamRequest(open=opening)


@dataclass(frozen=True, slots=True)
class Opening:
    """What was opened: where it is, and what it takes to write its inputs and to read its answers."""

    handle: int
    count: int
    ids: tuple[str, ...]
    model: str
    version: int
    inputs: InputLayout
    layout: TraceLayout
    max_message_bytes: int = _USUAL_LIMIT

    @classmethod
    def read(cls, order: Order, opened: pb.Opened, inputs: InputLayout) -> "Opening":
        """From the server's answer to an order."""
        return cls(
            handle=opened.handle,
            count=order.count,
            ids=tuple(opened.sequence_ids),
            model=opened.model,
            version=opened.version,
            inputs=inputs,
            layout=TraceLayout.read(opened.trace, order.trace.every),
            max_message_bytes=opened.max_message_bytes or _USUAL_LIMIT,
        )
