"""Random graphs of any operators, and what a reading of them says held against what onnxruntime computes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from stepgraph.graphs.graph import Graph
from stepgraph.rules.axes import ROWS, TIME, Axis, Time, length
from stepgraph.rules.reader import Reader
from stepgraph.rules.size import BATCH, STEPS, Size
from stepgraph.rules.value import Value, varying

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray


FEATURES = 4
OWN, ML = "com.microsoft", "ai.onnx.ml"  # the domains of onnxruntime's own operators and of scikit-learn's
SHAPES: dict[str, tuple[Axis, ...]] = {
    "rows first": ((ROWS,), (TIME,), (FEATURES,)),
    "steps first": ((TIME,), (ROWS,), (FEATURES,)),
    "channels first": ((ROWS,), (FEATURES,), (TIME,)),
    "blocks": ((ROWS,), (3,), (Time(6),)),
    "images": ((ROWS,), (TIME,), (2,), (FEATURES,), (6,)),
    "folded": ((ROWS, TIME), (FEATURES,), (6,)),
    "folded images": ((TIME, ROWS), (FEATURES,), (6,), (4,)),
}
SIZES = ((2, 9), (3, 14))
CELLS = ("CausalConvWithState", "GRU", "LSTM", "LinearAttention", "Loop", "RNN", "Scan")


class NotHere(Exception):  # no error: another tensor or operator is drawn
    """An operator cannot be put on the tensor that was drawn."""


@dataclass
class Drawing:
    """A graph that grows by random nodes. `values` are what the reading says of its tensors so far."""

    random: np.random.Generator
    shape: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {"x": Value(SHAPES[self.shape], live=True)}
        self.floats = ["x"]

    # drawing

    def chance(self, part: float) -> bool:
        return bool(self.random.random() < part)

    def of(self, *choices: Any) -> Any:  # noqa: ANN401 # one of them
        return choices[int(self.random.integers(len(choices)))]

    def number(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def constant(self, array: NDArray[Any] | Sequence[float] | float, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def noise(self, *shape: int) -> str:
        return self.constant(self.random.standard_normal(shape))

    def whole(self, numbers: Sequence[int] | int) -> str:
        return self.constant(np.asarray(numbers), "int64")

    def op(self, operator: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"t{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0]

    def sized(self, name: str, axis: int) -> int:
        """The length of an axis that is of features."""
        axes = self.axes(name)[axis]
        if not axes:
            return 1
        if len(axes) > 1 or not isinstance(axes[0], int):
            raise NotHere
        return axes[0]

    def axes(self, name: str) -> tuple[Axis, ...]:
        if name not in self.values:
            self.values = self.read()
        if self.values[name].finding:
            raise NotHere
        return self.values[name].axes

    def read(self) -> dict[str, Value]:
        reader = Reader(Graph(self.model()))
        return reader.values({"x": Value(SHAPES[self.shape], live=True)})

    def model(self, outputs: Sequence[str] = ()) -> onnx.ModelProto:
        sizes = [length(axis) for axis in SHAPES[self.shape]]
        shape = [f"d{i}" if isinstance(n, Size) else n for i, n in enumerate(sizes)]
        given = helper.make_tensor_value_info(
            "x", TensorProto.FLOAT, [f"d{i}" if n == "?" else n for i, n in enumerate(shape)]
        )
        ends = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "drawn", [given], ends, self.constants)
        new = any(node.op_type == "TreeEnsemble" for node in self.nodes)  # instead of the trees before
        opsets = [helper.make_opsetid(*each) for each in (("", self.opset), (OWN, 1), (ML, 5 if new else 3))]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def sample(self, batch: int, steps: int) -> NDArray[np.float32]:
        shape = [size_of(length(axis), batch, steps) for axis in SHAPES[self.shape]]
        return self.random.standard_normal(shape).astype(np.float32)

    def grow(self, operator: Callable[[Drawing], str]) -> bool:
        """Puts an operator on what is there; False if it does not fit."""
        before = len(self.nodes), len(self.constants)
        try:
            name = operator(self)
            self.axes(name)
        except NotHere:
            del self.nodes[before[0] :], self.constants[before[1] :]
            self.values = self.read()
            return False
        self.floats.append(name)
        return True


def size_of(count: Size | int, batch: int, steps: int) -> int:
    if not isinstance(count, Size):
        return int(count)
    of = {BATCH: batch, STEPS: steps}
    return sum(n * int(np.prod([of[each] for each in monomial], dtype=int)) for monomial, n in count.terms)


def check(drawing: Drawing) -> int:
    """Runs a graph at several sizes, with one step of one row changed, and with one step of one row by itself.

    Returns how many tensors were held to it. Each must have the shape that is read, change where it may change only,
    and hold alone what it holds among others, where the reading says that it reaches no further than its own step.
    """
    values = {name: value for name, value in drawing.read().items() if not value.finding}
    told = [name for node in drawing.nodes for name in node.output if name in values]
    carried = _carried(drawing)
    values = {name: replace(value, back=inf) if name in carried else value for name, value in values.items()}
    if not told:
        return 0
    run = runner(drawing, told)
    for batch, steps in SIZES:
        x = drawing.sample(batch, steps)
        base = run(x)
        for name in told:
            assert base[name].shape == tuple(size_of(n, batch, steps) for n in values[name].shape), (name, values[name])
        for row, step in ((0, steps // 2), (batch - 1, steps - 1), (0, steps - 2), (0, 0)):
            other = x.copy()
            at = _places(SHAPES[drawing.shape], row, step, (batch, steps))
            assert at is not None
            other[at] = drawing.random.standard_normal(other[at].shape) * 3
            for name, changed in run(other).items():
                _hold(name, values[name], ~_same(base[name], changed), (row, step), (batch, steps))
    _alone(drawing, values)
    return len(told)


def runner(drawing: Drawing, names: Sequence[str]) -> Callable[[NDArray[np.float32]], dict[str, NDArray[Any]]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    model = drawing.model(names).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: {name: stacked(found) for name, found in zip(names, session.run(names, {"x": x}), strict=True)}


def stacked(found: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[Any]:
    """A list of tensors as the reading has it: one tensor, whose first axis counts the elements."""
    if isinstance(found, list):
        return np.stack(found) if found else np.zeros(0)
    return np.asarray(found)


def _carried(drawing: Drawing) -> set[str]:
    """What comes after a cell: it depends on all steps before by the state of the cell."""
    after = set[str]()
    for node in drawing.nodes:
        if node.op_type in CELLS or after.intersection(node.input):
            after.update(node.output)
    return after


def _alone(drawing: Drawing, values: Mapping[str, Value]) -> None:
    """One step of one row by itself gives what it gives among others."""
    near = [name for name, value in values.items() if name != "x" and not value.far and not _varies(value)]
    near = [name for node in drawing.nodes for name in node.output if name in near]
    x = drawing.sample(*SIZES[0])
    for name in near:
        run, value = runner(drawing, [name]), values[name]
        for row, step in ((1, SIZES[0][1] - 1), (0, 3)):
            given = _places(SHAPES[drawing.shape], row, step, SIZES[0])
            among, alone = _places(value.axes, row, step, SIZES[0]), _places(value.axes, 0, 0, (1, 1))
            if among is None or alone is None or (value.last and step < SIZES[0][1] - 1):
                continue
            with suppress(Fail, InvalidArgument):  # too few steps for a node
                single = run(x[given])[name]
                assert _same(run(x)[name][among], single[alone]).all(), (name, value)


def _varies(value: Value) -> bool:
    return not value.live and bool(varying(value))


def _hold(name: str, value: Value, changed: NDArray[np.bool_], at: tuple[int, int], of: tuple[int, int]) -> None:
    """What changed lies in that row, and as far from that step as the reading says."""
    row, step = at
    for place in np.argwhere(changed):
        assert value.live, (name, value)
        found = dict(_decoded(place, value.axes, of))
        assert found.get("row") == row, (name, value, place)
        own = found.get("step", of[1] - 1 if value.last else None)
        assert own is not None, (name, value)
        assert own - value.back <= step <= own + value.ahead, (name, value, place, at)


def _decoded(place: Sequence[int], axes: Sequence[Axis], of: tuple[int, int]) -> list[tuple[str, int]]:
    found = list[tuple[str, int]]()
    for index, axis in zip(place, axes, strict=True):
        rest = int(index)
        for factor in reversed(axis):
            count = size_of(length(factor), *of)
            rest, own = divmod(rest, count)
            if factor == ROWS:
                found.append(("row", own))
            elif isinstance(factor, Time):
                found.append(("step", (own + factor.shift) // factor.rate))
    return found


def _places(axes: Sequence[Axis], row: int, step: int, of: tuple[int, int]) -> tuple[NDArray[np.intp], ...] | None:
    """Where in a tensor the elements of one row and step are; None if they are not all there."""
    found = []
    for axis in axes:
        grid = np.arange(size_of(length(axis), *of)).reshape([size_of(length(factor), *of) for factor in axis] or [1])
        for place, factor in enumerate(axis):
            if isinstance(factor, int):
                continue
            rate, first = (1, row) if factor == ROWS else (factor.rate, step * factor.rate - factor.shift)
            if first < 0 or first + rate > grid.shape[place]:
                return None
            grid = np.take(grid, range(first, first + rate), place)
        found.append(grid.reshape(-1))
    return np.ix_(*found)


def _same(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    if a.dtype.kind != "f":
        return a == b
    with np.errstate(invalid="ignore"):
        scale = max(1.0, float(np.nanmax(np.abs(np.where(np.isfinite(a), a, 0)), initial=0)))
        return (np.abs(a - b) <= 1e-4 * scale) | (a == b) | (np.isnan(a) & np.isnan(b))
