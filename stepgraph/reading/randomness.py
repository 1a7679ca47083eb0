"""Nodes that draw random numbers, and the file with these numbers as inputs of their own."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from stepgraph.errors import ModelRefused, StepgraphError
from stepgraph.file import sidecar
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import attributes, copied, graphs, opset, reachable, refill
from stepgraph.reading import branches
from stepgraph.reading.guess import dims_of
from stepgraph.rewriting.generator import NORMAL, UNIFORM
from stepgraph.running import session

Dims = Sequence[int | str]

_NORMAL = frozenset({"RandomNormal", "RandomNormalLike"})
_UNIFORM = frozenset({"Bernoulli", "Multinomial", "RandomUniform", "RandomUniformLike"})
OPERATORS = _NORMAL | _UNIFORM  # and Dropout in training mode
_SIZES = (5, 7, 11, 13, 17, 19)  # unlike one another, for as many free axes
_SINCE = 11  # the opset whose operators shift the bits of whole numbers


def without(model: onnx.ModelProto, *, allowed: bool) -> onnx.ModelProto:
    """A copy that takes the random numbers of its nodes as inputs; the model itself if it draws none.

    Raises:
        ModelRefused: it draws some, and that is not `allowed` or cannot be replaced.
    """
    drawing = list(_drawing(model))
    if drawing and allowed:
        model = branches.resolve(model)
        drawing = list(_drawing(model))
    if not drawing:
        return model
    first = drawing[0]
    if not allowed:
        raise ModelRefused(
            f"{label(first)} draws random numbers: equal sequences get different answers. If that is meant, allow it "
            f"in {sidecar.FILE} beside the file, under [random]: allow = true; their seed is part of a sequence's "
            "state then, and one that is resumed draws the same ones. Or export what is drawn from (the mean and the "
            "spread, or the logits), and draw in the client; a policy is often exported so by `deterministic=True`",
            name_of(first),
        )
    if opset(model) < _SINCE:
        raise ModelRefused(
            f"{label(first)} draws random numbers, and they can be drawn from a sequence's state in files of opset "
            f"{_SINCE} and later; this one is of {opset(model)}. Export it again",
            name_of(first),
        )
    return _Writer(model, drawing).written()


def draws(model: onnx.ModelProto) -> bool:
    return any(_drawing(model))


def _drawing(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes that draw, of those that the outputs need."""
    graph, needed = Graph(model), reachable(model.graph.node, [output.name for output in model.graph.output])
    top = helper.make_graph(needed, "needed", [], [])
    for inner in graphs(top):
        for node in inner.node:
            if node.op_type in OPERATORS or (node.op_type == "Dropout" and _trains(node, graph)):
                yield node


def _trains(dropout: onnx.NodeProto, graph: Graph) -> bool:
    mode = graph.value(dropout.input[2]) if len(dropout.input) > 2 and dropout.input[2] else None
    return mode is not None and bool(mode.item())


