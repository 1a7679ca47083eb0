"""The least that can be done: a batched LSTM on Tidegate's own HTTP/2, with nothing around it.

What came in one turn of the event loop is computed in one run of onnxruntime, in the loop's own thread. It checks
nothing, keeps nothing, shows no gates, bounds nothing, and shares nothing fairly: what Tidegate costs beyond this is
what its promises cost.
"""

import argparse
import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import grpc
import numpy as np
import onnxruntime as ort
import uvloop

from bench.rivals.afternoon import load
from bench.rivals.echo import METHOD, SERVICE
from bench.scenario import LAYERS, OUTPUTS
from server.edge.http2.server import Http2Server, Options
from tidegate.v1 import sequence_pb2, tensor_pb2

_ROWS = 1_024  # sequences at a time, of all clients

Request = sequence_pb2.StreamRequest


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A step that waits for its batch."""

    client: "Client"
    handle: int
    first_step: int
    row: int
    x: bytes


class Model:
    """One model: the states of all sequences in two arrays, and the steps that came in this turn of the loop."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        shape = LAYERS, _ROWS, session.get_inputs()[1].shape[2]
        self._h, self._c = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._free = list(range(_ROWS))
        self._waiting: list[Step] = []

    def open(self, count: int) -> list[int]:
        rows = [self._free.pop() for _ in range(count)]
        self._h[:, rows] = self._c[:, rows] = 0
        return rows

    def close(self, rows: list[int]) -> None:
        self._free += rows

    def submit(self, step: Step) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        self._waiting.append(step)

    def _run(self) -> None:
        steps, self._waiting = self._waiting, []
        rows = [step.row for step in steps]
        x = np.frombuffer(b"".join([step.x for step in steps]), np.float32).reshape(len(steps), 1, -1)
        h, c = self._h[:, rows], self._c[:, rows]
        y, self._h[:, rows], self._c[:, rows] = self._session.run(None, {"x": x, "h": h, "c": c})
        for step, output in zip(steps, y, strict=True):
            step.client.answer(step, output.tobytes())


class Client:
    """One stream."""

    def __init__(self, models: dict[str, Model], call: Any) -> None:  # noqa: ANN401 # a call of the edge
        self.ended = asyncio.get_running_loop().create_future()
        self._models = models
        self._call = call
        self._rows: dict[int, tuple[Model, int]] = {}

    def came(self) -> None:
        while (message := self._call.take()) is not None:
            if message is grpc.aio.EOF:
                return self.ended.set_result(None)
            for request in (message, *message.more):
                self._take(request)
        return None

    def writable(self) -> None:
        """What the client does not read waits in memory."""

    def fail(self, error: BaseException) -> None:
        self.ended.set_exception(error)

    def _take(self, request: Request) -> None:
        if request.HasField("steps"):
            steps = request.steps
            model, row = self._rows[steps.handle]
            model.submit(Step(self, steps.handle, steps.first_step, row, steps.inputs[0].data))
        elif request.HasField("open"):
            first, count = request.open.handle, request.open.count or 1
            model = self._models[request.open.model]
            self._rows |= {first + i: (model, row) for i, row in enumerate(model.open(count))}
            opened = sequence_pb2.Opened(handle=first, model=request.open.model)
            self._call.send(sequence_pb2.StreamResponse(opened=opened).SerializeToString())
        else:
            first, count = request.close.handle, request.close.count or 1
            self._end(range(first, first + count))
            closed = sequence_pb2.Closed(handle=first, count=count, steps=[0] * count)
            self._call.send(sequence_pb2.StreamResponse(closed=closed).SerializeToString())

    def answer(self, step: Step, output: bytes) -> None:
        y = tensor_pb2.Tensor(name="y", type=tensor_pb2.DATA_TYPE_FLOAT32, shape=(1, OUTPUTS), data=output)
        answers = sequence_pb2.Answers(handle=step.handle, first_step=step.first_step, outputs=[y])
        self._call.send(sequence_pb2.StreamResponse(answers=answers).SerializeToString())

    def close(self) -> None:
        self._end(list(self._rows))

    def _end(self, handles: "range | list[int]") -> None:
        for handle in handles:
            model, row = self._rows.pop(handle)
            model.close([row])


class Service:
    """Answers Open, Steps and Close."""

    def __init__(self, models: dict[str, Model]) -> None:
        self._models = models

    async def stream(self, _: object, call: Any) -> None:  # noqa: ANN401 # likewise
        """Until the client has said its last."""
        client = Client(self._models, call)
        call.begin(client)
        try:
            await client.ended
        finally:
            call.end()
            client.close()


async def serve(models: dict[str, Model], port: int) -> None:
    """Serve on the loopback until the process is ended."""
    server = Http2Server(Options())
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        Service(models).stream, Request.FromString, None
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.bind("127.0.0.1", port)
    await server.start()
    await asyncio.Event().wait()


def main() -> None:
    """Serve a folder of models on the port that is given."""
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.least", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="the folder with the files")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    uvloop.run(serve({name: Model(session) for name, session in load(given.models, 1).items()}, given.port))


if __name__ == "__main__":
    main()
