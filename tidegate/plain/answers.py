"""Answers to single steps, as nearly all responses are, without messages of protobuf.

They are read here if they are as a server of Tidegate writes them, and if the names, types and shapes of their tensors
are among those that come most. Whatever else there is, protobuf reads: what both read is the same.
"""

import re
from collections.abc import Sequence

import numpy as np

from tidegate import wire
from tidegate.plain.layouts import Layouts
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1.tensor_pb2 import Tensor
from tidegate.varints import A_HANDLE, A_NUMBER, NUMBER, Fields, tag

_LARGEST = 2**15  # bytes of the tensors of an answer
_OUTPUT, _TRACE = Fields(pb.Answers, "outputs", 2), Fields(pb.Answers, "trace", 2)


def _field(kind: type[pb.Answers | pb.StreamResponse], name: str, wire_type: int, pattern: bytes = A_NUMBER) -> bytes:
    return re.escape(tag(kind, name, wire_type)) + b"(%s)" % pattern


_START = (
    _field(pb.StreamResponse, "answers", 2)
    + _field(pb.Answers, "handle", 0, A_HANDLE)
    + _field(pb.Answers, "first_step", 0)
    + _field(pb.Answers, "checkpointed", 0)
)
_MORE = _field(pb.StreamResponse, "more", 2)


class Layout:
    """What the tensors of many answers have in common.

    Args:
        tensors: the outputs, and then the trace if it is `traced`: each with what it begins with, up to its numbers.
    """

    def __init__(self, tensors: Sequence[tuple[bytes, str, wire.Array]], *, traced: bool) -> None:
        shapes = [(name, array.shape, array.dtype) for _, name, array in tensors]
        self.outputs = shapes[:-1] if traced else shapes
        self.trace = shapes[-1] if traced else None
        self.uses = 0
        body = b"".join([re.escape(head) + b"(.{%d})" % array.nbytes for head, _, array in tensors])
        self.first = re.compile(b"()" + _START + body, re.DOTALL)  # of a message, which may be a bundle
        self.more = re.compile(_MORE + _START + body, re.DOTALL)


class PlainAnswer:
    """The answer to one step; `numbers` are those of each tensor of its layout. The rest as in tidegate.v1.Answers."""

    __slots__ = ("checkpointed", "first_step", "handle", "layout", "numbers")

    def __init__(self, handle: int, first_step: int, checkpointed: int, layout: Layout, numbers: list[bytes]) -> None:
        self.handle = handle
        self.first_step = first_step
        self.checkpointed = checkpointed
        self.layout = layout
        self.numbers = numbers

    def row(self) -> tuple[dict[str, wire.Array], wire.Array | None]:
        """The outputs by name, [...row], and the trace [columns]."""
        layout, numbers = self.layout, self.numbers
        outputs = {}
        for (name, shape, dtype), data in zip(layout.outputs, numbers, strict=False):  # the trace is the last
            outputs[name] = np.ndarray(shape, dtype, data)[0]
        trace = layout.trace
        return outputs, None if trace is None else np.ndarray(trace[1], trace[2], numbers[-1])[0]

    def outputs(self) -> dict[str, wire.Array]:
        """The outputs by name, [1, ...row]."""
        those = zip(self.layout.outputs, self.numbers, strict=False)
        return {name: np.ndarray(shape, dtype, data) for (name, shape, dtype), data in those}

    def trace(self) -> wire.Array | None:
        """[1, columns]; None if this step has none."""
        if (trace := self.layout.trace) is None:
            return None
        return np.ndarray(trace[1], trace[2], self.numbers[-1])


SomeAnswers = pb.Answers | PlainAnswer
Response = pb.StreamResponse | list[PlainAnswer]


class Reader:
    """Reads the messages of one stream."""

    def __init__(self) -> None:
        self._layouts = Layouts[Layout]()

    def read(self, data: bytes) -> Response:
        """What a message says: answers to single steps in their order, or whatever else it is."""
        plain = self._plain(data)
        if plain:
            return plain
        response = pb.StreamResponse.FromString(data)
        self._learn(response)
        return response

    def _plain(self, data: bytes) -> list[PlainAnswer]:
        """The answers of a message; none: protobuf has to read it."""
        at, end = 0, len(data)
        those: list[PlainAnswer] = []
        layouts = self._layouts.all
        while at < end:
            for layout in layouts:
                found = (layout.more if at else layout.first).match(data, at)
                if found is None:
                    continue
                whole, length, handle, first, checkpointed, *numbers = found.groups(b"")
                size, body = found.end() - at, NUMBER[length] + 1 + len(length)
                if size == (body if not at else body + 1 + len(whole)) and (not at or NUMBER[whole] == body):
                    break
            else:
                return []
            layout.uses += 1
            those.append(PlainAnswer(NUMBER[handle], NUMBER[first], NUMBER[checkpointed], layout, numbers))
            at += size
        return those

    def _learn(self, response: pb.StreamResponse) -> None:
        """Takes in the layouts of answers that protobuf has read."""
        for one in (response, *response.more):
            answers = one.answers
            tensors = answers.outputs
            if not tensors or not tensors[0].shape or tensors[0].shape[0] != 1:
                continue
            given = [(_OUTPUT, tensor) for tensor in tensors]
            if traced := answers.HasField("trace"):
                given.append((_TRACE, answers.trace))
            if sum([len(tensor.data) for _, tensor in given]) > _LARGEST:
                continue
            try:
                read = [(_head(field, tensor), tensor.name, wire.decode(tensor)) for field, tensor in given]
            except wire.WireError:
                continue
            head = b"".join([head for head, _, _ in read])
            if (
                all(_is_plain(tensor) for _, tensor in given)
                and all(array.size for _, _, array in read)
                and self._layouts.wants(head)
            ):
                self._layouts.put(head, Layout(read, traced=traced))


def _head(field: Fields, tensor: Tensor) -> bytes:
    return wire.head(field, tensor.name, tensor.type, tensor.shape, len(tensor.data))


def _is_plain(tensor: Tensor) -> bool:
    return not tensor.values and wire.dtype_of(tensor.type).kind != "b"
