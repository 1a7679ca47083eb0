"""Proves a step graph against the original file: the same random sequences through both must give the same numbers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from server import diagnosis, loops, session
from server.engine import Engine
from server.errors import ModelRefused
from server.probe import Facts, Port, sample
from server.recurrence import label, name_of
from server.session import Session

Data = dict[str, np.ndarray]

_LENGTHS, _BATCHES = (1, 2, 5, 13), (1, 3)
_TOLERANCE, _HALF_TOLERANCE = 1e-5, 2e-3  # the oracle computes doubles in single precision


@dataclass(frozen=True)
class Proof:
    """How far the two were apart: |a - b| / max(1, |a|) at most, over `steps` single steps."""

    max_error: float
    tolerance: float
    steps: int


def prove(original: onnx.ModelProto, facts: Facts, engine: Engine) -> Proof:
    """Compares the engine, step by step, with the original on every prefix of random sequences.

    The step graph's answer at step t must be the original's answer to the prefix that ends at t. A file that takes one
    step at a time is given its own state back after each.

    Raises:
        ModelRefused: they differ by more than the tolerance, or the step graph does not run.
    """
    reference = session.create(original)
    tolerance = _tolerance(facts, engine)
    worst, steps = 0.0, 0
    for seed, (length, batch) in enumerate((t, b) for t in _LENGTHS for b in _BATCHES):
        data = _sequences(facts, length, batch, seed)
        answers = _one_by_one(reference, facts, data) if facts.one_step else _prefixes(reference, facts, data)
        try:
            worst = max(worst, _compare(answers, facts, engine, data, tolerance))
        except _Differs as differs:
            node = diagnosis.mixing_node(original, facts, engine.graph, tolerance)
            raise ModelRefused(
                f"{differs}: {_blame(original, node)}", None if node is None else name_of(node)
            ) from None
        steps += length * batch
    return Proof(worst, tolerance, steps)


def _tolerance(facts: Facts, engine: Engine) -> float:
    """Half precision anywhere in the file makes it coarse."""
    ports = (*facts.inputs, *facts.outputs, *(carried.given for carried in facts.through))
    types = {*(port.dtype for port in ports), *(cell.dtype for cell in engine.graph.layers)}
    return _HALF_TOLERANCE if np.dtype(np.float16) in types else _TOLERANCE


def _prefixes(reference: Session, facts: Facts, data: Data) -> Iterator[list[np.ndarray]]:
    """The original's answers to each prefix: for each step a list of [B, ...row]."""
    length, batch = next(iter(data.values())).shape[:2]
    names = [port.name for port in facts.outputs]
    for step in range(length):
        prefix = {port.name: port.original(data[port.name][: step + 1]) for port in facts.inputs}
        answers = session.run(reference, names, facts.feeds(prefix, batch, step + 1))
        yield [_last(port, y) for port, y in zip(facts.outputs, answers, strict=True)]


def _one_by_one(reference: Session, facts: Facts, data: Data) -> Iterator[list[np.ndarray]]:
    """The same of a file that takes one step at a time and may hand its state back."""
    length, batch = next(iter(data.values())).shape[:2]
    names = [port.name for port in (*facts.outputs, *(carried.returned for carried in facts.carried))]
    states: Data = {}
    for step in range(length):
        one = {port.name: port.original(data[port.name][step : step + 1]) for port in facts.inputs}
        values = session.run(reference, names, facts.feeds(one, batch, 1) | states)
        yield [_last(port, y) for port, y in zip(facts.outputs, values, strict=False)]
        states = {c.given.name: v for c, v in zip(facts.carried, values[len(facts.outputs) :], strict=True)}


def _sequences(facts: Facts, length: int, batch: int, seed: int) -> Data:
    """[T, B, ...row] for each input; what has no time axis beside others that have one stays the same."""
    random = np.random.default_rng(seed)
    data = {port.name: sample(port.dtype, (length, batch, *port.row), random) for port in facts.inputs}
    if not facts.one_step:
        for port in facts.inputs:
            if port.time is None:
                data[port.name][:] = data[port.name][0]
    return data


class _Differs(Exception):  # it never leaves this file
    """What differs by more than the tolerance, as the beginning of a sentence."""


def _blame(model: onnx.ModelProto, node: onnx.NodeProto | None) -> str:
    loop = next((loop for loop in loops.find(model) if loop.node is node), None)
    if loop:
        return f"{label(loop.node)} cannot be cut into steps: {loops.objection(loop)}"
    where = "something outside the recurrent cells" if node is None else label(node)
    return (
        f"{where} mixes steps with one another, so this model cannot answer a stream. Only recurrent cells may carry "
        "anything from step to step; let the rest of the network see one step at a time"
    )


def _compare(answers: Iterable[list[np.ndarray]], facts: Facts, engine: Engine, data: Data, tolerance: float) -> float:
    """The largest error of the engine's steps; refuses the first that is too large."""
    batch = next(iter(data.values())).shape[1]
    state = np.tile(engine.graph.initial, (batch, 1))
    worst = 0.0
    for step, expected in enumerate(answers):
        result = engine.run({name: x[step : step + 1] for name, x in data.items()}, state, trace=False)
        state = result.state
        for port, wanted in zip(facts.outputs, expected, strict=True):
            error = _error(wanted, result.outputs[port.name][0])
            if not error <= tolerance:
                raise _Differs(
                    f"output '{port.name}' at step {step} differs by {error:.2g} from the original file's answer to "
                    f"the first {step + 1} steps (at most {tolerance:.0e} is accepted)"
                )
            worst = max(worst, error)
    return worst


def _last(port: Port, y: np.ndarray) -> np.ndarray:
    """The original's answer at the last step, [B, ...row]."""
    y = np.moveaxis(y, port.batch, 0)
    if port.time is None:
        return y
    last: np.ndarray = np.take(y, -1, port.time + (port.time < port.batch))
    return last


def _error(wanted: np.ndarray, got: np.ndarray) -> float:
    if wanted.size == 0:
        return 0.0
    apart = np.abs(wanted.astype(np.float64) - got) / np.maximum(1, np.abs(wanted.astype(np.float64)))
    return float(apart.max())
