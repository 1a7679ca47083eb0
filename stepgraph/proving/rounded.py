"""How far a network whose weights were rounded is from the file, where its owner asked for that."""

from stepgraph.errors import ModelRefused
from stepgraph.file.sidecar import FILE
from stepgraph.proving.difference import errors
from stepgraph.proving.proof import ROUNDING
from stepgraph.proving.reference import begin, sequences
from stepgraph.rewriting.ports import Facts
from stepgraph.running.engine import Engine

_STEPS, _SEQUENCES = 100, 3


def note(exact: Engine, rounded: Engine, facts: Facts) -> str:
    """How far the answers to the same random sequences are apart, in a sentence. Raises ModelRefused: too far."""
    apart = max(_apart(exact, rounded, facts, seed) for seed in range(_SEQUENCES))
    if apart > ROUNDING:
        raise ModelRefused(f"its weights cannot be rounded to 8 bits, as {FILE} asks for: {_said(apart)}")
    return f"the weights of its cells are rounded to 8 bits, as {FILE} says: {_said(apart)}"


def _said(apart: float) -> str:
    return (
        f"over {_STEPS} steps of random numbers its outputs are up to {apart:.2g} from those of the file, in units of "
        f"the largest value so far, or of 1 (at most {ROUNDING:g} is accepted)"
    )


def _apart(exact: Engine, rounded: Engine, facts: Facts, seed: int) -> float:
    data = sequences(facts, _STEPS, 1, seed)
    wanted, got = (engine.run(data, begin(engine.graph, 1, {}), trace=False).outputs for engine in (exact, rounded))
    pairs = ((wanted[port.name][facts.lead :], got[port.name][facts.lead :], port.unit) for port in facts.outputs)
    return max(float(errors(*pair).max()) for pair in pairs)
