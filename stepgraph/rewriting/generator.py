"""Random numbers as plain ONNX operators, from a seed and a count of steps that are part of a sequence's state.

Each number is a function of the seed, of the step and of its place: Widynski, "Squares: A Fast Counter-Based RNG"
(2020), with a key that is made of the seed by the same function. Nothing here depends on how many rows a batch has.
"""

import math
from functools import cache
from statistics import NormalDist

import numpy as np
import onnx

from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.nodes import refill
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.rewriting.stepgraph import COUNT, DRAWS, PREFIX, SEED, STATE, StepGraph

NORMAL, UNIFORM = "tidegate.normal/", "tidegate.uniform/"  # how inputs begin that hold random numbers of that kind
SEED_SIZE, DRAWS_SIZE = 4, 2  # columns: 16 bits of the seed each; steps up to 2^24, and how often that many
PART = 2**24
_PREFIX = f"{PREFIX}random/"
_KEYS = (0x548C9DECBCE65295, 0xC8E4FD154CE32F6D)
_ONCE = 2**63  # numbers that are drawn once for a sequence are counted from here
_OCTAVES, _PIECES = 32, 128  # of the normal distribution's table


def is_noise(port: Port) -> bool:
    return port.name.startswith((NORMAL, UNIFORM))


def next_draws(g: GraphBuilder, before: str, dtype: np.dtype) -> str:
    """The count of steps [B, 2] after one more."""
    low, high = g.split(before, [1, 1])
    one = g.constant(np.ones(1, dtype))
    more = g.op("Add", low, one)
    fits = g.cast(g.op("Less", more, g.constant(np.full(1, PART, dtype))), dtype)
    return g.concat(g.op("Mul", more, fits), g.op("Add", high, g.op("Sub", one, fits)))


def write(graph: onnx.GraphProto, opset: int, laid: StepGraph, facts: Facts) -> None:
    """Puts the numbers that `facts.drawn` name in front of the graph of a step, which took them as inputs."""
    g = GraphBuilder(_PREFIX, opset)
    columns = {each.name: each.span for each in laid.state if each.layer is None}
    seed = _whole(g, columns[SEED], (1, 2**16, 2**32, 2**48))
    step = _whole(g, columns[DRAWS], (1, PART))
    start = g.op("Sub", step, _whole(g, columns[COUNT], (1,)) if facts.window else step)
    high, low = (_squares(g, seed, g.constant(key, np.uint64)) for key in _KEYS)
    key = g.op("Add", g.op("Mul", high, g.constant(2**32, np.uint64)), low)
    each, first = sum(math.prod(port.row) for port in facts.drawn), 0
    for port in facts.drawn:
        shape = port.shape(1, 1)
        place = np.arange(first, first + math.prod(port.row), dtype=np.uint64).reshape(shape)
        rows = [1] * len(shape)
        if port.batch is not None:
            rows[port.batch] = -1
        place = place + np.uint64(_ONCE) if port.name in facts.once else place
        begun = start if port.name in facts.once else step
        counted = g.op("Add", g.reshape(g.op("Mul", begun, g.constant(each, np.uint64)), rows), g.constant(place))
        bits = _squares(g, counted, g.reshape(key, rows))
        if port.name.startswith(NORMAL):
            _normal(g, bits, port.name, len(shape))
        else:
            _uniform(g, bits, port.name)
        first += math.prod(port.row)
    refill(graph.node, [*g.nodes, *graph.node])
    graph.initializer.extend(g.constants)


def _whole(g: GraphBuilder, span: slice, weights: tuple[int, ...]) -> str:
    """A whole number [B] from columns of the state."""
    total = ""
    for column, weight in zip(range(span.start, span.stop), weights, strict=True):
        part = g.op("Gather", STATE, g.constant(column, np.int64), axis=1)
        part = g.op("Mul", g.cast(g.cast(part, np.dtype(np.int64)), np.dtype(np.uint64)), g.constant(weight, np.uint64))
        total = g.op("Add", total, part) if total else part
    return total


def _squares(g: GraphBuilder, counter: str, key: str) -> str:
    """32 random bits for each counter, modulo 2^64 throughout."""
    y = g.op("Mul", counter, key)
    z = g.op("Add", y, key)
    x = y
    for added in (y, z, y):
        x = _swapped(g, g.op("Add", g.op("Mul", x, x), added))
    return _shift(g, g.op("Add", g.op("Mul", x, x), z))


def _swapped(g: GraphBuilder, x: str) -> str:
    return g.op("Add", _shift(g, x), g.op("BitShift", x, g.constant(32, np.uint64), direction="LEFT"))


def _shift(g: GraphBuilder, x: str, by: int = 32) -> str:
    return g.op("BitShift", x, g.constant(by, np.uint64), direction="RIGHT")


def _uniform(g: GraphBuilder, bits: str, output: str) -> None:
    """24 of 32 bits as a number from 0 to below 1."""
    part = g.cast(_shift(g, bits, 8), np.dtype(np.float32))
    g.op_to(output, "Mul", part, g.constant(2.0**-24, np.float32))


def _normal(g: GraphBuilder, bits: str, output: str, rank: int) -> None:
    """The quantile of the normal distribution at 31 of 32 bits, from a table; the other bit is its sign.

    The table has as many pieces for each octave of the probability, so the tail reaches 6.3 deviations.
    """
    upper, whole, double = _shift(g, bits, 31), np.dtype(np.int64), np.dtype(np.float64)
    rest = g.op("Sub", bits, g.op("Mul", upper, g.constant(2**31, np.uint64)))
    odd = g.cast(g.op("Add", g.op("Add", rest, rest), g.constant(1, np.uint64)), double)  # the probability times 2^33
    reached = g.op("Not", g.op("Less", g.unsqueeze(odd, rank), g.constant(2.0 ** np.arange(1, _OCTAVES))))
    octave = g.cast(g.total(g.cast(reached, np.dtype(np.float32)), rank), whole)
    scale = g.op("Gather", g.constant(_PIECES * 2.0 ** -np.arange(_OCTAVES)), octave)
    along = g.op("Sub", g.op("Mul", odd, scale), g.constant(_PIECES, np.float64))
    piece = g.cast(along, whole)
    place = g.op("Add", g.op("Mul", octave, g.constant(np.array(_PIECES))), piece)
    part = g.cast(g.op("Sub", along, g.cast(piece, double)), np.dtype(np.float32))
    begin, slope = (g.op("Gather", g.constant(table), place) for table in _quantiles())
    size = g.op("Add", begin, g.op("Mul", part, slope))
    sign = g.op("Sub", g.constant(1, np.float32), g.cast(g.op("Add", upper, upper), np.dtype(np.float32)))
    g.op_to(output, "Mul", sign, size)


@cache
def _quantiles() -> tuple[np.ndarray, np.ndarray]:
    """Where each piece of the table begins, and how much further its end is; above 0."""
    ends = [[2.0**octave * (1 + piece / _PIECES) for piece in range(_PIECES + 1)] for octave in range(_OCTAVES)]
    sizes = np.array([[-NormalDist().inv_cdf(end / 2**33) for end in octave] for octave in ends])
    return sizes[:, :-1].reshape(-1).astype(np.float32), np.diff(sizes).reshape(-1).astype(np.float32)
