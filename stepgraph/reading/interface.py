"""Finds the state in a model's interface: inputs that start the cells and outputs that return how they ended.

Follows the graph from each cell through operators that only rearrange values, and where that leads to no input,
through all that work on each value by itself (a mask, a norm, a row of a cache); ignores names. Pure onnx.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import onnx

from stepgraph.cells import operators
from stepgraph.cells.kinds import operator_of
from stepgraph.errors import ModelRefused
from stepgraph.graphs.graph import MEASURING, Graph
from stepgraph.graphs.labels import RESHAPING
from stepgraph.graphs.nodes import captured

_MOVES = RESHAPING | {"Concat", "Gather", "Slice", "Split", "TopK"}  # TopK sorts sequences by their lengths
_MIXING = MEASURING | {"Conv", "Einsum", "Gemm", "If", "Loop", "MatMul", "Scan"}  # what comes out is no state any more

State = tuple[int, int]  # which carrier, and which of its states
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Carrier(Protocol):
    """What carries states from step to step: a cell or a loop.

    `initial` are the tensors that its states begin with, `outputs` its output for each step ("" for none) and then
    the tensors that its states end with.
    """

    @property
    def node(self) -> onnx.NodeProto: ...

    @property
    def initial(self) -> Sequence[str | None]: ...

    @property
    def outputs(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Interface:
    """What the inputs of a model are for. All others are data that comes step by step.

    `slots`: pairs of an input and the output that it becomes at the next step. `starts`: inputs that start a cell and
    are never returned: a sequence starts from zeros. `lengths`: how many steps each sequence of a batch has.
    """

    states: tuple[tuple[str, str], ...] = ()
    starts: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()
    carried: frozenset[State] = frozenset()  # the states of cells and loops that are in `slots`
    holds: Mapping[str, frozenset[State]] = field(default_factory=dict)  # which these are, by input
    computed: frozenset[str] = frozenset()

    @property
    def inputs(self) -> frozenset[str]:
        return frozenset((*(name for name, _ in self.states), *self.starts, *self.lengths))

    @property
    def returned(self) -> frozenset[str]:
        return frozenset(output for _, output in self.states)


def find(graph: Graph, cells: Sequence[Carrier], declared: Mapping[str, str] = _NOTHING) -> Interface:
    """Says what the inputs of a model, whose recurrent nodes and loops are `cells`, are for.

    `declared` are the pairs of an input and an output that are said to be state; they go before what is found.
    """
    moved = _Flow(graph, _moved)
    _check_declared(moved, declared)
    ends = _Ends(moved, cells)
    states, starts, carried = list(declared.items()), list[str](), set[State]()
    for name, of in ends.fed.items():
        if name in declared:
            carried.update(of)
            continue
        matches = ends.returning(name)
        states.extend((name, output) for output in matches)
        starts.extend([name] if not matches else [])
        carried.update(of if matches else ())
    bent = _Ends(_Flow(graph, _computed), cells)
    known = dict(states)
    found = [(name, output) for name, output in bent.pairs() if name not in known and output not in known.values()]
    holds = ends.fed | {name: bent.fed[name] for name in (*declared, *dict(found)) if bent.fed.get(name)}
    carried.update(*(holds.get(name, ()) for name in (*declared, *dict(found))))
    states.extend(found)
    lengths = {name for cell in cells for name in moved.sources(operators.lengths(cell.node))}
    starts = [name for name in starts if name not in dict(found)]
    starts = starts if moved.inputs.keys() - {*dict(states), *starts, *lengths} else []  # something must be data
    return Interface(
        tuple(states),
        tuple(starts),
        tuple(sorted(lengths)),
        frozenset(carried),
        {name: frozenset(of) for name, of in holds.items()},
        frozenset(dict(found).keys() - ends.fed.keys()),
    )


def reset(known: Interface) -> Interface:
    """The same, but that no state goes from step to step through the interface: what starts cells is zeros.

    What is computed on its way is data then: its zeros may not be the cells'.
    """
    starts = (*known.starts, *(name for name, _ in known.states if name not in known.computed))
    return Interface((), starts, known.lengths)


def rearranged(graph: Graph, name: str) -> list[str]:
    """The outputs that hold numbers of an input as they are, as one does to which a buffer is returned."""
    return _Flow(graph, _moved).sinks(name)


def _check_declared(flow: "_Flow", declared: Mapping[str, str]) -> None:
    for name, output in declared.items():
        for kind, end, known in (("input", name, flow.inputs), ("output", output, flow.outputs)):
            if end not in known:
                raise ModelRefused(
                    f"model.toml says that '{name}' becomes '{output}', and the model has no {kind} '{end}'; it has "
                    f"{', '.join(known)}"
                )


class _Ends:
    """Where the states of the cells come from and go to.

    `_shown` are the outputs of every step too, whose end is the last hidden state.
    """

    def __init__(self, flow: "_Flow", cells: Sequence[Carrier]) -> None:
        self._flow = flow
        self.fed: dict[str, set[State]] = defaultdict(set)
        self._returned: dict[str, set[State]] = defaultdict(set)
        self._shown: dict[str, set[State]] = defaultdict(set)
        for i, cell in enumerate(cells):
            for k, initial in enumerate(cell.initial):
                for name in flow.sources(initial or ""):
                    self.fed[name].add((i, k))
                for name in flow.sinks(cell.outputs[1 + k]):
                    self._returned[name].add((i, k))
                    self._shown[name].add((i, k))
            for name in flow.sinks(cell.outputs[0]):
                self._shown[name].add((i, 0))

    def returning(self, name: str) -> list[str]:
        """The output that holds what an input held, if there is one."""
        of = self.fed[name]
        matches = [output for output, states_of in self._returned.items() if states_of == of]
        matches = matches or [
            o for o, states_of in self._shown.items() if states_of == of and self._flow.alike(o, name)
        ]
        if len(matches) > 1:
            matches = [output for output in matches if self._flow.shape(output) == self._flow.shape(name)]
        return matches[-1:]  # they hold the same numbers, and answers stand before states as a rule

    def pairs(self) -> list[tuple[str, str]]:
        """Inputs and outputs of one shape and type that the same states go in and out by, where only one fits."""
        fitting = [
            (name, output)
            for name, of in self.fed.items()
            for output, states_of in self._shown.items()
            if of == states_of and self._flow.same(output, name)
        ]
        names, outputs = ([pair[i] for pair in fitting] for i in (0, 1))
        return [pair for pair in fitting if names.count(pair[0]) == outputs.count(pair[1]) == 1]


class _Flow:
    """Where tensors come from and go to, through the inputs of each node that are `followed`."""

    def __init__(self, graph: Graph, followed: Callable[[onnx.NodeProto], Iterable[str]]) -> None:
        self.inputs, self._makers, self._followed = graph.inputs, graph.makers, followed
        self.outputs = {info.name: info for info in graph.model.graph.output}
        self._made: dict[str, list[str]] = defaultdict(list)
        for node in graph.nodes:
            for name in followed(node):
                self._made[name].extend(filter(None, node.output))

    def sources(self, tensor: str) -> list[str]:
        seen = _reached(tensor, lambda name: self._followed(self._makers[name]) if name in self._makers else ())
        return [name for name in seen if name in self.inputs]

    def sinks(self, tensor: str) -> list[str]:
        seen = _reached(tensor, lambda name: self._made.get(name, ()))
        return [name for name in seen if name in self.outputs]

    def alike(self, output: str, name: str) -> bool:
        """Whether an output may have the shape of an input: sizes agree where both are known."""
        given, returned = self.shape(name), self.shape(output)
        sizes = zip(given, returned, strict=False)
        return len(given) == len(returned) and all(a == b for a, b in sizes if isinstance(a, int) or isinstance(b, int))

    def same(self, output: str, name: str) -> bool:
        """Whether an output has the type of an input and, as far as sizes are known, its shape."""
        sizes = list(zip(self.shape(name), self.shape(output), strict=False))
        ranks = len(self.shape(name)) == len(self.shape(output)) > 0
        fits = all(a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int))
        sized = any(isinstance(a, int) for a, _ in sizes)
        return ranks and fits and sized and self._kind(output) == self._kind(name)

    def shape(self, name: str) -> list[int | str]:
        return [d.dim_value or d.dim_param for d in self._info(name).type.tensor_type.shape.dim]

    def _kind(self, name: str) -> int:
        return self._info(name).type.tensor_type.elem_type

    def _info(self, name: str) -> onnx.ValueInfoProto:
        return self.inputs.get(name) or self.outputs[name]


def _reached(tensor: str, further: Callable[[str], Iterable[str]]) -> dict[str, None]:
    """All names that are reached from one, in the order of their discovery; none from ""."""
    seen, waiting = dict[str, None](), [tensor]
    while waiting:
        name = waiting.pop()
        if name and name not in seen:
            seen[name] = None
            waiting.extend(reversed(list(further(name))))
    return seen


def _moved(node: onnx.NodeProto) -> list[str]:
    """The inputs whose values an operator rearranges; none if it computes."""
    if node.op_type not in _MOVES:
        return []
    return [name for name in (node.input if node.op_type == "Concat" else node.input[:1]) if name]


def _computed(node: onnx.NodeProto) -> list[str]:
    """The inputs of an operator whose values are still told apart in what it makes."""
    return [] if node.op_type in _MIXING or operator_of(node) else [*filter(None, node.input), *captured(node)]
