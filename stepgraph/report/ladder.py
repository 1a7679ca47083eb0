"""A model as a ladder of layers: inputs, the operators around the cells condensed to words, the cells, outputs.

Pure onnx. Reads any graph, also that of a refused file.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from stepgraph.cells.operators import is_recurrent
from stepgraph.graphs.labels import RESHAPING, name_of
from stepgraph.graphs.nodes import subgraphs
from stepgraph.report.words import Box, Constants, Word, declared

_UNSEEN = frozenset({"Identity", "Dropout"})  # they change nothing
MOVES = RESHAPING | _UNSEEN


@dataclass(frozen=True)
class Rung:
    """A step of the ladder. `above` are the indices of the rungs that it reads from."""

    kind: Literal["input", "operators", "cell", "output"]
    name: str
    above: tuple[int, ...]
    words: tuple[Word, ...] = ()
    box: Box | None = None
    declared: str = ""  # the shape and type of an input or output, as the file has it


def read(model: onnx.ModelProto, left_out: Collection[str] = ()) -> tuple[Rung, ...]:
    """The ladder of a graph, from top to bottom, without the outputs in `left_out`."""
    return _Reader(model.graph, left_out).rungs()


_Reads = dict[object, set[object]]
_Members = dict[object, list[onnx.NodeProto]]


def _fold(key: object, reads: _Reads, members: _Members) -> object:
    """The only group that reads from a group of reshaping operators; None if there are several, or it computes."""
    if not all(node.op_type in MOVES for node in members[key]):
        return None
    readers = [other for other, above in reads.items() if key in above]
    if len(readers) != 1 or readers[0] not in members or is_recurrent(members[readers[0]][0]):
        return None
    return None if all(node.op_type in MOVES for node in members[readers[0]]) else readers[0]


class _Reader:
    """Follows the data, not the shapes and the states, from the inputs to the outputs."""

    def __init__(self, graph: onnx.GraphProto, left_out: Collection[str]) -> None:
        self._constants = Constants(graph)
        self._infos = {info.name: info for info in (*graph.input, *graph.output)}
        self._inputs = [i.name for i in graph.input if i.name not in self._constants.shapes]
        self._outputs = [o.name for o in graph.output if o.name not in left_out]
        data = set(self._inputs)
        nodes = []
        for node in graph.node:
            if node.op_type not in ("Shape", "Size") and data.intersection(_reads(node)):
                nodes.append(node)
                data.update(filter(None, node.output))
        self._data = data
        self._nodes = self._used(nodes)
        self._up = self._anchors_above()
        self._down = self._anchors_below()

    def rungs(self) -> tuple[Rung, ...]:
        """Groups the nodes between the same inputs, cells and outputs, and orders the groups."""
        keys = [self._key(node) for node in self._nodes]
        reads, members = self._grouped(keys)
        folded = {key: into for key in members if (into := _fold(key, reads, members))}
        if folded:
            reads, members = self._grouped([folded.get(key, key) for key in keys])
        return self._in_order(reads, members)

    def _grouped(self, keys: Sequence[object]) -> tuple[_Reads, _Members]:
        """What each group reads from, and its nodes; `keys` are the groups of the nodes."""
        members: _Members = defaultdict(list)
        home: dict[str, object] = {name: ("input", name) for name in self._inputs if name in self._down}
        for node, key in zip(self._nodes, keys, strict=True):
            members[key].append(node)
            home.update(dict.fromkeys(filter(None, node.output), key))
        reads: _Reads = {("input", name): set() for name in self._inputs if name in self._down}
        for key, nodes in members.items():
            reads[key] = {home[name] for node in nodes for name in self._reads(node)} - {key}
        for name in self._outputs:
            reads["output", name] = {home[name]} if name in home else set()
        return reads, members

    def _in_order(self, reads: _Reads, members: _Members) -> tuple[Rung, ...]:
        """In topological order; what reads the last rung comes next, so that a chain stays together."""
        place: dict[object, int] = {}
        rungs: list[Rung] = []
        last: object = None
        while len(place) < len(reads):
            ready = [key for key, above in reads.items() if key not in place and above <= place.keys()]
            last = next((key for key in ready if last in reads[key]), ready[0])
            place[last] = len(rungs)
            above = tuple(sorted(place[key] for key in reads[last]))
            rungs.append(self._rung(last, above, members.get(last, [])))
        return tuple(rungs)

    def _rung(self, key: object, above: tuple[int, ...], nodes: list[onnx.NodeProto]) -> Rung:
        match key:
            case ("input" | "output" as kind, str(name)):
                return Rung(kind, name, above, declared=declared(self._infos[name]))
        if is_recurrent(nodes[0]):
            word = Word(nodes[0].op_type, (name_of(nodes[0]),))
            return Rung("cell", name_of(nodes[0]), above, (word,), self._constants.box(nodes[0]))
        return Rung("operators", name_of(nodes[0]), above, tuple(self._words(nodes)))

    def _key(self, node: onnx.NodeProto) -> object:
        if is_recurrent(node):
            return ("cell", name_of(node))
        return (self._up[name_of(node)], frozenset().union(*(self._down.get(o, frozenset()) for o in node.output)))

    def _reads(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in _reads(node) if name in self._data]

    def _used(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        needed = set(self._outputs)
        kept = []
        for node in reversed(nodes):
            if is_recurrent(node) or needed.intersection(node.output):
                needed.update(self._reads(node))
                kept.append(node)
        return kept[::-1]

    def _anchors_above(self) -> dict[str, frozenset[str]]:
        """The inputs and cells that each tensor and node is made of, up to the nearest."""
        up = {name: frozenset({name}) for name in self._inputs}
        for node in self._nodes:
            above = _anchors(node, (up[name] for name in self._reads(node)))
            up.update(dict.fromkeys((*filter(None, node.output), name_of(node)), above))
        return up

    def _anchors_below(self) -> dict[str, frozenset[str]]:
        """The outputs and cells that each tensor goes into."""
        down = {name: frozenset({name}) for name in self._outputs}
        for node in reversed(self._nodes):
            below = _anchors(node, (down.get(name, frozenset()) for name in node.output))
            down.update({name: down.get(name, frozenset()) | below for name in self._reads(node)})
        return down

    def _words(self, nodes: Sequence[onnx.NodeProto]) -> Iterator[Word]:
        """The operators in order; a product and its bias are one word."""
        said = set[int]()
        for i, node in enumerate(nodes):
            bias = self._bias(node, nodes)
            if i in said or node.op_type in _UNSEEN:
                continue
            if bias is not None:
                said.add(bias)
            parts = (node, *([nodes[bias]] if bias is not None else []))
            yield Word(self._constants.say(node, bias is not None), tuple(map(name_of, parts)))

    def _bias(self, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> int | None:
        """The index of the Add that puts a constant on top of a product, if nothing else reads the product."""
        if node.op_type != "MatMul":
            return None
        readers = [i for i, other in enumerate(nodes) if node.output[0] in other.input]
        if len(readers) != 1 or nodes[readers[0]].op_type != "Add":
            return None
        return readers[0] if len(self._reads(nodes[readers[0]])) == 1 else None


def _anchors(node: onnx.NodeProto, others: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset({name_of(node)} if is_recurrent(node) else ()).union(*others)


def _reads(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node takes its data from; a cell's is x alone."""
    if is_recurrent(node):
        return [name for name in node.input[:1] if name]
    inner = [n for graph in subgraphs(node) for n in graph.node]
    return [name for name in (*node.input, *(name for n in inner for name in _reads(n))) if name]
