"""Single messages, each as large as a message may be, that are meant to cost far more than their size."""

import numpy as np

from bench.attacks.speech import (
    CROWD,
    MODEL,
    NONE,
    Attack,
    ask,
    bundle,
    opening,
    predict,
    stream,
    until_answered,
    until_quiet,
)
from bench.scenario import FEATURES
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tensor_pb2


async def axes(port: int) -> None:
    tensor = tensor_pb2.Tensor(type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[2**62] * 440_000)
    await ask(port, pb.StreamRequest(steps=pb.Steps(inputs=[tensor])))


async def tensors(port: int) -> None:
    await ask(port, pb.StreamRequest(steps=pb.Steps(inputs=[tensor_pb2.Tensor()] * 500_000)))


async def layers(port: int) -> None:
    await ask(
        port, pb.StreamRequest(open=pb.Open(handle=1, model=MODEL, trace=pb.TraceSelection(layers=[0] * 3_000_000)))
    )


async def parts(port: int) -> None:
    state = pb.State(model=MODEL, version=1, step=1, parts=[pb.StatePart()] * 500_000)
    await ask(port, pb.StreamRequest(open=pb.Open(handle=1, model=MODEL, state=state)))


async def strangers(port: int) -> None:
    """Each of them would be named in the refusal."""
    await ask(
        port,
        pb.StreamRequest(fleet=pb.FleetSteps(handles=np.full(900_000, 3_000_000, "<u4").tobytes(), steps=bytes(8))),
    )


async def again(port: int) -> None:
    fleet = pb.FleetSteps(handles=bytes(4 * 300_000), steps=bytes(8 * 300_000))
    await ask(port, pb.StreamRequest(fleet=fleet))


async def unknown(port: int) -> None:
    """Each has to be looked for in the store, if the message is taken."""
    resume = pb.Resume(handle=1, sequence_ids=[f"{n:032x}" for n in range(100_000)], answered=[0] * 100_000)
    await ask(port, pb.StreamRequest(resume=resume))


async def chunk(port: int) -> None:
    rows = np.zeros((100_000, FEATURES), np.float32)
    async with stream(port) as call:
        await until_answered(call, rows)


async def prediction(port: int) -> None:
    """Its answer would be a hundred times as large."""
    await predict(port, 100_000, pb.TraceSelection())


async def bundles(port: int) -> None:
    """Each is a message of its own to the server."""
    opens = (pb.StreamRequest(open=pb.Open(handle=n, model=MODEL, trace=NONE)) for n in range(CROWD))
    closes = (pb.StreamRequest(close=pb.Close(handle=n)) for n in range(CROWD))
    async with stream(port) as call:
        for message in (bundle(opens), bundle(closes)):
            await call.write(message)
        await until_quiet(call)


async def reads(port: int) -> None:
    requests = (pb.StreamRequest(read_state=pb.ReadState()) for _ in range(CROWD))
    async with stream(port) as call:
        await call.write(opening())
        await call.write(bundle(requests))
        await until_quiet(call)


MESSAGES: dict[str, Attack] = {
    "a tensor of 440,000 axes": axes,
    "500,000 empty tensors": tensors,
    "a trace of 3,000,000 layers": layers,
    "a state of 500,000 parts": parts,
    "a fleet of 900,000 handles that nobody opened": strangers,
    "a fleet of one sequence 300,000 times": again,
    "a resume of 100,000 ids that nobody has": unknown,
    "a chunk of 100,000 steps": chunk,
    "a prediction of 100,000 steps with its trace": prediction,
    "a bundle of 10,000 opens, another of closes": bundles,
    "a bundle of 10,000 reads of a state": reads,
}
