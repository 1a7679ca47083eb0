"""The answers of an original file after each step of a sequence, against which its step graph is proved.

Runs the file's own operators with onnxruntime. Does not know what a step graph answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx

from stepgraph.cells.operators import CellNode
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import copied, return_too
from stepgraph.proving import last_digits
from stepgraph.rewriting import runnable
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.stepgraph import PREFIX, StepGraph
from stepgraph.running import session

Data = dict[str, np.ndarray]  # [T, B, ...row] by input
_NOTHING: Data = {}


@dataclass(frozen=True, eq=False)
class Original:
    """What is proved against: the file, its recurrent nodes, and, where axes were freed, the file as it was."""

    graph: Graph
    cells: Sequence[CellNode]
    fixed: onnx.ModelProto | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer after a step, [B, ...row] each: outputs by name, states by their columns of the step graph.

    `whole` is what the file returned for all steps so far, in its own axes.
    """

    outputs: Mapping[str, np.ndarray]
    states: Mapping[tuple[int | None, str], np.ndarray]
    whole: Mapping[str, np.ndarray]

    def values(self) -> Sequence[np.ndarray]:
        """All outputs and states."""
        return (*self.outputs.values(), *self.states.values())


class Reference:
    """The original file, run for each step.

    `model` is what the `runner` runs: the file in operators that onnxruntime has, which also returns the states that
    `graph` keeps.
    """

    def __init__(self, original: Original, facts: Facts, graph: StepGraph) -> None:
        shown, self._ends = _showing_states(original.graph.model, original.cells, graph)
        self.model = runnable.runnable(shown)
        self._facts = facts
        self.runner = session.create(self.model)

    def inexact(self) -> Self:
        """The same with the last digits of its numbers moved."""
        other = copy(self)
        other.runner = session.create(last_digits.moved(self.model))
        return other

    def answers(self, data: Data, begun: Data = _NOTHING) -> Iterator[Answer]:
        """After each step that has one; from zeros, or from the states `begun`, [B, ...row] by input."""
        states = self._states(begun)
        return self._one_by_one(data, states) if self._facts.one_step else self._prefixes(data, states)

    def last(self, data: Data, begun: Data = _NOTHING) -> Answer:
        """After the last step; as `answers`."""
        length, batch = size(data)
        states = self._states(begun)
        if not self._facts.one_step:
            return self._answer(self._facts.feeds(data, batch, length) | states, batch)
        *_, last = self._one_by_one(data, states)
        return last

    def _states(self, begun: Data) -> Data:
        """The states `begun` in the file's own axes."""
        carried = (c.given for c in self._facts.carried)
        return {port.name: port.original(begun[port.name][np.newaxis]) for port in carried if begun}

    def _prefixes(self, data: Data, states: Data) -> Iterator[Answer]:
        length, batch = size(data)
        for steps in range(1 + self._facts.lead, length + 1):
            prefix = {name: x[:steps] for name, x in data.items()}
            yield self._answer(self._facts.feeds(prefix, batch, steps) | states, batch)

    def _one_by_one(self, data: Data, states: Data) -> Iterator[Answer]:
        length, batch = size(data)
        for step in range(length):
            one = {name: x[step : step + 1] for name, x in data.items()}
            answer = self._answer(self._facts.feeds(one, batch, 1) | states, batch)
            yield answer
            states = {c.given.name: answer.whole[c.returned.name] for c in self._facts.carried}

    def _answer(self, feeds: Data, batch: int) -> Answer:
        ports = (*self._facts.outputs, *(carried.returned for carried in self._facts.carried))
        names = list(dict.fromkeys((*(port.name for port in ports), *self._ends.values())))
        values = dict(zip(names, session.run(self.runner, names, feeds), strict=True))
        states: dict[tuple[int | None, str], np.ndarray] = {
            (None, c.given.name): c.returned.last(values[c.returned.name]) for c in self._facts.carried
        }
        states |= {key: values[tensor] for key, tensor in self._ends.items()}
        return Answer(
            {port.name: port.last(values[port.name]) for port in self._facts.outputs},
            {key: value.reshape(batch, -1) for key, value in states.items()},
            values,
        )


def size(data: Data) -> tuple[int, int]:
    length, batch = next(iter(data.values())).shape[:2]
    return length, batch


def begin(graph: StepGraph, batch: int, begun: Data) -> np.ndarray:
    """The states [B, W] of new sequences, those of the interface as `begun` has them."""
    state = graph.start(batch)
    for columns in (each for each in graph.state if each.layer is None and each.name in begun):
        state[:, columns.span] = begun[columns.name].reshape(batch, -1)
    return state


def sequences(facts: Facts, length: int, batch: int, seed: int) -> Data:
    """Random steps for each input, so many after those that have no answer.

    What has no time axis beside others that have one stays the same.
    """
    data = facts.sample(facts.lead + length, batch, np.random.default_rng(seed))
    for port in facts.inputs:
        if port.time is None and not facts.one_step:
            data[port.name][:] = data[port.name][0]
    return data


def _showing_states(
    model: onnx.ModelProto, cells: Sequence[CellNode], graph: StepGraph
) -> tuple[onnx.ModelProto, dict[tuple[int | None, str], str]]:
    """A copy that also returns how the cells end whose states the step graph keeps, and the names of those tensors."""
    shown = copied(model)
    nodes = {next(filter(None, node.output), ""): node for node in shown.graph.node}
    ends = dict[tuple[int | None, str], str]()
    for columns in graph.state:
        if columns.layer is None:
            continue
        cell = cells[columns.layer]
        node = nodes[next(filter(None, cell.node.output))]
        name = cell.operator.outputs[1 + cell.cell.states.index(columns.name)]
        tensor = cell.operator.made(node, name) or f"{PREFIX}end/{columns.layer}/{columns.name}"
        cell.operator.make(node, name, tensor)
        ends[columns.layer, columns.name] = tensor
    return_too(shown, ends.values())
    return shown, ends
