"""The load generator, a process of its own: the same client, at the same cost, for every server of the contract.

It takes one question a line from standard input and gives one answer a line, both JSON, until the input ends:

  {"ask": "ready", "target": T, "models": names}  whether the server takes calls and these models are ready, now or soon
  {"ask": "sample", "target": T, "scenario": S}   the first messages' outputs, and the last answer in hexadecimal
  {"ask": "measure", "target": T, "scenario": S, "warm": seconds, "length": seconds}

where T and S are the fields of Target and Scenario.
"""

import asyncio
import itertools
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
import numpy as np
import numpy.typing as npt
import uvloop

from bench.client import inference, loop
from bench.client.inference import InferenceSequence
from bench.client.loop import Window
from bench.client.traffic import OneFleet, OneSequence, Traffic, WrongAnswerError
from bench.figure import Figure
from bench.processes.processors import Usage
from bench.processes.worker import Json, work
from bench.rivals import echo
from bench.scenario import Scenario
from tidegate.v1 import model_pb2, sequence_pb2, tidegate_pb2, tidegate_pb2_grpc

if TYPE_CHECKING:
    from bench.client.loop import Call

# Seconds that a question may take beyond its window.
PATIENCE = 30.0
# How many messages a sample has.
SAMPLES = 60


@dataclass(frozen=True)
class Target:
    """A server on this machine."""

    port: int
    pid: int
    # The answer that an echo is to give, in hexadecimal; empty for a server that makes its own.
    canned: str = ""
    # The file of the certificate that it has, if it speaks TLS.
    ca: str = ""


class Load:
    """Answers the questions, one at a time, in one event loop."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()

    def __call__(self, question: Json) -> Json:
        """Answer one question within its time."""
        target = Target(**question["target"])
        return self._loop.run_until_complete(asyncio.wait_for(self._answer(question, target), limit(question)))

    async def _answer(self, question: Json, target: Target) -> Json:
        if question["ask"] == "ready":
            return {"ready": await ready(target, set(question["models"]))}
        scenario = Scenario(**question["scenario"])
        if question["ask"] == "sample":
            return await sample(target, scenario)
        return asdict(await measure(target, scenario, question["warm"], question["length"]))


def limit(question: Json) -> float:
    """Seconds after which a question is given up."""
    return PATIENCE + float(question.get("warm", 0)) + float(question.get("length", 0))


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel of its own."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    address, credentials = f"127.0.0.1:{target.port}", credentials_of(target)
    if credentials is None:
        opened = grpc.aio.insecure_channel(address, options=options)
    else:
        opened = grpc.aio.secure_channel(address, credentials, options=options)
    async with opened as channel:
        yield channel


def credentials_of(target: Target) -> grpc.ChannelCredentials | None:
    """For a server that speaks TLS."""
    return grpc.ssl_channel_credentials(Path(target.ca).read_bytes()) if target.ca else None


async def ready(target: Target, models: set[str]) -> bool:
    """Wait a moment for the server, and look at its models if it should have any."""
    try:
        async with asyncio.timeout(1), connected(target) as channel:
            await channel.channel_ready()
            return not models or models <= await served(channel)
    except TimeoutError:
        return False


async def served(channel: grpc.aio.Channel) -> set[str]:
    """Ask for the models that can be used now."""
    stub = cast("tidegate_pb2_grpc.TidegateAsyncStub", tidegate_pb2_grpc.TidegateStub(channel))
    listing = await stub.ListModels(tidegate_pb2.ListModelsRequest())
    return {model.name for model in listing.models if model.status == model_pb2.MODEL_STATUS_READY}


def traffic_of(scenario: Scenario, target: Target) -> list[Traffic]:
    """Make the closed loops of a scenario, by handle."""
    if scenario.layout == "fleet":
        return [OneFleet(scenario)]
    if scenario.protocol == "inference":
        return [InferenceSequence(scenario, handle) for handle in range(scenario.sequences)]
    return [OneSequence(scenario, handle, unchecked=bool(target.canned)) for handle in range(scenario.sequences)]


@asynccontextmanager
async def conversation(channel: grpc.aio.Channel, target: Target, traffics: list[Traffic]) -> AsyncIterator["Call"]:
    """Open a stream and the sequences on it, and close them at the end."""
    stub = cast("tidegate_pb2_grpc.TidegateAsyncStub", tidegate_pb2_grpc.TidegateStub(channel))
    call = inference.stream(channel) if isinstance(traffics[0], InferenceSequence) else stub.Stream()
    try:
        for traffic in traffics:
            if (first := greeting(traffic, target)) is not None:
                await exchange(call, first, "opened", target)
        yield call
        for traffic in traffics:
            if (last := traffic.closing()) is not None:
                await exchange(call, last, "closed", target)
        await call.done_writing()
    finally:
        call.cancel()


def greeting(traffic: Traffic, target: Target) -> sequence_pb2.StreamRequest | None:
    """Open a sequence, or tell the echo what to say."""
    return echo.first_message(bytes.fromhex(target.canned)) if target.canned else traffic.opening()


async def exchange(call: "Call", request: sequence_pb2.StreamRequest, expected: str, target: Target) -> None:
    """Send what opens or closes, and check the answer's kind."""
    await call.write(request)
    response = await loop.answer(call)
    if response.WhichOneof("response") != expected and not target.canned:
        raise WrongAnswerError(f"{expected} was expected, got {response}")


