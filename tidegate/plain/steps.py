"""A single step of a sequence with one input, as nearly all requests are, without a message of protobuf.

Its bytes are those that protobuf writes for the same message.
"""

import numpy as np

from tidegate import wire
from tidegate.inputs import OneInput
from tidegate.v1 import sequence_pb2 as pb
from tidegate.varints import Fields

_STEPS = Fields(pb.StreamRequest, "steps", 2)
_HANDLE, _FIRST_STEP, _ANSWERED = (Fields(pb.Steps, name) for name in ("handle", "first_step", "answered"))


class PlainStep:
    """A request that carries step `first`, whose inputs have no axis for steps; kept for a replay as it is.

    `size` is what it counts in bytes there. `answered`: as in tidegate.v1.Steps.
    """

    __slots__ = ("answered", "data", "end", "first", "handle", "input", "size")

    alone = True

    def __init__(self, handle: int, first: int, part: OneInput, data: bytes) -> None:
        self.handle = handle
        self.first = first
        self.end = first + 1
        self.input = part
        self.data = data
        self.size = 0
        self.answered = 0

    def written(self) -> bytes:
        """Its bytes."""
        numbers = self.input.head + self.data + _ANSWERED[self.answered]
        body = _HANDLE[self.handle] + _FIRST_STEP[self.first] + numbers
        return _STEPS[len(body)] + body

    @property
    def message(self) -> pb.StreamRequest:
        """The same for what is no stream of ours, or is to be changed."""
        return pb.StreamRequest.FromString(self.written())

    def numbers(self, _: int) -> bytes:
        """Those of its only input."""
        return self.data

    def arrays(self) -> dict[str, wire.Array]:
        """Its row by the input's name, [1, ...row]."""
        return {self.input.name: np.ndarray((1, *self.input.row), self.input.dtype, self.data)}


Request = pb.StreamRequest | PlainStep


def written(request: Request) -> bytes:
    """The bytes of a request."""
    return request.written() if isinstance(request, PlainStep) else request.SerializeToString()


def message_of(request: Request) -> pb.StreamRequest:
    """A request as protobuf has it."""
    return request.message if isinstance(request, PlainStep) else request
