"""Finds the operators `Loop` and `Scan` of a model, and takes one that runs once for each step out of the graph.

A recurrence that an exporter wrote as such a loop carries tensors from one iteration to the next. One step of it is its
body, once, with these as states. Pure onnx: `iterations` learns how often a loop runs and which tensors are states.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from stepgraph.graphs import inlining
from stepgraph.graphs.builder import GraphBuilder, rebuilt
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import attributes, captured, copied, opset, reachable

_WHOLE = frozenset({onnx.TensorProto.INT32, onnx.TensorProto.INT64})
_PREFIX = "tidegate.loops/"
_ALIKE = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})  # they leave a number as it is
_PICKS: dict[str, tuple[int, ...]] = {
    "Gather": (1,),
    "GatherND": (1,),
    "GatherElements": (1,),
    "ScatterND": (1,),
    "ScatterElements": (1,),
}
_PICKS |= {"Slice": (1, 2), "SequenceAt": (1,), "SequenceInsert": (2,)}


@dataclass(frozen=True, eq=False)
class LoopNode:
    """A node `Loop` or `Scan` and its body.

    `names` is what the body calls the tensors that it carries, `initial` what they are called around the loop before
    it has run, and `last` after it, with "" where the model does not use it.
    """

    node: onnx.NodeProto
    name: str  # unlike that of any other loop
    body: onnx.GraphProto
    scan_inputs: int  # how many tensors a `Scan` takes apart step by step

    @property
    def names(self) -> tuple[str, ...]:
        first = 2 if self.node.op_type == "Loop" else 0
        return tuple(info.name for info in self.body.input)[first : first + len(self.initial)]

    @property
    def initial(self) -> tuple[str, ...]:
        return tuple(self.node.input[2:] if self.node.op_type == "Loop" else self.node.input[: self._carried])

    @property
    def last(self) -> tuple[str, ...]:
        return (*self.node.output, *[""] * self._carried)[: self._carried]

    @property
    def returned(self) -> tuple[str, ...]:
        first = 1 if self.node.op_type == "Loop" else 0
        return tuple(info.name for info in self.body.output)[first : first + self._carried]

    @property
    def outputs(self) -> tuple[str, ...]:
        """As of a cell: the output for each step, here none, then the last states."""
        return ("", *self.last)

    @property
    def _carried(self) -> int:
        return len(self.node.input) - (2 if self.node.op_type == "Loop" else self.scan_inputs)

    def axes(self, attribute: str, count: int) -> list[int]:
        return list(attributes(self.node).get(attribute, [])) or [0] * count

    @property
    def backwards(self) -> bool:
        return any(self.axes("scan_input_directions", 0)) or any(self.axes("scan_output_directions", 0))

    def keeps(self, index: int) -> bool:
        makers = {name: node for node in self.body.node if node.op_type == "Identity" for name in node.output}
        name = self.returned[index]
        while name in makers:
            name = makers[name].input[0]
        return name == self.names[index]

    def counting(self) -> str | None:
        """The operator whose use of the iteration's number matters, as a refusal names it; None if there is none."""
        numbers = {*self._numbers()}
        matters = [name for name in self.returned if name not in numbers] + [
            info.name for info in self._sliced_outputs()
        ]
        for node in reachable(self.body.node, matters):
            picked = _PICKS.get(node.op_type, ())
            if not any(name in numbers and i not in picked for i, name in enumerate(node.input)):
                continue
            if node.op_type not in _ALIKE:
                return label(node)
            numbers.update(node.output)
        return None

    def stops(self) -> bool:
        """Whether numbers that it carries, beside those that count, decide when it ends."""
        nodes = reachable(self.body.node, [self.body.output[0].name]) if self.node.op_type == "Loop" else []
        needed = {name for node in nodes for name in (*node.input, *captured(node))}
        return not needed.isdisjoint({*self.names} - {*self._numbers()})

    def _numbers(self) -> Iterator[str]:
        """The number of the iteration, and whole numbers that are carried and have no row for each sequence."""
        if self.node.op_type == "Loop":
            yield self.body.input[0].name
        infos = {info.name: info.type.tensor_type for info in self.body.input}
        for name, returned in zip(self.names, self.returned, strict=True):
            if infos[name].elem_type in _WHOLE and not infos[name].shape.dim:
                yield from (name, returned)

    def _sliced_outputs(self) -> Sequence[onnx.ValueInfoProto]:
        return self.body.output[len(self.initial) + (1 if self.node.op_type == "Loop" else 0) :]


STOPPING = "{} stops by what it computes: let it run once for each step, whatever that holds"


def find(model: onnx.ModelProto) -> tuple[LoopNode, ...]:
    """The loops of the graph itself, not those in the subgraphs of other nodes."""
    found = list[LoopNode]()
    for node in model.graph.node:
        if node.op_type == "Loop" or (node.op_type == "Scan" and opset(model) > 8):  # it was another operator before
            known = {loop.name for loop in found}
            name = name_of(node) if name_of(node) not in known else next(filter(None, node.output))
            given = attributes(node)
            found.append(LoopNode(node, name, given["body"], given.get("num_scan_inputs", 0)))
    return tuple(found)


