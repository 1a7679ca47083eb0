"""Frees axes that a file fixes: exporters write the sizes of their example unless told otherwise. Pure onnx.

Makes copies to try; does not check that a copy runs and computes the same.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import onnx
from onnx import numpy_helper

from stepgraph.cells.kinds import operator_of
from stepgraph.cells.operators import CellNode
from stepgraph.graphs.builder import GraphBuilder, rebuilt
from stepgraph.graphs.folding import shapes_of
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import attributes, copied, opset, reachable, refill
from stepgraph.reading.guess import dims_of
from stepgraph.reading.interface import Interface

BATCH, TIME = "batch", "time"
_FOREVER = 2**63 - 1  # how often a loop may run that only its condition ends
_SHAPING = frozenset({"Concat", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"})


@dataclass(frozen=True, eq=False)
class Freed:
    """A copy of a model with axes freed, and which, in words."""

    model: onnx.ModelProto
    said: str


def of_no_step(graph: Graph, cells: Sequence[CellNode], interface: Interface) -> dict[str, list[str]]:
    """Free axes that may be neither batch nor time, each with the inputs that have it last and another before it.

    Where the file shows no state, what cells are made from has an axis of time too.
    """
    timed = set() if interface.states else graph.made_of(*(cell.x for cell in cells), by_value=True)
    found: dict[str, list[str]] = {}
    for name, info in graph.inputs.items():
        free = [dim for dim in dims_of(info) if isinstance(dim, str)]
        if len(free) > (2 if name in timed else 1) and name not in interface.inputs:
            found.setdefault(free[-1], []).append(name)
    return found


def fixed_after_all(graph: Graph) -> Iterator[onnx.ModelProto]:
    """Copies in which an axis of the inputs that is free in name has the size that a Reshape and an output give it.

    torch's exporter writes the length of its example into shapes that it could not trace, and leaves the input's free.
    """
    inputs, outputs = ([dims_of(info) for info in infos] for infos in (graph.inputs.values(), graph.model.graph.output))
    shown = {dim for dims in outputs for dim in dims}
    shapes = (graph.value(node.input[1]) for node in graph.nodes if node.op_type == "Reshape")
    held = {int(n) for shape in shapes if shape is not None for n in shape.flat}
    for label in dict.fromkeys(dim for dims in inputs for dim in dims if isinstance(dim, str) and dim not in shown):
        for size in sorted(n for n in shown & held if isinstance(n, int) and n > 1)[::-1]:
            copy = copied(graph.model)
            for dim in (d for info in copy.graph.input for d in info.type.tensor_type.shape.dim):
                if dim.dim_param == label:
                    dim.dim_value = size
            yield copy


def freed(graph: Graph, interface: Interface, alone: bool = False) -> Iterator[Freed]:
    """Copies of `model` in which two axes of the data, or only one, are free: batch and time, in each possible way.

    With `alone`, time only, an axis of size 1 last: a batch of one will do.
    """
    model, data = graph.model, [info for name, info in graph.inputs.items() if name not in interface.inputs]
    if not data:
        return
    shapings = [_loose_shapes(graph), None]
    dims = data[0].type.tensor_type.shape.dim
    axes = range(len(dims))
    both = [*permutations(axes, 2), *((axis, None) for axis in axes)]
    times = [(None, axis) for axis in sorted(axes, key=lambda axis: dims[axis].dim_value == 1)]
    for (batch, time), loose in product(times if alone else both, shapings):
        candidate = _freed(model, interface, [info.name for info in data], loose, batch, time)
        if candidate and candidate.said:
            yield candidate


def _freed(
    model: onnx.ModelProto,
    interface: Interface,
    data: Sequence[str],
    loose: Mapping[str, np.ndarray] | None,
    batch: int | None,
    time: int | None,
) -> Freed | None:
    """One way; None if it is no other than that with `loose` shapes. Without these, shapes are made of real sizes."""
    copy = copied(model)
    infos = {info.name: info.type.tensor_type.shape.dim for info in copy.graph.input}
    first = [(dim.dim_param, dim.dim_value) for dim in infos[data[0]]]
    said = list[str]()
    for name in data:
        for axis, label in ((batch, BATCH), (time, TIME)):
            if axis is not None and axis < len(infos[name]) and _is_same(infos[name][axis], first[axis], axis == batch):
                said += [f"the {label} axis of input '{name}'"] if infos[name][axis].dim_value else []
                infos[name][axis].dim_param = label
    if batch is not None:
        for name in interface.inputs:
            _free_state(infos[name], first[batch][1])
    _drop_zero_starts(copy)
    sizes = {axis: first[axis][1] for axis in (time, batch) if axis is not None}
    if loose is not None:
        _loosen(copy, loose)
    elif not _measure(copy, data[0], {axis: size for axis, size in sizes.items() if size > 1}):
        return None
    if time is not None and first[time][1]:
        _run_once_a_step(copy, data[0], time, first[time][1])
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    return Freed(copy, ", ".join(said))


def _is_same(dim: onnx.TensorShapeProto.Dimension, first: tuple[str, int], is_batch: bool) -> bool:
    """Whether an axis is the one that the first input has there: side information may have other axes."""
    return (dim.dim_param, dim.dim_value) == first or (is_batch and dim.dim_value == 1)


def _loose_shapes(graph: Graph) -> dict[str, np.ndarray]:
    """For each Reshape with a constant shape, by its output, one that is the same at the file's sizes, and fits others.

    A leading size that is the input's own is copied from it (0), and the first that is not is left to be computed (-1).
    """
    shapes, loose = shapes_of(graph), {}
    for node in (node for node in graph.nodes if node.op_type == "Reshape"):
        wanted, given = graph.value(node.input[1]), shapes.get(node.input[0])
        if wanted is not None and given is not None and (wanted != 0).all():
            loose[node.output[0]] = _loosened(wanted, given)
    return loose


def _loosen(model: onnx.ModelProto, shapes: Mapping[str, np.ndarray]) -> None:
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.output[0] in shapes:
            name = f"{node.output[0]}/any_size"
            model.graph.initializer.append(numpy_helper.from_array(shapes[node.output[0]], name))
            node.input[1] = name
            del node.attribute[:]  # allowzero: none of the sizes was zero


def _measure(model: onnx.ModelProto, data: str, sizes: Mapping[int, int]) -> bool:
    """Writes the constant shapes of Reshape that hold the sizes of axes of the data, time first, with its real ones."""
    g, graph, nodes = GraphBuilder("tidegate.sizes/", opset(model)), Graph(model), list[onnx.NodeProto]()
    g.op_to("tidegate.sizes/all", "Shape", data)
    for node in model.graph.node:
        wanted = graph.value(node.input[1]) if node.op_type == "Reshape" else None
        held = [] if wanted is None else _holding(wanted.tolist(), sizes)
        if wanted is not None and any(held):
            first = len(g.nodes)
            parts = [
                g.op("ReduceProd", g.op("Gather", "tidegate.sizes/all", g.constant(axes, np.int64)), keepdims=1)
                if axes
                else g.constant([size], np.int64)
                for size, axes in zip(wanted.tolist(), held, strict=True)
            ]
            node.input[1] = g.op("Concat", *parts, axis=0)
            nodes.extend(g.nodes[first:])
        nodes.append(node)
    made = len(nodes) > len(model.graph.node)
    rebuilt(model, [g.nodes[0], *nodes] if made else nodes, g)
    return made


def _holding(shape: Sequence[int], sizes: Mapping[int, int]) -> list[list[int]]:
    """For each entry of a shape, the axes of the data whose sizes make it; each axis is in one entry."""
    held: list[list[int]] = [[] for _ in shape]
    whole = math.prod(sizes.values())
    if len(sizes) > 1 and whole in shape:
        held[shape.index(whole)] = list(sizes)
        return held
    for axis, size in sizes.items():
        free = [i for i, each in enumerate(shape) if each == size and not held[i]]
        if free:
            held[free[0]] = [axis]
    return held


def _loosened(wanted: np.ndarray, given: Sequence[int | None]) -> np.ndarray:
    shape = wanted.copy()
    same = next(
        (i for i, (a, b) in enumerate(zip(wanted, given, strict=False)) if a != b), min(len(wanted), len(given))
    )
    shape[:same] = 0
    if same < len(shape) and (shape > 0).all(where=np.arange(len(shape)) >= same):
        shape[same] = -1
    return shape


def _drop_zero_starts(model: onnx.ModelProto) -> None:
    """Constant zeros for the states of a batch of the fixed size are what an operator starts from without them."""
    graph = Graph(model)
    for node in model.graph.node:
        operator = operator_of(node)
        starts = {name: operator.taken(node, name) for name in operator.initial} if operator else {}
        for name, start in starts.items():
            if operator and start and _is_zero(start, graph):
                operator.take(node, name, "")
    refill(model.graph.node, reachable(model.graph.node, [output.name for output in model.graph.output]))


def _run_once_a_step(model: onnx.ModelProto, data: str, time: int, size: int) -> None:
    """Loops that may be meant to run as often as there are steps, whose number the file fixes, count them instead."""
    g, graph = GraphBuilder("tidegate.steps/", opset(model)), Graph(model)
    nodes = list[onnx.NodeProto]()
    for node in model.graph.node:
        limit = graph.value(node.input[0]) if node.op_type == "Loop" and node.input[0] else None
        if node.op_type == "Loop" and (not node.input[0] or (limit is not None and limit.item() in (size, _FOREVER))):
            g.nodes = []
            node.input[0] = g.op("Gather", g.op("Shape", data), g.constant(time, np.int64))
            node.input[1] = ""
            body = attributes(node)["body"]
            again = g.op("Identity", body.input[1].name)
            body.node.append(g.nodes.pop())
            body.output[0].name = again
            nodes.extend(g.nodes)
        nodes.append(node)
    rebuilt(model, nodes, g)


def _is_zero(tensor: str, graph: Graph) -> bool:
    value = graph.value(tensor)
    if value is None and tensor in graph.makers and graph.makers[tensor].op_type in _SHAPING:
        node = graph.makers[tensor]
        parts = node.input if node.op_type == "Concat" else node.input[:1]
        return all(_is_zero(part, graph) for part in parts)
    return value is not None and not value.any()


def _free_state(dims: Sequence[onnx.TensorShapeProto.Dimension], size: int) -> None:
    """Frees the batch axis of a state: [layers, batch, hidden] as the operators have it, else the first that fits."""
    fitting = [axis for axis, dim in enumerate(dims) if dim.dim_value == size]
    if fitting:
        dims[1 if 1 in fitting and len(dims) == 3 else fitting[0]].dim_param = BATCH
