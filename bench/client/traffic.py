"""A client's side of a sequence, or of a fleet: what it sends next, and whether an answer is the one it waits for.

It knows the contract and no network: the loop that sends and reads is in load.py.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.scenario import FEATURES, OUTPUTS, Scenario
from tidegate.v1 import sequence_pb2, tensor_pb2

METHOD = "/tidegate.v1.Tidegate/Stream"
# How many different rows a sequence sends before it begins again.
PERIOD = 50


class WrongAnswerError(Exception):
    """A server answered something else than was asked."""


class Traffic(Protocol):
    """One closed loop: `send`, then `take` until it says that the answer is whole."""

    # The method of its protocol.
    method: str

    def opening(self) -> sequence_pb2.StreamRequest | None:
        """Open what is needed."""

    def send(self) -> bytes:
        """Give the next message."""

    def parse(self, message: bytes) -> Any:  # noqa: ANN401 # a message of its protocol
        """Read an answer."""

    def concerned(self, response: Any) -> int:  # noqa: ANN401 # likewise
        """Which of the loops on a stream an answer is for."""

    def take(self, response: Any) -> bool:  # noqa: ANN401 # likewise
        """Check an answer; true if the message sent last is answered whole."""

    def closing(self) -> sequence_pb2.StreamRequest | None:
        """Close what was opened."""


def rows(seed: int, steps: int) -> npt.NDArray[np.float32]:
    """Give a sequence its inputs, [steps, features], the same in every process; they repeat after PERIOD steps."""
    period = np.random.default_rng(seed).standard_normal((PERIOD, FEATURES), dtype=np.float32)
    return np.resize(period, (steps, FEATURES))


def opening(scenario: Scenario, handle: int, count: int) -> sequence_pb2.StreamRequest:
    """Open sequences of the scenario's model, with every trace or none."""
    trace = sequence_pb2.TraceSelection(none=not scenario.traces)
    wanted = sequence_pb2.Open(handle=handle, count=count, model=scenario.model, trace=trace)
    wanted.bundle = scenario.layout == "bundled"
    return sequence_pb2.StreamRequest(open=wanted)


def closing(handle: int, count: int) -> sequence_pb2.StreamRequest:
    return sequence_pb2.StreamRequest(close=sequence_pb2.Close(handle=handle, count=count))


class OneSequence:
    """One sequence, one step or one chunk in a message."""

    method = METHOD

    def __init__(self, scenario: Scenario, handle: int, *, unchecked: bool = False) -> None:
        self._scenario, self._handle, self._unchecked = scenario, handle, unchecked
        self._places = cycle(range(scenario.sequences))  # an echo answers in the order in which it is asked
        self._chunks = list(chunks(scenario.steps, handle))
        self._request = sequence_pb2.StreamRequest()
        self._steps = self._request.steps
        self._steps.handle = handle
        self._tensor = self._steps.inputs.add(type=tensor_pb2.DATA_TYPE_FLOAT32, shape=(scenario.steps, FEATURES))
        self._sent = self._answered = 0

    def opening(self) -> sequence_pb2.StreamRequest:
        return opening(self._scenario, self._handle, 1)

    def send(self) -> bytes:
        self._steps.first_step = self._sent
        self._steps.answered = self._answered
        self._tensor.data = self._chunks[self._sent // self._scenario.steps % len(self._chunks)]
        self._sent += self._scenario.steps
        return self._request.SerializeToString()

    def parse(self, message: bytes) -> sequence_pb2.StreamResponse:
        return sequence_pb2.StreamResponse.FromString(message)

    def concerned(self, response: sequence_pb2.StreamResponse) -> int:
        return next(self._places) if self._unchecked else response.answers.handle

    def take(self, response: sequence_pb2.StreamResponse) -> bool:
        answers = response.answers
        right = answers.handle == self._handle and answers.first_step == self._answered
        if not (right or self._unchecked) or not answers.outputs:
            raise WrongAnswerError(f"sequence {self._handle} waited for step {self._answered}, got {response}")
        self._answered += answers.outputs[0].shape[0]
        return self._answered == self._sent

    def closing(self) -> sequence_pb2.StreamRequest:
        return closing(self._handle, 1)


def chunks(steps: int, seed: int) -> Iterator[bytes]:
    """Cut a sequence's inputs into the data of its messages, up to where they repeat."""
    length = int(np.lcm(PERIOD, steps))
    for chunk in np.split(rows(seed, length), length // steps):
        yield chunk.tobytes()


class OneFleet:
    """One step of each of many sequences in a message."""

    method = METHOD

    def __init__(self, scenario: Scenario) -> None:
        self._scenario, self._count = scenario, scenario.sequences
        self._rows = fleet_rows(scenario.sequences)
        self._request = sequence_pb2.StreamRequest()
        self._fleet = self._request.fleet
        self._fleet.handles = np.arange(self._count, dtype="<u4").tobytes()
        self._tensor = self._fleet.inputs.add(type=tensor_pb2.DATA_TYPE_FLOAT32, shape=(self._count, FEATURES))
        self._step, self._missing = -1, np.zeros(self._count, bool)

    def opening(self) -> sequence_pb2.StreamRequest:
        return opening(self._scenario, 0, self._count)

    def send(self) -> bytes:
        self._step += 1
        self._fleet.steps = np.full(self._count, self._step, "<u8").tobytes()
        self._tensor.data = self._rows[self._step % PERIOD]
        self._missing[:] = True
        return self._request.SerializeToString()

    def parse(self, message: bytes) -> sequence_pb2.StreamResponse:
        return sequence_pb2.StreamResponse.FromString(message)

    def concerned(self, _response: sequence_pb2.StreamResponse) -> int:
        return 0

    def take(self, response: sequence_pb2.StreamResponse) -> bool:
        answers = response.fleet
        handles = np.frombuffer(answers.handles, "<u4")
        steps = np.frombuffer(answers.steps, "<u8")
        sized = sum(len(output.data) for output in answers.outputs) == 4 * OUTPUTS * len(handles)
        if not (len(handles) and sized and (steps == self._step).all() and self._missing[handles].all()):
            got = response.failure.error.message or f"steps {set(steps.tolist())}"
            raise WrongAnswerError(f"the fleet waited for step {self._step}, got {got}")
        self._missing[handles] = False
        return not self._missing.any()

    def closing(self) -> sequence_pb2.StreamRequest:
        return closing(0, self._count)


def fleet_rows(count: int) -> list[bytes]:
    """Give each step of a fleet its rows, [sequences, features], up to where they repeat."""
    inputs = np.stack([rows(handle, PERIOD) for handle in range(count)], axis=1)
    return [step.tobytes() for step in inputs]
