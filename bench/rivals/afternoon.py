"""The obvious server, as a good engineer writes it in an afternoon.

grpc.aio, the states of a stream's sequences in a dict, one run of onnxruntime for each message, with the file's own
LSTM operators and the states as inputs and outputs. It checks little and shows no gates. Measured on two cores, one
thread for onnxruntime beats one a core, and running it in the event loop beats a pool of threads.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import grpc
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bench.scenario import LAYERS
from tidegate.v1 import sequence_pb2, tensor_pb2, tidegate_pb2_grpc

Floats: TypeAlias = npt.NDArray[np.float32]
Requests: TypeAlias = AsyncIterator[sequence_pb2.StreamRequest]
Context: TypeAlias = "grpc.aio.ServicerContext[sequence_pb2.StreamRequest, sequence_pb2.StreamResponse]"


@dataclass(slots=True)
class Sequence:
    """One sequence: its model, its state, and the number of its next step."""

    model: ort.InferenceSession
    h: Floats
    c: Floats
    step: int = 0


class Afternoon(tidegate_pb2_grpc.TidegateServicer):
    """Answers Open, Steps and Close; a fleet is beyond an afternoon."""

    def __init__(self, models: dict[str, ort.InferenceSession]) -> None:
        self._models = models

    async def Stream(self, request_iterator: Requests, context: Context) -> AsyncIterator[sequence_pb2.StreamResponse]:
        sequences: dict[int, Sequence] = {}
        async for request in request_iterator:
            match request.WhichOneof("request"):
                case "steps":
                    yield take(sequences[request.steps.handle], request.steps)
                case "open":
                    yield self._open(sequences, request.open)
                case "close":
                    yield close(sequences, request.close)
                case _:
                    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "one sequence a message")

    def _open(self, sequences: dict[int, Sequence], wanted: sequence_pb2.Open) -> sequence_pb2.StreamResponse:
        model = self._models[wanted.model]
        shape = (LAYERS, 1, model.get_inputs()[1].shape[2])
        for handle in range(wanted.handle, wanted.handle + max(1, wanted.count)):
            sequences[handle] = Sequence(model, np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        return sequence_pb2.StreamResponse(opened=sequence_pb2.Opened(handle=wanted.handle, model=wanted.model))


def take(sequence: Sequence, steps: sequence_pb2.Steps) -> sequence_pb2.StreamResponse:
    """Run one step, or a chunk of them, through the model."""
    if steps.first_step != sequence.step:
        raise ValueError(f"step {steps.first_step} where {sequence.step} was expected")
    tensor = steps.inputs[0]
    x = np.frombuffer(tensor.data, np.float32).reshape(1, *tensor.shape)
    y, sequence.h, sequence.c = sequence.model.run(None, {"x": x, "h": sequence.h, "c": sequence.c})
    sequence.step += x.shape[1]
    output = tensor_pb2.Tensor(name="y", type=tensor_pb2.DATA_TYPE_FLOAT32, shape=y.shape[1:], data=y.tobytes())
    answers = sequence_pb2.Answers(handle=steps.handle, first_step=steps.first_step, outputs=[output])
    return sequence_pb2.StreamResponse(answers=answers)


def close(sequences: dict[int, Sequence], wanted: sequence_pb2.Close) -> sequence_pb2.StreamResponse:
    steps = [sequences.pop(wanted.handle + i).step for i in range(max(1, wanted.count))]
    return sequence_pb2.StreamResponse(closed=sequence_pb2.Closed(handle=wanted.handle, count=len(steps), steps=steps))


def load(folder: Path, threads: int) -> dict[str, ort.InferenceSession]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return {path.stem: ort.InferenceSession(path, options) for path in sorted(folder.glob("*.onnx"))}


async def serve(models: dict[str, ort.InferenceSession], port: int) -> None:
    """Serve on the loopback until the process is ended."""
    server = grpc.aio.server()
    servicer = Afternoon(models)  # type: ignore[abstract] # the calls it lacks answer that they are not implemented
    tidegate_pb2_grpc.add_TidegateServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serve a folder of models on the port that is given."""
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.afternoon", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="the folder with the files")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1, help="onnxruntime's threads for one run (default: 1)")
    arguments = parser.parse_args()
    asyncio.run(serve(load(arguments.models, arguments.threads), arguments.port))


if __name__ == "__main__":
    main()
