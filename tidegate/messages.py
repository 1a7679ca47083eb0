"""Messages of the contract read as the client's own values. Knows messages, and no sequence."""

from collections.abc import Sequence

from tidegate import wire
from tidegate.answers import Array, TraceLayout
from tidegate.errors import ProtocolError, Refused, refused
from tidegate.v1.error_pb2 import Error, Reason
from tidegate.v1.model_pb2 import TraceColumns
from tidegate.v1.tensor_pb2 import Tensor


def read_layout(runs: Sequence[TraceColumns], every: int = 1) -> TraceLayout:
    """Where the parts of a trace stand, from the contract's list of runs of columns."""
    columns: dict[int, dict[str, slice]] = {}
    for run in runs:
        columns.setdefault(run.layer, {})[run.name] = slice(run.offset, run.offset + run.size)
    return TraceLayout(columns, every)


def read_outputs(tensors: Sequence[Tensor]) -> dict[str, Array]:
    if not tensors:
        raise ProtocolError("the server sent an answer without outputs")
    return {tensor.name: read_tensor(tensor) for tensor in tensors}


def read_tensor(tensor: Tensor) -> Array:
    """The array of a tensor that a server sent. Raises ProtocolError if it makes no sense."""
    try:
        return wire.decode(tensor)
    except wire.WireError as error:
        raise ProtocolError(f"the server sent a tensor that makes no sense: {error.message}") from error


def read_refusal(error: Error, expected_step: int | None = None) -> Refused:
    return refused(reason_name(error.reason), error.message, expected_step, error.retry_after_ms / 1e3)


def reason_name(reason: int) -> str:
    known = Reason.DESCRIPTOR.values_by_number.get(reason)
    return known.name.removeprefix("REASON_") if known else str(reason)
