"""Runs a file with random data, at the sizes that a guess gives to its free axes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx
from onnx import helper

from stepgraph.errors import StepFailed
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import copied, reachable, refill, returning
from stepgraph.reading.growth import SIZES
from stepgraph.reading.guess import Guess, dims_of
from stepgraph.reading.interface import Interface
from stepgraph.reading.tables import Tables
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.running import session

Values = dict[str, np.ndarray]

_MOST_NUMBERS = 2**22  # in an input, to find out how a long signal is cut


class Trial:
    """A file to be run, which also returns the tensors `seen`, and those `within` one by one.

    The first run shows whether inputs must be positive: some files divide by them, or take their logarithm.
    """

    def __init__(self, graph: Graph, interface: Interface, seen: Sequence[str], within: Sequence[str]) -> None:
        self._model = graph.model
        self._interface = interface
        self._seen = list(dict.fromkeys(seen))
        self._infos = graph.inputs
        self.dims = {name: dims_of(info) for name, info in self._infos.items()}
        self.outputs = [output.name for output in graph.model.graph.output]
        self.data = [name for name in self._infos if name not in interface.inputs]
        self._tables = {name: Tables(graph, name) for name in self.data}
        self._within = within
        self._positive = frozenset[str]()  # kinds of numbers, "f" or "i", that must be above zero

    @cached_property
    def _session(self) -> session.Session:
        return session.create(returning(self._model, (*self._seen, *self._within)))

    def dtype(self, name: str) -> np.dtype:
        return helper.tensor_dtype_to_np_dtype(self._infos[name].type.tensor_type.elem_type)

    def suited(self, port: Port) -> Port:
        """The port with what random values suit it."""
        port = replace(port, positive=self._above_zero(port.dtype))
        if not self._tables.get(port.name):
            return port
        limits = port.steps(self._tables[port.name].limits(port.shape(1, 1), port.dtype))
        return replace(port, below=tuple(limits.ravel().tolist()) if limits.any() else ())

    def runs(self, guess: Guess) -> list[Values]:
        """The values of all inputs, outputs and tensors seen, at the three sizes."""
        sizes = [(batch if guess.batch else 1, time if guess.time else 1) for batch, time in SIZES]
        runs = self._all(guess, sizes) if self._takes_zero(guess) else None
        if runs is None or not _finite(runs[0]):
            runs = self._positive_runs(guess, sizes) or runs or self._all(guess, sizes)
        return runs

    def values(self, names: Sequence[str], facts: Facts, batch: int, time: int, seed: int) -> Values:
        """The values of inputs and of tensors `within` for random data of that seed; so many steps are answered."""
        time += facts.lead
        feeds = facts.feeds(facts.sample(time, batch, np.random.default_rng(seed)), batch, time)
        computed = [name for name in names if name not in feeds]
        return feeds | dict(zip(computed, session.run(self._session, computed, feeds), strict=True))

    def lengths(self, tensor: str, axis: int, guess: Guess, samples: Sequence[int]) -> Iterator[tuple[int, int]]:
        """How long an axis of a tensor is for each length of the time axis at which the file runs up to there."""
        front = session.create(_up_to(self._model, tensor))
        longest = max(math.prod(guess.size(d, SIZES[0][0], 1) for d in self.dims[name]) for name in self.data)
        for length in (each for each in samples if each * longest <= _MOST_NUMBERS):
            feeds = {name: self._fill(name, guess, SIZES[0][0], length) for name in self._infos}
            try:
                (value,) = session.run(front, [tensor], feeds)
            except StepFailed:
                continue
            yield length, value.shape[axis]

    def _all(self, guess: Guess, sizes: Sequence[tuple[int, int]]) -> list[Values]:
        return [self._run(guess, batch, time) for batch, time in sizes]

    def _takes_zero(self, guess: Guess) -> bool:
        """Whether whole numbers that pick from no table may be zero: some files divide by them."""
        if not any(self.dtype(name).kind in "iu" and not self._tables[name] for name in self.data):
            return True
        try:
            return _finite(self._run(guess, 1, SIZES[0][1] if guess.time else 1, zero=True))
        except StepFailed:
            return False

    def _positive_runs(self, guess: Guess, sizes: Sequence[tuple[int, int]]) -> list[Values] | None:
        """Runs with numbers above zero, for a file that divides by its input or takes its logarithm."""
        for kinds in ("i", "if"):
            self._positive = frozenset(kinds)
            runs = self._all(guess, sizes)
            if _finite(runs[0]):
                return runs
        self._positive = frozenset()
        return None

    def _above_zero(self, dtype: np.dtype) -> bool:
        return ("f" if dtype.kind == "f" else "i") in self._positive

    def _run(self, guess: Guess, batch: int, time: int, zero: bool = False) -> Values:
        wanted = dict.fromkeys([*self.outputs, *self._seen])
        feeds = {name: self._fill(name, guess, batch, time) for name in self._infos}
        if zero:
            feeds |= {n: np.zeros_like(feeds[n]) for n in self.data if feeds[n].dtype.kind != "f"}
        computed = [name for name in wanted if name not in feeds]
        ran = session.run(self._session, computed, feeds) if computed else []
        return feeds | dict(zip(computed, ran, strict=True))

    def _fill(self, name: str, guess: Guess, batch: int, time: int) -> np.ndarray:
        """A value for an input: zeros for a state, the length for lengths, else random data."""
        dtype, known = self.dtype(name), self._interface
        at = replace(guess, time=frozenset()) if name in known.inputs else guess
        shape = tuple(at.size(d, batch, time) for d in self.dims[name])
        if name in known.inputs:
            return np.full(shape, time + guess.lead if name in known.lengths else 0, dtype)
        port = self.suited(Port(name, dtype, shape[1:], 0 if shape else None, None))
        return port.original(port.sample(1, shape[0] if shape else 1, np.random.default_rng(0)))


def _finite(run: Mapping[str, np.ndarray]) -> bool:
    """Whether the outputs and what the cells see are finite."""
    floats = (value for value in run.values() if session.is_tensor(value) and value.dtype.kind == "f")
    return all(bool(np.isfinite(value).all()) for value in floats)


def _up_to(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The part of a model that computes a tensor: a long signal is cut into blocks without running what comes after."""
    copy = copied(model)
    refill(copy.graph.node, reachable(model.graph.node, [tensor]))
    refill(copy.graph.output, [onnx.ValueInfoProto(name=tensor)])
    return copy
