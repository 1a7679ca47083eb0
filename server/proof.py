"""Proves a step graph against the original file: the same random sequences through both must give the same numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from server import session
from server.engine import Engine
from server.errors import ModelRefused
from server.probe import Port
from server.session import Session

_LENGTHS, _BATCHES = (1, 2, 5, 13), (1, 3)
_TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-5}  # the oracle computes doubles in single precision


@dataclass(frozen=True)
class Proof:
    """How far the two were apart: |a - b| / max(1, |a|) at most, over `steps` single steps."""

    max_error: float
    tolerance: float
    steps: int


def prove(original: onnx.ModelProto, engine: Engine) -> Proof:
    """Compares the engine, step by step, with the original on every prefix of random sequences.

    The step graph's answer at step t must be the original's answer to the prefix that ends at t.

    Raises:
        ModelRefused: they differ by more than the tolerance, or the step graph does not run.
    """
    reference = session.create(original)
    tolerance = _TOLERANCE[engine.graph.dtype.name]
    worst, steps = 0.0, 0
    for seed, (length, batch) in enumerate((t, b) for t in _LENGTHS for b in _BATCHES):
        feeds = _sequences(engine.graph.inputs, length, batch, seed)
        worst = max(worst, _compare(reference, engine, feeds, tolerance))
        steps += length * batch
    return Proof(worst, tolerance, steps)


def _sequences(ports: Sequence[Port], length: int, batch: int, seed: int) -> dict[str, np.ndarray]:
    """[T, B, ...row] for each input."""
    random = np.random.default_rng(seed)
    shapes = {port.name: (length, batch, *port.row) for port in ports}
    return {
        port.name: random.standard_normal(shapes[port.name]).astype(port.dtype)
        if port.dtype.kind == "f"
        else random.integers(0, 2, shapes[port.name]).astype(port.dtype)
        for port in ports
    }


def _compare(reference: Session, engine: Engine, feeds: dict[str, np.ndarray], tolerance: float) -> float:
    length, batch = next(iter(feeds.values())).shape[:2]
    state = np.tile(engine.graph.initial, (batch, 1))
    worst = 0.0
    for step in range(length):
        result = engine.run({name: x[step : step + 1] for name, x in feeds.items()}, state, trace=False)
        state = result.state
        prefix = {p.name: _to_original(p, feeds[p.name][: step + 1]) for p in engine.graph.inputs}
        expected = session.run(reference, [port.name for port in engine.graph.outputs], prefix)
        for port, wanted in zip(engine.graph.outputs, expected, strict=True):
            error = _error(_last(port, wanted), result.outputs[port.name][0])
            if not error <= tolerance:
                raise ModelRefused(
                    f"output '{port.name}' at step {step} differs by {error:.2g} from the original file's answer to "
                    f"the first {step + 1} steps (at most {tolerance:.0e} is accepted): something outside the "
                    "recurrent cells mixes steps, so this model cannot answer a stream"
                )
            worst = max(worst, error)
    return worst


def _to_original(port: Port, x: np.ndarray) -> np.ndarray:
    """[T, B, ...row] to the axes of the original's input."""
    return np.moveaxis(x, (0, 1), (port.time or 0, port.batch))


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
