"""Reads steps of one sequence with one input, which nearly all requests are, without protobuf.

They are read here if they are as protobuf writes them, and if the name, the type and the shape of their input are among
those that come most. Whatever else there is, protobuf reads: what both read is the same.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidegate import wire
from tidegate.plain import layouts
from tidegate.v1 import sequence_pb2
from tidegate.varints import A_HANDLE, A_NUMBER, NUMBER, Fields, tag

_LARGEST = 2**15  # bytes of an input
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
        self.uses = 0
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
    """Reads messages whose layouts came before."""

    def __init__(self) -> None:
        self._layouts = layouts.Layouts[Layout]()

    def learn(self, request: sequence_pb2.StreamRequest) -> None:
        """Takes in the layout of a request that protobuf has read, if it is one of those that come most."""
        if not request.HasField("steps") or len(request.steps.inputs) != 1 or (given := request.steps.inputs[0]).values:
            return
        try:
            array = wire.decode(given)
        except wire.WireError:
            return
        if not array.size or array.dtype.kind == "b" or array.nbytes > _LARGEST:
            return
        head = wire.head(_INPUTS, given.name, given.type, given.shape, array.nbytes)
        if self._layouts.wants(head):
            self._layouts.put(head, Layout(given.name, head, array))

    def read(self, data: bytes) -> list[PlainSteps]:
        """The requests of a message; none: protobuf has to read it."""
        for layout in self._layouts.all:
            if (found := layout.first.match(data)) is not None:
                break
        else:
            return []
        length, handle, first_step, numbers, answered = found.groups(b"\0")
        end = found.end()
        if NUMBER[length] + 1 + len(length) != end:
            return []
        layout.uses += 1
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
        one = PlainSteps(NUMBER[handle], NUMBER[first_step], layout, numbers, NUMBER[answered], NUMBER[whole])
        those.append(one)
        at = end
    return those