async def sample(target: Target, scenario: Scenario) -> Json:
    """Show what the server answers to the first messages of the first loop."""
    traffic, outputs = traffic_of(scenario, target)[0], []
    async with connected(target) as channel, conversation(channel, target, [traffic]) as call:
        for _ in range(SAMPLES):
            await call.write(traffic.send())
            whole = False
            while not whole:
                response = await loop.answer(call)
                whole = traffic.take(response)
                outputs.append(numbers(response))
    return {"answer": response.SerializeToString().hex(), "outputs": np.concatenate(outputs).tolist()}


def numbers(response: sequence_pb2.StreamResponse) -> npt.NDArray[np.float32]:
    """Take the first output, [steps or sequences, outputs]."""
    answers = response.fleet if response.HasField("fleet") else response.answers
    return np.frombuffer(answers.outputs[0].data, np.float32).reshape(answers.outputs[0].shape)


async def measure(target: Target, scenario: Scenario, warm: float, length: float) -> Figure:
    """Open everything, warm up, count for the length of a window, close everything."""
    traffics = traffic_of(scenario, target)
    groups = [traffics] if scenario.layout in ("multiplexed", "bundled") else [[traffic] for traffic in traffics]
    connections = len(groups) if scenario.layout == "connections" else 1
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connected(target)) for _ in range(connections)]
        pairs = zip(itertools.cycle(channels), groups)
        calls = [await stack.enter_async_context(conversation(channel, target, group)) for channel, group in pairs]
        window = Window(loop.now() + warm, loop.now() + warm + length)
        async with asyncio.TaskGroup() as tasks:
            used = tasks.create_task(loop.processors(window, target.pid))
            loops = [
                tasks.create_task(run(*pair, window, bundled=scenario.layout == "bundled"))
                for pair in zip(calls, groups, strict=True)
            ]
    return figure(scenario, sorted(second for task in loops for second in task.result()), used.result(), length)


async def run(call: "Call", traffics: list[Traffic], window: Window, *, bundled: bool) -> list[float]:
    """Run the loops of one stream."""
    if len(traffics) == 1:
        return await loop.one_by_one(call, traffics[0], window)
    if bundled:
        return await loop.together(call, traffics, window)
    return await loop.side_by_side(call, traffics, window)


def figure(scenario: Scenario, took: list[float], used: Usage, length: float) -> Figure:
    """Sum up a window; `took` is sorted."""
    if not took:
        raise WrongAnswerError(f"no answer within {length} s")
    return Figure(
        messages_per_second=len(took) / length,
        steps_per_second=len(took) * scenario.steps_per_message / length,
        median=statistics.median(took),
        p99=took[min(len(took) - 1, len(took) * 99 // 100)],
        client=used.own,
        server=used.other,
        others=used.rest,
    )


if __name__ == "__main__":
    work(Load())
