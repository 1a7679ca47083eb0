"""onnxruntime without a server, a process of its own: what the machine gives if nothing has to be carried.

It takes one question a line and gives one answer a line, both JSON:

  {"ask": "loop", "file": path, "batch": n, "traces": false, "warm": seconds, "length": seconds}     the bare session
  {"ask": "engine", "file": path, "batch": n, "traces": true, "warm": seconds, "length": seconds}    Tidegate's engine
  {"ask": "truth", "file": path, "steps": n}    what the original file answers to sequence 0, in one run
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

from bench.client.traffic import rows
from bench.figure import Figure
from bench.processes.worker import Json, work
from bench.scenario import FEATURES
from stepgraph import loading
from stepgraph.rewriting.stepgraph import NEXT_STATE, STATE, TRACE, StepGraph
from stepgraph.running import session
from stepgraph.running.engine import Engine

Step = Callable[[], object]


def answer(question: Json) -> Json:
    if question["ask"] == "truth":
        return {"outputs": truth(question["file"], question["steps"])}
    graph = step_graph(question["file"])
    make = {"loop": bare_step, "engine": engine_step}[question["ask"]]
    step = make(graph, question["batch"], traces=question["traces"])
    return asdict(repeated(step, question["batch"], question["warm"], question["length"]))


@cache
def step_graph(file: str) -> StepGraph:
    """Rewrite a file to one step, as the server does when it loads it."""
    return loading.load(Path(file), max_batch=1, patience=1.0).graph


def bare_step(graph: StepGraph, batch: int, *, traces: bool) -> Step:
    """One run of the session, state in and state out."""
    runner = session.create(graph.model)
    names = [*(port.name for port in graph.outputs), NEXT_STATE, *([TRACE] if traces else [])]
    port = graph.inputs[0]
    feeds = {port.name: np.ones(port.shape(batch, 1), port.dtype), STATE: np.tile(graph.initial, (batch, 1))}

    def step() -> None:
        feeds[STATE] = session.run(runner, names, feeds)[len(graph.outputs)]

    return step


def engine_step(graph: StepGraph, batch: int, *, traces: bool) -> Step:
    """One step through Tidegate's engine."""
    engine = Engine(graph)
    state = np.tile(graph.initial, (batch, 1))
    inputs = {port.name: np.ones((1, batch, *port.row), port.dtype) for port in graph.inputs}

    def step() -> None:
        nonlocal state
        state = engine.run(inputs, state, traces).state

    return step


def repeated(step: Step, batch: int, warm: float, length: float) -> Figure:
    """Warm up, then count how often a step is done within the window."""
    count_until(step, time.perf_counter() + warm)
    began, processor = time.perf_counter(), time.process_time()
    count = count_until(step, began + length)
    elapsed = time.perf_counter() - began
    return Figure(
        messages_per_second=count / elapsed,
        steps_per_second=count * batch / elapsed,
        median=elapsed / count,
        server=(time.process_time() - processor) / elapsed,
    )


def count_until(step: Step, end: float) -> int:
    """Repeat until a time, at least once."""
    count = 0
    while count == 0 or time.perf_counter() < end:
        step()
        count += 1
    return count


def truth(file: str, steps: int) -> list[list[float]]:
    """Run the original file over the whole sequence at once."""
    whole = ort.InferenceSession(file)
    x = rows(0, steps).reshape(1, steps, FEATURES)
    outputs: list[list[float]] = whole.run(None, {"x": x})[0][0].tolist()
    return outputs


if __name__ == "__main__":
    work(answer)
