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

import numpy as np
import numpy.typing as npt
import uvloop

from bench.client import loop
from bench.client.inference import InferenceSequence
from bench.client.loop import Loops, Window
from bench.client.plain import Call, Plain, trusting
from bench.client.traffic import OneFleet, OneSequence, Traffic, WrongAnswerError
from bench.figure import Figure
from bench.processes.processors import Usage
from bench.processes.worker import Json, work
from bench.rivals import echo
from bench.scenario import Scenario
from tidegate.v1 import model_pb2, sequence_pb2, tidegate_pb2

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


async def connected(target: Target) -> Plain:
    """A connection of its own. Raises OSError."""
    return await Plain.connect(target.port, trusting(target.ca))


@asynccontextmanager
async def connections(target: Target, count: int) -> AsyncIterator[list[Plain]]:
    """So many, cut at the end."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(await connected(target))
            stack.callback(made[-1].close)
        yield made


async def ready(target: Target, models: set[str]) -> bool:
    """Wait a moment for the server, and look at its models if it should have any."""
    try:
        async with asyncio.timeout(1), connections(target, 1) as (connection,):
            return not models or models <= await served(connection)
    except (OSError, TimeoutError):
        return False


async def served(connection: Plain) -> set[str]:
    """Ask for the models that can be used now."""
    call = connection.begin("/tidegate.v1.Tidegate/ListModels")
    call.send(tidegate_pb2.ListModelsRequest().SerializeToString())
    call.end()
    listing = tidegate_pb2.ListModelsResponse.FromString(await call.next())
    return {model.name for model in listing.models if model.status == model_pb2.MODEL_STATUS_READY}


def traffic_of(scenario: Scenario, target: Target) -> list[Traffic]:
    """Make the closed loops of a scenario, by handle."""
    if scenario.layout == "fleet":
        return [OneFleet(scenario)]
    if scenario.protocol == "inference":
        return [InferenceSequence(scenario, handle) for handle in range(scenario.sequences)]
    return [OneSequence(scenario, handle, unchecked=bool(target.canned)) for handle in range(scenario.sequences)]


async def begun(connection: Plain, target: Target, traffics: list[Traffic]) -> Call:
    """A call, and the sequences on it."""
    call = connection.begin(traffics[0].method)
    for traffic in traffics:
        if (first := greeting(traffic, target)) is not None:
            await exchange(call, first, "opened", target)
    return call


async def ended(call: Call, target: Target, traffics: list[Traffic]) -> None:
    for traffic in traffics:
        if (last := traffic.closing()) is not None:
            await exchange(call, last, "closed", target)


def greeting(traffic: Traffic, target: Target) -> sequence_pb2.StreamRequest | None:
    """Open a sequence, or tell the echo what to say."""
    return echo.first_message(bytes.fromhex(target.canned)) if target.canned else traffic.opening()


async def exchange(call: Call, request: sequence_pb2.StreamRequest, expected: str, target: Target) -> None:
    """Send what opens or closes, and check the answer's kind."""
    answer = await call.ask(request.SerializeToString())
    if target.canned:
        return
    response = sequence_pb2.StreamResponse.FromString(answer)
    if response.WhichOneof("response") != expected:
        raise WrongAnswerError(f"{expected} was expected, got {response}")


async def sample(target: Target, scenario: Scenario) -> Json:
    """Show what the server answers to the first messages of the first loop."""
    traffic, outputs = traffic_of(scenario, target)[0], []
    async with connections(target, 1) as (connection,):
        call = await begun(connection, target, [traffic])
        for _ in range(SAMPLES):
            call.send(traffic.send())
            whole = False
            while not whole:
                answer = await call.next()
                response = traffic.parse(answer)
                whole = traffic.take(response)
                outputs.append(numbers(response))
        await ended(call, target, [traffic])
    return {"answer": answer.hex(), "outputs": np.concatenate(outputs).tolist()}


def numbers(response: sequence_pb2.StreamResponse) -> npt.NDArray[np.float32]:
    """Take the first output, [steps or sequences, outputs]."""
    answers = response.fleet if response.HasField("fleet") else response.answers
    return np.frombuffer(answers.outputs[0].data, np.float32).reshape(answers.outputs[0].shape)


async def measure(target: Target, scenario: Scenario, warm: float, length: float) -> Figure:
    """Open everything, warm up, count for the length of a window, close everything."""
    traffics = traffic_of(scenario, target)
    groups = [traffics] if scenario.layout in ("multiplexed", "bundled") else [[traffic] for traffic in traffics]
    async with connections(target, len(groups) if scenario.layout == "connections" else 1) as made:
        pairs = list(zip(itertools.cycle(made), groups))
        calls = [await begun(connection, target, group) for connection, group in pairs]
        window = Window(loop.now() + warm, loop.now() + warm + length)
        bundled = scenario.layout == "bundled"
        loops = [Loops(call, group, window, bundled=bundled) for call, group in zip(calls, groups, strict=True)]
        for each in loops:
            each.begin()
        used = await loop.processors(window, target.pid)
        await asyncio.gather(*(each.done for each in loops))
        for call, group in zip(calls, groups, strict=True):
            await ended(call, target, group)
    return figure(scenario, sorted(second for each in loops for second in each.took), used, length)


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
