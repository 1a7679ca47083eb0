"""What is given any bytes: each target takes one input at a time, and raises if a promise is broken.

All of it runs in one process and without sockets, so that many thousands of inputs a minute can be tried.
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np

from server.edge import fields
from server.edge.native import requests
from server.edge.oip import requests as oip_requests
from server.edge.oip.stubs import grpc_service_pb2 as inference_pb2
from server.errors import Refusal, TidegateError
from tests.hold.fuzz import Fuzz
from tests.hold.tally import Tally
from tests.server.edge.http2.fuzz import Drawn, Ours, damaged
from tests.server.world import World, versions
from tidegate import wire
from tidegate.http2 import frames
from tidegate.v1 import sequence_pb2, tidegate_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.server.world import Line

OFTEN = 16  # inputs between two steps of a bystander
LONGEST = 2**14  # bytes of an input that a target looks at


class Target(Protocol):
    """One way in."""

    def seeds(self, chance: random.Random) -> Iterator[bytes]:
        """Inputs to begin with."""

    def take(self, data: bytes) -> None:
        """Raises AssertionError, or whatever else went wrong."""


class Connection:
    """The bytes of a connection, on the codec: in one piece and in pieces they mean the same."""

    def seeds(self, chance: random.Random) -> Iterator[bytes]:
        while True:
            whole = Drawn(chance).frames
            yield b"".join(whole if chance.random() < 0.5 else damaged(chance, whole))

    def take(self, data: bytes) -> None:
        whole, pieces = Ours(), Ours()
        whole.take(frames.PREFACE + data)
        size = 1 + len(data) % 61
        for at in range(-len(frames.PREFACE), len(data), size):
            if not pieces.fault:
                pieces.take((frames.PREFACE + data)[at + len(frames.PREFACE) :][:size])
        assert whole.fault == pieces.fault
        assert whole.got == pieces.got
        whole.end()
        pieces.end()


class Messages:
    """Messages of a stream of a whole server, while the numbers of another client stay right."""

    def __init__(self) -> None:
        logging.getLogger("server").addHandler(_Strict(logging.ERROR))
        self._world = World(Path(mkdtemp(prefix="tidegate-fuzz-")))
        self._read = requests.reader(self._world.settings.max_message_bytes)
        self._rng = np.random.default_rng(1)
        self._world.connect(1, 0, host="10.0.0.2")
        (self._bystander,) = self._world.open(1)
        self._taken = 0

    def seeds(self, chance: random.Random) -> Iterator[bytes]:
        fuzz = Fuzz("", chance, Tally())
        while True:
            yield fuzz.message()

    def take(self, data: bytes) -> None:
        line = self._line()
        line.say(self._read(data))
        self._world.quiet()
        self._world.work(0)
        for said in line.down:
            sequence_pb2.StreamResponse.FromString(said)
        line.down.clear()
        self._taken += 1
        if self._taken % OFTEN == 0:
            self._look()

    def _line(self) -> Line:
        """The attacker's stream: another one if the last has ended, which only a refusal may do."""
        if (line := self._world.lines[0]) is not None and line.serving.done():
            with suppress(TidegateError):
                line.serving.result()
            self._world.cut(0)
        if self._world.lines[0] is None:
            self._world.connect(0, 0)
            self._world.quiet()
        line = self._world.lines[0]
        assert line is not None
        return line

    def _look(self) -> None:
        world, one = self._world, self._bystander
        world.give(1, one, self._rng.normal(size=(1, 3)).astype(np.float32))
        for _ in range(2):  # what waits for Opened is sent after it
            world.clients[1].flush(one)
            world.send(1)
            world.quiet()
            world.work(0)
            world.hear(1)
        world.write(0)
        world.check()
        assert len(one.answers) == one.end - one.start, one


class Calls:
    """Requests of unary calls, until a model would run: they are read, or refused."""

    def seeds(self, chance: random.Random) -> Iterator[bytes]:
        while True:
            shape = [chance.choice((1, 3, 7)), 3]
            tensor = wire.encode("x", np.zeros(shape, np.float32))
            request = tidegate_pb2.PredictRequest(model="recall", version=chance.randrange(3), inputs=[tensor])
            request.trace.every = chance.randrange(4)
            request.trace.parts.append(chance.randrange(6))
            yield request.SerializeToString()

    def take(self, data: bytes) -> None:
        with suppress(Refusal):
            read = fields.cut(tidegate_pb2.PredictRequest, data)
            request = read.message
            requests.selection(request.trace)
            requests.seed_of(request)
            requests.wants_values(request.encoding)
            requests.named_inputs(request.inputs, read.beside)


class Inference:
    """Requests of the Open Inference Protocol, until a model would run: they are read, or refused with their id."""

    def __init__(self) -> None:
        self._read = oip_requests.reader(2**22)
        self._ports = versions(Path(mkdtemp(prefix="tidegate-fuzz-")))[1].graph.inputs

    def seeds(self, chance: random.Random) -> Iterator[bytes]:
        while True:
            request = inference_pb2.ModelInferRequest(model_name="recall", id=str(chance.randrange(99)))
            tensor = request.inputs.add(name="x", datatype=chance.choice(("FP32", "INT64", "BOOL", "FP16")))
            tensor.shape.extend(chance.choice(([3], [1, 3], [1, 2, 3], [0, 3])))
            if chance.random() < 0.5:
                request.raw_input_contents.append(chance.randbytes(chance.choice((12, 24, 6))))
            else:
                tensor.contents.fp32_contents.extend([0.5] * chance.choice((3, 6)))
            request.parameters["sequence_id"].int64_param = chance.randrange(3)
            request.parameters["sequence_start"].bool_param = chance.random() < 0.5
            request.outputs.add(name=chance.choice(("y", "layer0.forget")))
            yield request.SerializeToString()

    def take(self, data: bytes) -> None:
        asked = self._read(data)
        if isinstance(asked, oip_requests.Rejected):
            assert isinstance(asked.why, Refusal)
            return
        with suppress(Refusal):
            steps = oip_requests.steps_of(asked.inputs, self._ports)
            assert all(array.ndim >= 2 for _, array in steps.inputs)


class _Strict(logging.Handler):
    """What is logged as an error is one."""

    def emit(self, record: logging.LogRecord) -> NoReturn:
        raise AssertionError(self.format(record))


TARGETS: Mapping[str, type[Target]] = {
    "connection": Connection,
    "messages": Messages,
    "calls": Calls,
    "inference": Inference,
}