class _Writer:
    def __init__(self, model: onnx.ModelProto, drawing: Sequence[onnx.NodeProto]) -> None:
        self._model, self._outer = copied(model), {tuple(node.output) for node in model.graph.node}
        self._drawing, self._numbers = {tuple(node.output): node for node in drawing}, count()
        self._g = GraphBuilder("tidegate.random/", opset(model))
        within = next((node for node in drawing if tuple(node.output) not in self._outer), None)
        if within is not None:
            raise ModelRefused(
                f"{label(within)} draws random numbers within a loop or a branch, where they cannot be drawn from a "
                "sequence's state. Draw them outside of it, or let clients send them as an input",
                name_of(within),
            )
        self._dims = _shapes(model, [node.output[0] for node in drawing])

    def written(self) -> onnx.ModelProto:
        g = self._g
        for node in self._model.graph.node:
            if tuple(node.output) in self._drawing:
                self._replace(node)
            else:
                g.nodes.append(copied(node))
        refill(self._model.graph.node, g.nodes)
        self._model.graph.initializer.extend(g.constants)
        return self._model

    def _replace(self, node: onnx.NodeProto) -> None:
        g, given, output = self._g, attributes(node), node.output[0]
        dtype = Graph(self._model).dtype(output) if node.op_type != "Multinomial" else np.dtype(np.int64)
        if node.op_type in _NORMAL:
            noise = self._drawn(NORMAL, node)
            self._scaled(noise, float(given.get("scale", 1.0)), float(given.get("mean", 0.0)), dtype, output)
            return
        noise = self._uniform(node)
        match node.op_type:
            case "Multinomial":
                self._picked(node, noise, given)
            case "Bernoulli":
                taken = g.op("Less", noise, g.cast(node.input[0], np.dtype(np.float32)))
                g.op_to(output, "Cast", taken, to=helper.np_dtype_to_tensor_dtype(dtype))
            case "Dropout":
                self._dropped(node, noise, dtype)
            case _:
                low, high = float(given.get("low", 0.0)), float(given.get("high", 1.0))
                self._scaled(noise, high - low, low, dtype, output)

    def _drawn(self, prefix: str, node: onnx.NodeProto) -> str:
        """An input with a random number for each element that the node makes."""
        name = f"{prefix}{next(self._numbers)}"
        dims = self._dims[node.output[0]]
        self._model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        return name

    def _uniform(self, node: onnx.NodeProto) -> str:
        """The same, from 0 to below 1: of any other number that part of it."""
        size = self._g.op("Abs", self._drawn(UNIFORM, node))
        return self._g.op("Sub", size, self._g.op("Floor", size))

    def _scaled(self, noise: str, scale: float, mean: float, dtype: np.dtype, output: str) -> None:
        g = self._g
        wide = g.op("Mul", noise, g.constant(scale, np.float32))
        moved = g.op("Add", wide, g.constant(mean, np.float32))
        g.op_to(output, "Cast", moved, to=helper.np_dtype_to_tensor_dtype(dtype))

    def _dropped(self, node: onnx.NodeProto, noise: str, dtype: np.dtype) -> None:
        g, x = self._g, node.input[0]
        ratio = node.input[1] if len(node.input) > 1 and node.input[1] else g.constant(0.5, np.float32)
        ratio = g.cast(ratio, np.dtype(np.float32))
        mask = node.output[1] if len(node.output) > 1 and node.output[1] else g.name("mask")
        g.op_to(mask, "Not", g.op("Less", noise, ratio))
        rest = g.cast(g.op("Sub", g.constant(1, np.float32), ratio), dtype)
        g.op_to(node.output[0], "Mul", g.op("Div", x, rest), g.cast(mask, dtype))

    def _picked(self, node: onnx.NodeProto, noise: str, given: dict[str, object]) -> None:
        """The first class whose sum of the probabilities up to it is above the drawn part of the whole."""
        g = self._g
        odds = g.op("Softmax", g.cast(node.input[0], np.dtype(np.float32)), axis=1)
        sums = g.op("CumSum", odds, g.constant(1, np.int64))
        last = g.op("Gather", sums, g.constant([-1], np.int64), axis=1)
        drawn = g.unsqueeze(g.op("Mul", noise, last), 2)
        sums, last = g.unsqueeze(sums, 1), g.unsqueeze(last, 2)
        passed = g.op("And", g.op("Not", g.op("Greater", sums, drawn)), g.op("Less", sums, last))
        index = g.total(g.cast(passed, np.dtype(np.float32)), 2)
        g.op_to(node.output[0], "Cast", index, to=int(str(given.get("dtype", TensorProto.INT32))))


def _shapes(model: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, Dims]:
    """The axes of tensors: a size, or what a free axis of the inputs is called.

    Raises:
        ModelRefused: that can neither be inferred nor measured.
    """
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    infos = {info.name: info for info in (*inferred.value_info, *inferred.output)}
    found = {name: _known(infos.get(name)) for name in tensors}
    missing = [name for name, dims in found.items() if dims is None]
    if missing:
        found |= _measured(model, missing)
    return {name: dims for name, dims in found.items() if dims is not None}


def _known(info: onnx.ValueInfoProto | None) -> Dims | None:
    if info is None or not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    return [d.dim_value or d.dim_param for d in dims] if all(d.dim_value or d.dim_param for d in dims) else None


def _measured(model: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, Dims]:
    inputs = {name: dims_of(info) for name, info in Graph(model).inputs.items()}
    labels = dict.fromkeys(d for dims in inputs.values() for d in dims if isinstance(d, str))
    sizes = dict(zip(labels, _SIZES, strict=False))
    names: dict[int, int | str] = {size: label for label, size in sizes.items()}
    front = copied(model)
    refill(front.graph.output, [onnx.ValueInfoProto(name=name) for name in tensors])
    refill(front.graph.node, reachable(model.graph.node, tensors))
    with suppress(StepgraphError, KeyError):
        types = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
        feeds = {
            name: np.zeros(
                [sizes[d] if isinstance(d, str) else d for d in dims], helper.tensor_dtype_to_np_dtype(types[name])
            )
            for name, dims in inputs.items()
        }
        values = session.run(session.create(front), tensors, feeds)
        shapes = {name: value.shape for name, value in zip(tensors, values, strict=True)}
        return {name: [names.get(int(size), int(size)) for size in shape] for name, shape in shapes.items()}
    raise ModelRefused(
        f"how many random numbers '{tensors[0]}' is made of cannot be told from the file. Export it with named axes"
    )
