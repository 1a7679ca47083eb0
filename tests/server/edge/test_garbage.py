"""What was answered leaves at once: nothing is left to the collector of cycles, which seldom looks at everything."""

from __future__ import annotations

import gc
import gzip
import logging
import queue
import signal
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import tidegate
from tests.server.edge.oip.speaking import inputs, place
from tidegate.errors import TidegateError
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(4).normal(size=(20, 3)).astype(np.float32)
STREAM = "/tidegate.v1.Tidegate/Stream"


class Garbage:
    """An observer that on SIGUSR2 logs the types of ours that only the collector would free."""

    def __init__(self) -> None:
        signal.signal(signal.SIGUSR2, self._count)

    def answered(self, results: object) -> None:
        """See Observer."""

    def _count(self, *_: object) -> None:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kept = Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("server."))
        gc.garbage.clear()
        logging.getLogger(__name__).warning("garbage: %s;", dict(kept))


def native(address: str) -> None:
    with tidegate.connect(address) as client, client.sequence("lstm") as sequence, client.fleet("lstm", 5) as fleet:
        sequence.step(ROWS[0])
        sequence.chunk(ROWS)
        list(sequence.stream(ROWS))
        fleet.step(ROWS[:5])
        client.predict("lstm", ROWS)
        client.models()
        for refused in (lambda: sequence.step(ROWS[0][:1]), lambda: client.sequence("none")):
            with pytest.raises((TidegateError, ValueError)):
                refused()


def left_open(address: str) -> None:
    client = tidegate.connect(address)
    client.sequence("lstm").step(ROWS[0])
    client.close()


def misused(address: str) -> None:
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        call: Any = channel.stream_stream(STREAM)
        for message in (b"", b"\xff" * 9):
            assert [pb.StreamResponse.FromString(said).HasField("failure") for said in call(iter([message]))] == [True]
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError):
                list(call(iter([bytes(9_000_000)]), compression=compression))


def cut(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + gzip.compress(b"no frame"))


def triton_client(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        client.infer("lstm", inputs(ROWS[:1]))
        for at in range(3):
            client.infer("lstm", inputs(ROWS[:1]), **place("it", at, 2))
        for model, rows in (("none", ROWS[:1]), ("lstm", ROWS[:1, :1])):
            with pytest.raises(InferenceServerException):
                client.infer(model, inputs(rows))
        for last in (2, 99):  # it ends, or is left open
            answers = queue.Queue[Any]()
            client.start_stream(lambda result, error, answers=answers: answers.put((result, error)))
            for at in range(3):
                client.async_stream_infer("lstm", inputs(ROWS[:1]), **place(7, at, last))
            client.async_stream_infer("none", inputs(ROWS[:1]), **place(8, 0, 0))
            for _ in range(4):
                answers.get(timeout=120)
            client.stop_stream(cancel_requests=last == 99)


@pytest.mark.parametrize("use", [native, left_open, misused, cut, triton_client])
def test_whatever_a_client_does_leaves_nothing_that_only_the_collector_of_cycles_would_free(
    use: Callable[[str], None], lstm_only: Path, start: Callable[..., RunningServer]
) -> None:
    more = ("--observer", f"{__name__}:{Garbage.__name__}", "--transport", "http2", "--idle-seconds", "0.2")
    server = start(lstm_only, *more).ready()
    for _ in range(2):
        use(server.address)
    server.process.send_signal(signal.SIGUSR2)
    assert server.line(r" garbage: (.*);").group(1) == "{}"
