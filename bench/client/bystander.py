"""A client that wants little, a process of its own: one step of one sequence after the other, and how long each took.

It takes one question a line and gives one answer a line, both JSON:

  {"ask": "begin", "port": p, "model": name}    a sequence is opened, and steps are taken from now on
  {"ask": "end"}                                {"took": [milliseconds of each step]}, one that waits yet is the last
"""

import threading
import time
from queue import SimpleQueue
from typing import Any

import grpc

from bench.client.traffic import rows
from bench.processes.worker import Json, work
from tidegate import wire
from tidegate.v1 import sequence_pb2, tidegate_pb2_grpc

PATIENCE = 1.0  # seconds for the last answer
PAUSE = 0.001  # seconds between an answer and the next step
ROW = rows(0, 1)[0]


class Bystander:
    """Answers the questions; at most one sequence is open at a time."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._took: list[float] = []

    def __call__(self, question: Json) -> Json:
        """Answer one question."""
        if question["ask"] == "begin":
            self._begin(question["port"], question["model"])
            return {}
        self._over.set()
        self._thread.join(PATIENCE)
        waits = [(time.perf_counter() - self._sent) * 1e3] if self._thread.is_alive() else []
        return {"took": self._took + waits}

    def _begin(self, port: int, model: str) -> None:
        self._over.clear()
        self._took = []
        opened = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port, model, opened), daemon=True)
        self._thread.start()
        if not opened.wait(30):
            raise TimeoutError("no sequence was opened within 30 s")
        if self._refused:
            raise RuntimeError(self._refused)

    def _run(self, port: int, model: str, opened: threading.Event) -> None:
        self._refused = ""
        try:
            self._steps(port, model, opened)
        except (grpc.RpcError, RuntimeError) as error:
            if opened.is_set():
                raise
            self._refused = str(error)
            opened.set()

    def _steps(self, port: int, model: str, opened: threading.Event) -> None:
        requests: SimpleQueue[sequence_pb2.StreamRequest | None] = SimpleQueue()
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = tidegate_pb2_grpc.TidegateStub(channel).Stream(iter(requests.get, None))
            trace = sequence_pb2.TraceSelection(none=True)
            answer(call, requests, sequence_pb2.StreamRequest(open=sequence_pb2.Open(model=model, trace=trace)))
            for step in range(20):  # what is slow once
                answer(call, requests, steps(step))
            opened.set()
            while not self._over.wait(PAUSE):
                step += 1
                self._sent = time.perf_counter()
                answer(call, requests, steps(step))
                self._took.append((time.perf_counter() - self._sent) * 1e3)
            requests.put(None)


def steps(number: int) -> sequence_pb2.StreamRequest:
    """One step of the sequence."""
    message = sequence_pb2.Steps(first_step=number, inputs=[wire.encode("", ROW)], answered=number)
    return sequence_pb2.StreamRequest(steps=message)


def answer(call: Any, requests: "SimpleQueue[Any]", request: sequence_pb2.StreamRequest) -> None:  # noqa: ANN401
    """Sends a request and waits for its answer."""
    requests.put(request)
    response = next(call)
    if response.HasField("failure"):
        raise RuntimeError(response.failure.error.message)


if __name__ == "__main__":
    work(Bystander())
