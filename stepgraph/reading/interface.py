"""Finds the state in a model's interface: inputs that start the cells and outputs that return how they ended.

Follows the graph from each cell through operators that only rearrange values; ignores names. Pure onnx.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import onnx

from stepgraph.cells import operators
from stepgraph.errors import ModelRefused
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import RESHAPING

_MOVES = RESHAPING | {"Concat", "Gather", "Slice", "Split", "TopK"}  # TopK sorts sequences by their lengths

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

    @property
    def inputs(self) -> frozenset[str]:
        return frozenset((*(name for name, _ in self.states), *self.starts, *self.lengths))

    @property
    def returned(self) -> frozenset[str]:
        return frozenset(output for _, output in self.states)


def find(graph: Graph, cells: Sequence[Carrier], declared: Mapping[str, str] = _NOTHING) -> Interface:
    """Says what the inputs of a model, whose recurrent nodes and loops are `cell`, are for.

    `declared` are the pairs of an input and an output that are said to be state; they go before what is found.
    """
    flow = _Flow(graph)
    _check_declared(flow, declared)
    fed: dict[str, set[State]] = defaultdict(set)
    returned: dict[str, set[State]] = defaultdict(set)
    shown: dict[str, set[State]] = defaultdict(set)  # the last hidden state is the end of Y, too
    for i, cell in enumerate(cells):
        for k, initial in enumerate(cell.initial):
            for name in flow.sources(initial or ""):
                fed[name].add((i, k))
            for name in flow.sinks(cell.outputs[1 + k]):
                returned[name].add((i, k))
                shown[name].add((i, k))
        for name in flow.sinks(cell.outputs[0]):
            shown[name].add((i, 0))
    states, starts, carried = list(declared.items()), list[str](), set[State]()
    for name, of in fed.items():
        if name in declared:
            carried.update(of)
            continue
        matches = [output for output, states_of in returned.items() if states_of == of]
        matches = matches or [o for o, states_of in shown.items() if states_of == of and flow.alike(o, name)]
        if len(matches) > 1:
            matches = [output for output in matches if flow.shape(output) == flow.shape(name)]
        matches = matches[-1:]  # they hold the same numbers, and answers stand before states as a rule
        states.extend((name, output) for output in matches)
        starts.extend([name] if not matches else [])
        carried.update(of if matches else ())
    lengths = {name for cell in cells for name in flow.sources(operators.lengths(cell.node))}
    starts = starts if flow.inputs.keys() - {*dict(states), *starts, *lengths} else []  # something must be data
    holds = {name: frozenset(of) for name, of in fed.items()}
    return Interface(tuple(states), tuple(starts), tuple(sorted(lengths)), frozenset(carried), holds)


def reset(known: Interface) -> Interface:
    """The same, but that no state goes from step to step through the interface: what starts cells is zeros."""
    starts = (*known.starts, *(name for name, _ in known.states))
    return Interface((), starts, known.lengths)


def _check_declared(flow: "_Flow", declared: Mapping[str, str]) -> None:
    for name, output in declared.items():
        for kind, end, known in (("input", name, flow.inputs), ("output", output, flow.outputs)):
            if end not in known:
                raise ModelRefused(
                    f"model.toml says that '{name}' becomes '{output}', and the model has no {kind} '{end}'; it has "
                    f"{', '.join(known)}"
                )


class _Flow:
    """Where tensors come from and go to, through operators that only rearrange values."""

    def __init__(self, graph: Graph) -> None:
        self.inputs, self._makers = graph.inputs, graph.makers
        self.outputs = {info.name: info for info in graph.model.graph.output}
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.nodes:
            for name in _moved(node):
                self._users[name].append(node)

    def sources(self, tensor: str) -> Iterator[str]:
        if tensor in self.inputs:
            yield tensor
        elif tensor in self._makers:
            for name in _moved(self._makers[tensor]):
                yield from self.sources(name)

    def sinks(self, tensor: str) -> Iterator[str]:
        if not tensor:
            return
        if tensor in self.outputs:
            yield tensor
        for node in self._users[tensor]:
            for name in node.output:
                yield from self.sinks(name)

    def alike(self, output: str, name: str) -> bool:
        """Whether an output may have the shape of an input: sizes agree where both are known."""
        given, returned = self.shape(name), self.shape(output)
        sizes = zip(given, returned, strict=False)
        return len(given) == len(returned) and all(a == b for a, b in sizes if isinstance(a, int) or isinstance(b, int))

    def shape(self, name: str) -> list[int | str]:
        info = self.inputs.get(name) or self.outputs[name]
        return [d.dim_value or d.dim_param for d in info.type.tensor_type.shape.dim]


def _moved(node: onnx.NodeProto) -> list[str]:
    """The inputs whose values an operator rearranges; none if it computes."""
    if node.op_type not in _MOVES:
        return []
    return [name for name in (node.input if node.op_type == "Concat" else node.input[:1]) if name]
