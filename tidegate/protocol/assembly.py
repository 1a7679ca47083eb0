"""Makes the answers that a caller gets from the messages of settled promises. Knows no books."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidegate.answers import Answer, Answers, FleetAnswers, TraceLayout
from tidegate.errors import ProtocolError
from tidegate.messages import read_outputs, read_tensor
from tidegate.plain.answers import PlainAnswer, SomeAnswers
from tidegate.protocol.in_flight import FleetPromise, StepsPromise
from tidegate.protocol.members import HANDLE, STEP, Members
from tidegate.protocol.opening import Opening
from tidegate.v1 import sequence_pb2 as pb


def read_step(promise: StepsPromise) -> Answer:
    message = promise.result()[0]
    if isinstance(message, PlainAnswer):
        outputs, trace = message.row()
    else:
        outputs = read_outputs(message.outputs)
        for name, array in outputs.items():
            outputs[name] = array[0]
        trace = read_tensor(message.trace)[0] if message.HasField("trace") else None
    return Answer(outputs, trace, promise.layout, message.first_step, message.checkpointed)


def read_chunk(promise: StepsPromise) -> Answers:
    parts = promise.result()
    outputs, trace = _read_parts(parts)
    return Answers(outputs, trace, promise.layout, promise.first_step, promise.count, parts[-1].checkpointed)


def read_fleet_step(promise: FleetPromise, opening: Opening) -> FleetAnswers:
    """The answers of a step of a fleet, in the order of the inputs. Raises the error that the promise failed with."""
    parts = promise.result()
    outputs, trace = _read_parts(parts)
    checkpointed = _joined([_checkpointed(part) for part in parts])
    handles = b"".join([part.handles for part in parts])
    if handles != promise.handles:  # they came in another order
        order = _order(promise, np.frombuffer(handles, HANDLE).astype(np.int64) - opening.handle, opening.count)
        outputs = {name: array[order] for name, array in outputs.items()}
        trace = trace if trace is None else trace[_traced_order(promise, order, opening.layout)]
        checkpointed = checkpointed[order]
    return FleetAnswers(outputs, trace, opening.layout, promise.members, promise.steps, checkpointed)


def rows_of(message: SomeAnswers) -> int:
    if isinstance(message, PlainAnswer):
        return 1
    if not message.outputs or not message.outputs[0].shape:
        raise ProtocolError("the server sent an answer without a first axis for its steps")
    return message.outputs[0].shape[0]


def _outputs(message: SomeAnswers | pb.FleetAnswers) -> dict[str, np.ndarray]:
    return message.outputs() if isinstance(message, PlainAnswer) else read_outputs(message.outputs)


def _trace(message: SomeAnswers | pb.FleetAnswers) -> np.ndarray | None:
    if isinstance(message, PlainAnswer):
        return message.trace()
    return read_tensor(message.trace) if message.HasField("trace") else None


def _read_parts(parts: Sequence[SomeAnswers | pb.FleetAnswers]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    blocks = [_outputs(part) for part in parts]
    traces = [trace for part in parts if (trace := _trace(part)) is not None]
    outputs = {name: _joined([block[name] for block in blocks]) for name in blocks[0]}
    return outputs, _joined(traces) if traces else None


def _order(promise: FleetPromise, came: Members, count: int) -> NDArray[np.int64]:
    row_of = np.zeros(count, np.int64)
    row_of[came] = np.arange(len(came))
    return row_of[promise.members]


def _traced_order(promise: FleetPromise, order: NDArray[np.int64], layout: TraceLayout) -> NDArray[np.int64]:
    """The same for the rows of the trace, which only some members may have."""
    traced = layout.traced(promise.steps)
    came = np.zeros(len(order), np.int64)
    came[order] = traced
    return (np.cumsum(came) - 1)[order[traced]]


def _checkpointed(part: pb.FleetAnswers) -> NDArray[np.uint64]:
    if part.checkpointed:
        return np.frombuffer(part.checkpointed, STEP)
    return np.zeros(len(part.handles) // HANDLE.itemsize, np.uint64)


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
