"""Learns from running a model what its file does not say: which axes are batch and time, and the initial states.

Runs the original file with onnxruntime at a few sizes and looks at the shapes. Changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from server import session
from server.errors import ModelRefused
from server.recurrence import CellNode, label

_SIZES = (5, 7)  # batch and time of the first run: unlike each other, unlike 1


@dataclass(frozen=True)
class Port:
    """An input or output of a model. `row` is its shape for one step of one sequence.

    `time` is None for an output that has no time axis: one answer for all steps so far.
    """

    name: str
    dtype: np.dtype
    row: tuple[int, ...]
    batch: int
    time: int | None

    def shape(self, batch: int, time: int) -> tuple[int, ...]:
        """The tensor's shape for so many sequences of so many steps."""
        axes = list(self.row)
        for axis, size in sorted(((self.batch, batch), *([(self.time, time)] if self.time is not None else []))):
            axes.insert(axis, size)
        return tuple(axes)


@dataclass(frozen=True, eq=False)
class Facts:
    """What was learnt. `initial[layer][state]` is the [H] that a new sequence starts from."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    initial: tuple[tuple[np.ndarray, ...], ...]


def probe(model: onnx.ModelProto, cells: Sequence[CellNode]) -> Facts:
    """Learns the facts of `model`, whose recurrent nodes are `cells`.

    Raises:
        ModelRefused: batch or time cannot be told or freed, or the model does not run.
    """
    return _Probe(model, cells).facts()


class _Probe:
    def __init__(self, model: onnx.ModelProto, cells: Sequence[CellNode]) -> None:
        self._cells = cells
        self._inputs = session.real_inputs(model)
        self._outputs = [output.name for output in model.graph.output]
        self._session = session.create(_with_outputs(model, cells))
        self._dims = _dynamic_dims(self._inputs)

    def facts(self) -> Facts:
        inputs = self._input_ports()
        shapes = [self._output_shapes(inputs, *size) for size in ((2, 3), (4, 3), (2, 6))]
        outputs = [self._output_port(name, *(by_size[i] for by_size in shapes)) for i, name in enumerate(self._outputs)]
        return Facts(tuple(inputs), tuple(outputs), self._initial_states(inputs))

    def _input_ports(self) -> list[Port]:
        """Gives the two free sizes to the axes and sees which of them reaches the first cell as its time axis."""
        batch, time = _SIZES
        names = list(dict.fromkeys(name for dims in self._dims for name in dims if isinstance(name, str)))
        if len(names) != 2:
            raise ModelRefused(
                f"the inputs have {len(names)} free axes ({', '.join(names) or 'none'}), expected two: batch and time. "
                "Export with both axes dynamic"
            )
        sizes = dict(zip(names, _SIZES, strict=True))
        feeds = {
            info.name: _sample(_dtype(info), [sizes[d] if isinstance(d, str) else d for d in dims], 0)
            for info, dims in zip(self._inputs, self._dims, strict=True)
        }
        seen = self._first_cell_input(feeds).shape
        if sorted(seen[:2]) != sorted(_SIZES):
            raise ModelRefused(
                f"{label(self._cells[0].node)} sees an input of shape {list(seen)} where batch and time are "
                f"{batch} and {time}: they are mixed before they reach it"
            )
        of_time = {size: name for name, size in sizes.items()}[seen[self._cells[0].time_axis]]
        return [
            _input_port(info, dims, of_time, next(n for n in names if n != of_time))
            for info, dims in zip(self._inputs, self._dims, strict=True)
        ]

    def _first_cell_input(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """What reaches the first cell; with nothing before it, an input of the model itself."""
        name = self._cells[0].x
        return feeds[name] if name in feeds else session.run(self._session, [name], feeds)[0]

    def _run(self, inputs: Sequence[Port], names: list[str], batch: int, time: int, seed: int) -> list[np.ndarray]:
        feeds = {p.name: _sample(p.dtype, p.shape(batch, time), seed) for p in inputs}
        return session.run(self._session, names, feeds)

    def _output_shapes(self, inputs: Sequence[Port], batch: int, time: int) -> list[tuple[tuple[int, ...], np.dtype]]:
        return [(y.shape, y.dtype) for y in self._run(inputs, self._outputs, batch, time, 0)]

    def _output_port(
        self,
        name: str,
        base: tuple[tuple[int, ...], np.dtype],
        wider: tuple[tuple[int, ...], np.dtype],
        longer: tuple[tuple[int, ...], np.dtype],
    ) -> Port:
        """Finds the axes that grew with the batch and with the time."""
        batch = [i for i, (a, b) in enumerate(zip(base[0], wider[0], strict=False)) if (a, b) == (2, 4)]
        time = [i for i, (a, b) in enumerate(zip(base[0], longer[0], strict=False)) if (a, b) == (3, 6)]
        if len(batch) != 1 or len(time) > 1:
            raise ModelRefused(
                f"output '{name}' of shape {list(base[0])} for 2 sequences of 3 steps becomes {list(wider[0])} for 4 "
                f"sequences and {list(longer[0])} for 6 steps: it must have one batch axis and at most one time axis"
            )
        row = tuple(size for i, size in enumerate(base[0]) if i not in (*batch, *time))
        return Port(name, base[1], row, batch[0], time[0] if time else None)

    def _initial_states(self, inputs: Sequence[Port]) -> tuple[tuple[np.ndarray, ...], ...]:
        return tuple(
            tuple(self._initial_state(inputs, cell, name) for name in cell.initial[: len(cell.cell.states)])
            for cell in self._cells
        )

    def _initial_state(self, inputs: Sequence[Port], cell: CellNode, name: str | None) -> np.ndarray:
        """The value that the state has before the first step, whatever the input. [H]."""
        if name is None:
            return np.zeros(cell.cell.hidden_size, cell.cell.dtype)
        draws = [self._run(inputs, [name], batch, time, seed)[0] for batch, time, seed in ((2, 3, 1), (3, 4, 2))]
        rows = np.concatenate([draw.reshape(-1, cell.cell.hidden_size) for draw in draws])
        if not (rows == rows[0]).all():
            raise ModelRefused(f"{label(cell.node)} starts from a state that depends on its input ('{name}')")
        first: np.ndarray = rows[0]
        return first


def _dynamic_dims(inputs: Sequence[onnx.ValueInfoProto]) -> list[list[int | str]]:
    """Each input's axes: a size, or a name for a free axis (made up where the file has none)."""
    return [
        [
            d.dim_value if d.HasField("dim_value") else d.dim_param or f"{info.name}[{i}]"
            for i, d in enumerate(info.type.tensor_type.shape.dim)
        ]
        for info in inputs
    ]


def _dtype(info: onnx.ValueInfoProto) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def _input_port(info: onnx.ValueInfoProto, dims: Sequence[int | str], time: str, batch: str) -> Port:
    if time not in dims or batch not in dims:
        raise ModelRefused(f"input '{info.name}' with axes {list(dims)} needs both a batch and a time axis")
    row = tuple(d for d in dims if isinstance(d, int))
    return Port(info.name, _dtype(info), row, dims.index(batch), dims.index(time))


def _sample(dtype: np.dtype, shape: Sequence[int], seed: int) -> np.ndarray:
    """Random values that any model should take: normal floats, and 0 or 1 for integers, which may be tokens."""
    random = np.random.default_rng(seed)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def _with_outputs(model: onnx.ModelProto, cells: Sequence[CellNode]) -> onnx.ModelProto:
    """A copy that also returns the cells' inputs and initial states."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {output.name for output in copy.graph.output} | {i.name for i in copy.graph.input}
    for cell in cells:
        for name in dict.fromkeys((cell.x, *(n for n in cell.initial if n))):
            if name not in known:
                known.add(name)
                kind = helper.np_dtype_to_tensor_dtype(cell.cell.dtype)
                copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return copy
