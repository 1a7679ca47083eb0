"""Which numbers of an input are row numbers of a table, and how many rows it has: random ones are drawn below that.

A file may take whole numbers, or floats that it casts, and some columns of a row or all of them. So the numbers 0, 1, 2
and so on go through what cuts and casts an input up to each table: what arrives says where it came from.
"""

from functools import cached_property

import numpy as np
import onnx
from onnx import helper

from stepgraph.errors import StepgraphError
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import RESHAPING
from stepgraph.graphs.nodes import attributes, reachable
from stepgraph.running import session

_FOLLOWED = RESHAPING | {"Add", "Ceil", "Floor", "Gather", "Round", "Slice", "Split", "Sub"}  # by their first input
_EXACT = {2: 2**11, 4: 2**24, 8: 2**53}  # whole numbers that a float of so many bytes holds

_ANY = np.iinfo(np.int64).max


class Tables:
    """The tables that the input `name` of a graph picks rows from."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._model, self._name = graph.model, name
        self._rows: dict[str, int] = {}  # by the tensor that holds the places
        came = {name}
        for node in graph.nodes:
            index, rows = _table(node, graph)
            if index in came and rows:
                self._rows[index] = min(rows, self._rows.get(index, rows))
            followed = node.input[: 2 if node.op_type == "Add" else 1] if node.op_type in _FOLLOWED else ()
            if came.intersection(followed):
                others = (each for each in node.input if each and each not in came)
                came.update(node.output if all(graph.value(each) is not None for each in others) else ())

    def __bool__(self) -> bool:
        return bool(self._rows)

    def limits(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """For each number of the input, in this shape, what it must be below; 0 where any will do."""
        limits = np.zeros(shape, np.int64)
        if self._rows and limits.size < _EXACT.get(dtype.itemsize, 2**7):
            try:
                self._find(limits.reshape(-1), shape, dtype)
            except StepgraphError:  # it cannot be run by itself
                limits[...] = min(self._rows.values())
        return limits

    def _find(self, limits: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
        numbered = np.arange(limits.size).astype(dtype).reshape(shape)
        first, all_of = self._arriving(np.zeros_like(numbered)), self._arriving(numbered)
        most = np.full(limits.size, _ANY)
        for name, rows in self._rows.items():
            added = first[name].astype(np.int64)  # places may be counted from elsewhere
            np.minimum.at(most, all_of[name].astype(np.int64) - added, np.maximum(rows - added, 1))
        limits[most < _ANY] = most[most < _ANY]

    def _arriving(self, x: np.ndarray) -> dict[str, np.ndarray]:
        wanted = [name for name in self._rows if name != self._name]
        values = session.run(self._front, wanted, {self._name: x}) if wanted else []
        return {self._name: x} | dict(zip(wanted, values, strict=True))

    @cached_property
    def _front(self) -> session.Session:
        """What runs before the tables."""
        graph, nodes = self._model.graph, reachable(self._model.graph.node, list(self._rows))
        needed = {name for node in nodes for name in node.input}
        front = helper.make_graph(
            nodes,
            "front",
            [info for info in graph.input if info.name == self._name],
            [onnx.ValueInfoProto(name=name) for name in self._rows if name != self._name],
            [tensor for tensor in graph.initializer if tensor.name in needed],
        )
        given = {"opset_imports": self._model.opset_import, "ir_version": self._model.ir_version}
        return session.create(helper.make_model(front, **given))


def _table(node: onnx.NodeProto, graph: Graph) -> tuple[str, int]:
    """The tensor that holds places in a table and its number of rows; 0 if the node is none."""
    if node.op_type == "Gather":
        table = graph.value(node.input[0])
        return node.input[1], 0 if table is None else table.shape[attributes(node).get("axis", 0)]
    if node.op_type == "OneHot":
        depth = graph.value(node.input[1])
        return node.input[0], 0 if depth is None else int(depth.item())
    return "", 0