def objection(loop: LoopNode) -> str:
    """Why a loop whose single steps do not give what the whole gives cannot be served, as a sentence."""
    counting = loop.counting()
    if counting:
        return (
            f"its body computes with the number of the iteration, in {counting}, and a step of a stream has none. "
            "Let every step be computed alike"
        )
    return (
        "its body sees more of the input than the step that it is at, or carries something that has no row for each "
        "sequence. Let every step be computed from that step of the input and from the states of its sequence"
    )


def counted(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy in which every loop returns how often it ran and its last values, and the names of these counts.

    Outputs of a loop that the model does not use have names in it: see `LoopNode.last`. The model itself if it has no
    loops.
    """
    if not find(model):
        return model, ()
    copy = copied(model)
    g = GraphBuilder(_PREFIX, opset(model))
    nodes, names = list(copy.graph.node), list[str]()
    for loop in find(copy):
        _name_last(g, loop)
        g.nodes = []
        names.append(_count(g, loop))
        place = nodes.index(loop.node) + 1
        nodes[place:place] = g.nodes
    return rebuilt(copy, nodes, g), tuple(names)


def _name_last(g: GraphBuilder, loop: LoopNode) -> None:
    missing = len(loop.last) - len(loop.node.output)
    loop.node.output.extend([""] * missing)
    for i, name in enumerate(loop.last):
        loop.node.output[i] = name or g.name("last")


def _count(g: GraphBuilder, loop: LoopNode) -> str:
    if loop.node.op_type == "Scan":
        axis = loop.axes("scan_input_axes", loop.scan_inputs)[0]
        shape = g.op("Shape", loop.node.input[len(loop.initial)])
        return g.op("Gather", shape, g.constant(axis, np.int64))
    number = g.name("number")
    loop.body.node.append(helper.make_node("Identity", [loop.body.input[0].name], [number]))
    loop.body.output.append(helper.make_tensor_value_info(number, onnx.TensorProto.INT64, None))
    missing = len(loop.body.output) - 2 - len(loop.node.output)
    loop.node.output.extend([""] * missing)
    loop.node.output.append(g.name("numbers"))
    return g.op("Size", loop.node.output[-1])


@dataclass(frozen=True)
class Ends:
    """The names under which a state of a loop goes into the graph of one step, and comes out of it."""

    given: str
    returned: str


def ends(loop: LoopNode) -> tuple[Ends, ...]:
    return tuple(Ends(f"{loop.name}/{name}", f"{loop.name}/{name}/next") for name in loop.names)


def stepped(model: onnx.ModelProto, loops: Sequence[LoopNode], once: Mapping[str, Sequence[bool]]) -> onnx.ModelProto:
    """A copy in which some of the `loops` of a model have become their bodies, for one step.

    `once` says, by the names of these loops, which of the tensors that they carry are states: such a tensor is an input
    and an output of the copy, under the names of `ends`. The others begin anew at every step.
    """
    copy = copied(model)
    by_output = {tuple(loop.node.output): loop for loop in loops if loop.name in once}
    nodes, g = list[onnx.NodeProto](), GraphBuilder(_PREFIX, opset(model))
    for node in model.graph.node:
        loop = by_output.get(tuple(node.output))
        g.nodes = []
        if loop:
            _step(g, loop, once[loop.name], copy.graph)
        nodes.extend(g.nodes if loop else [node])
    return rebuilt(copy, nodes, g)


def _step(g: GraphBuilder, loop: LoopNode, states: Sequence[bool], graph: onnx.GraphProto) -> None:
    within = list(zip(ends(loop), states, strict=True))
    before = [end.given if state else name for (end, state), name in zip(within, loop.initial, strict=True)]
    inputs = dict(zip((info.name for info in loop.body.input), _inputs(g, loop, before), strict=True))
    inner = inlining.inline(loop.body, inputs, f"{g.name('body')}/")
    g.nodes.extend(inner.nodes)
    graph.initializer.extend(inner.initializers)
    results = inner.outputs[1 if loop.node.op_type == "Loop" else 0 :]
    for (end, state), result in zip(within, results, strict=False):
        if state:
            g.op_to(end.returned, "Identity", result)
            graph.input.append(onnx.ValueInfoProto(name=end.given))
            graph.output.append(onnx.ValueInfoProto(name=end.returned))
    carried, sliced = len(within), len(results) - len(within)
    axes = [*[None] * carried, *loop.axes("scan_output_axes", sliced)]
    for output, result, axis in zip(loop.node.output, results, axes, strict=False):
        if output and axis is None:
            g.op_to(output, "Identity", result)
        elif output and axis is not None:
            g.unsqueeze(result, axis, output)


def _inputs(g: GraphBuilder, loop: LoopNode, before: Sequence[str]) -> list[str]:
    """What the inputs of the body are at a step: it is always the first of its iterations."""
    if loop.node.op_type == "Loop":
        return [g.constant(0, np.int64), g.constant(np.array(True)), *before]
    slices = loop.node.input[len(before) :]
    axes = loop.axes("scan_input_axes", len(slices))
    return [*before, *(g.squeeze(name, axis) for name, axis in zip(slices, axes, strict=True))]
