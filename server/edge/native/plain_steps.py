"""Reads steps of one sequence with one input, which nearly all requests are, without protobuf.

They are read here if they are as protobuf writes them, and if the name, the type and the shape of their input came
before. Whatever else there is, protobuf reads: what both read is the same.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidegate import wire
from tidegate.v1 import sequence_pb2
from tidegate.varints import A_HANDLE, A_NUMBER, NUMBER, Fields, tag

_MOST = 16  # layouts
_LARGEST = 2**15  # bytes of an input, and of what it begins with
_INPUTS = Fields(sequence_pb2.Steps, "inputs", 2)


def _field(kind: Any, name: str, pattern: bytes) -> bytes:  # noqa: ANN401 # a message's type
    """A field that is left out where it is 0."""
    return b"(?:%s(%s))?" % (re.escape(tag(kind, name, 0)), pattern)


class Layout:
    """What the inputs of many requests have in common: name, type and shape.

    Args:
        head: the field of an input of these up to its numbers.
        array: one of them.
    """

    def __init__(self, name: str, head: bytes, array: np.ndarray) -> None:
        self.name, self.shape, self.dtype = name, array.shape, array.dtype
        request, steps = sequence_pb2.StreamRequest, sequence_pb2.Steps
        body = b"%s(%s)%s%s%s(.{%d})%s" % (
            re.escape(tag(request, "steps", 2)),
            A_NUMBER,
            _field(steps, "handle", A_HANDLE),
            _field(steps, "first_step", A_NUMBER),
            re.escape(head),
            array.nbytes,
            _field(steps, "answered", A_NUMBER),
        )
        self.first = re.compile(body, re.DOTALL)  # of a message, which may be a bundle
        self.more = re.compile(re.escape(tag(request, "more", 2)) + b"(%s)" % A_NUMBER + body, re.DOTALL)


@dataclass(slots=True, eq=False)
class PlainSteps:
    """A request, as `tidegate.v1.Steps`; `data` are the numbers of its only input."""

    handle: int
    first_step: int
    layout: Layout
    data: bytes
    answered: int
    size: int  # bytes of the message

    @property
    def input(self) -> np.ndarray:
        return np.ndarray(self.layout.shape, self.layout.dtype, self.data)


class Layouts:
    """Those that came before, the latest first."""

    def __init__(self) -> None:
        self._known: dict[bytes, Layout] = {}  # by their heads
        self._latest: list[Layout] = []

    def learn(self, request: sequence_pb2.StreamRequest) -> None:
        """Takes in the layout of a request that protobuf has read."""
        if not request.HasField("steps") or len(request.steps.inputs) != 1 or (given := request.steps.inputs[0]).values:
            return
        try:
            array = wire.decode(given)
        except wire.WireError:
            return
        head = wire.head(_INPUTS, given.name, given.type, given.shape, array.nbytes)
        if array.size and array.dtype.kind != "b" and len(head) + array.nbytes <= _LARGEST and head not in self._known:
            self._known = dict([(head, Layout(given.name, head, array)), *self._known.items()][:_MOST])
            self._latest = list(self._known.values())

    def read(self, data: bytes) -> list[PlainSteps]:
        """The requests of a message; none: protobuf has to read it."""
        for layout in self._latest:
            if (found := layout.first.match(data)) is not None:
                break
        else:
            return []
        length, handle, first_step, numbers, answered = found.groups(b"\0")
        end = found.end()
        if NUMBER[length] + 1 + len(length) != end:
            return []
        first = PlainSteps(NUMBER[handle], NUMBER[first_step], layout, numbers, NUMBER[answered], len(data))
        return [first] if end == len(data) else _all(layout, first, data, end)


def _all(layout: Layout, first: PlainSteps, data: bytes, at: int) -> list[PlainSteps]:
    those = [first]
    while at < len(data):
        if (found := layout.more.match(data, at)) is None:
            return []
        whole, length, handle, first_step, numbers, answered = found.groups(b"\0")
        end = found.end()
        if not NUMBER[whole] + 1 + len(whole) == end - at == NUMBER[length] + 2 + len(whole) + len(length):
            return []
        those.append(PlainSteps(NUMBER[handle], NUMBER[first_step], layout, numbers, NUMBER[answered], end - at))
        at = end
    return those
