"""Learns from running a model what its file does not say: which axes are batch and time, and the initial states.

Runs the original with onnxruntime at a few sizes and looks at the shapes. Changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import onnx
from onnx import helper

from server import session
from server.errors import AxesUnknown, ModelRefused, StepFailed
from server.interface import Interface
from server.recurrence import CellNode, label, name_of

_BATCH, _TIME = 5, 7  # of the first run: unlike each other, unlike 1


def sample(dtype: np.dtype, shape: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """Random values that any model should take: normal floats, and 0 or 1 for integers, which may be tokens."""
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


@dataclass(frozen=True)
class Port:
    """An input or output of a model. `row` is its shape for one step of one sequence.

    `time` is None where there is no time axis: an output that answers once for all steps so far, an input that is the
    same at every step, or a file that takes one step at a time.
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

    def original(self, x: np.ndarray) -> np.ndarray:
        """[T, B, ...row] in the original's own axes; what has no time axis is the same at every step."""
        if self.time is None:
            return np.moveaxis(x[-1], 0, self.batch)
        return np.moveaxis(x, (0, 1), (self.time, self.batch))


@dataclass(frozen=True)
class Carried:
    """A state in the interface: what the output `returned` holds goes into the input `given` at the next step."""

    given: Port
    returned: Port


@dataclass(frozen=True, eq=False)
class LoopState:
    """A tensor that a `Loop` or `Scan` carries, as an input and an output of the graph of one step.

    `start` is its value before the first step, in the shape of the port's row; `loop` is what a refusal calls the node,
    `tensor` what its body calls it.
    """

    carried: Carried
    start: np.ndarray
    loop: str
    tensor: str


@dataclass(frozen=True, eq=False)
class Facts:
    """What was learnt.

    `inputs` and `outputs` are data and answers; `carried`, `starts` and `lengths` what else the interface holds.
    `initial[layer][state]` is the [H] that a new sequence starts from, or None where the interface or a loop carries
    the state. `looped` are the states of loops; the layers `anew`, in a loop, begin anew at every step. `holds` says of
    an input that is state which layers' states it holds, and which of them.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    carried: tuple[Carried, ...]
    starts: tuple[Port, ...]
    lengths: tuple[Port, ...]
    initial: tuple[tuple[np.ndarray | None, ...], ...]
    freed: bool = False  # whether the file fixes batch or time to a size that was freed
    looped: tuple[LoopState, ...] = ()
    anew: frozenset[int] = frozenset()
    holds: Mapping[str, frozenset[tuple[int, int]]] = field(default_factory=dict)

    @property
    def one_step(self) -> bool:
        """Whether the file takes one step at a time."""
        return all(port.time is None for port in self.inputs)

    @property
    def through(self) -> tuple[Carried, ...]:
        """All states that are inputs and outputs of the graph of one step."""
        return (*self.carried, *(state.carried for state in self.looped))

    def feeds(self, data: dict[str, np.ndarray], batch: int, time: int) -> dict[str, np.ndarray]:
        """The feeds of the original for sequences that begin: `data` in its own axes, and zeros for every state."""
        time = 1 if self.one_step else time
        fresh = (*(c.given for c in self.carried), *self.starts)
        return (
            data
            | {port.name: np.zeros(port.shape(batch, time), port.dtype) for port in fresh}
            | {port.name: np.full(port.shape(batch, time), time, port.dtype) for port in self.lengths}
        )


def probe(model: onnx.ModelProto, cells: Sequence[CellNode], interface: Interface, counts: Sequence[str] = ()) -> Facts:
    """Learns the facts of `model`, whose recurrent nodes are `cells`; `counts` say how often its loops ran.

    Raises:
        AxesUnknown: batch and time cannot be found among the free axes.
        ModelRefused: the model does not run, or its outputs and states are not those of a stream.
    """
    return _Probe(model, cells, interface, counts).facts()


Shaped = tuple[tuple[int, ...], np.dtype]


class _Probe:
    def __init__(
        self, model: onnx.ModelProto, cells: Sequence[CellNode], interface: Interface, counts: Sequence[str]
    ) -> None:
        self._cells = cells
        self._counts = list(counts)
        self._interface = interface
        self._inputs = {info.name: info for info in session.real_inputs(model)}
        self._outputs = [output.name for output in model.graph.output]
        self._session = session.create(_with_outputs(model, cells, counts))
        self._dims = {name: _dims(info) for name, info in self._inputs.items()}

    def facts(self) -> Facts:
        batch, time = self._axes()
        ports = {name: self._input_port(name, batch, time) for name in self._inputs}
        known = self._interface
        facts = Facts(
            tuple(port for name, port in ports.items() if name not in known.inputs),
            (),
            (),
            tuple(ports[name] for name in known.starts),
            tuple(ports[name] for name in known.lengths),
            (),
        )
        given = {name: ports[name] for name, _ in known.states}
        self._facts = replace(facts, carried=tuple(Carried(port, port) for port in given.values()))
        outputs = self._output_ports()
        return replace(
            facts,
            outputs=tuple(port for name, port in outputs.items() if name not in known.returned),
            carried=tuple(Carried(given[name], outputs[returned]) for name, returned in known.states),
            initial=tuple(self._initial_states(i, cell) for i, cell in enumerate(self._cells)),
        )

    def _axes(self) -> tuple[str, str | None]:
        """The names of the batch axis and the time axis: tries what is free, and sees what reaches the first cell."""
        data = [name for name in self._inputs if name not in self._interface.inputs]
        free = list(dict.fromkeys(d for name in data for d in self._dims[name] if isinstance(d, str)))
        for batch, time in _candidates(free):
            if self._reaches_the_cell(batch, time):
                return batch, time
        first = self._cells[0].node if self._cells else None
        seer = "the model" if first is None else label(first)
        raise AxesUnknown(
            f"the inputs {', '.join(data)} have the free axes {', '.join(free) or '(none)'}, and batch and time cannot "
            f"be found among them: {seer} must see one step after the other of every sequence of a batch. Export the "
            "model with both axes dynamic",
            None if first is None else name_of(first),
        )

    def _reaches_the_cell(self, batch: str, time: str | None) -> bool:
        sizes = {batch: _BATCH, time: _TIME}
        feeds = {}
        for name, dims in self._dims.items():
            private = {d: _BATCH for d in dims if isinstance(d, str) and name in self._interface.inputs}
            if any(isinstance(d, str) and d not in private | sizes for d in dims):
                return False
            shape = [(private | sizes)[d] if isinstance(d, str) else d for d in dims]
            feeds[name] = self._fill(name, shape, _TIME if time else 1)
        try:
            if not self._cells:  # state alone: nothing tells a time axis from a batch axis, so there may be none
                ran = session.run(self._session, [*self._outputs, *self._counts], feeds)[len(self._outputs) :]
                return _TIME in ran if _BATCH in ran else time is None or bool(ran)
            cell = self._cells[0]
            seen = feeds[cell.x] if cell.x in feeds else session.run(self._session, [cell.x], feeds)[0]
        except StepFailed:
            return False
        expected = (_TIME if time else 1, _BATCH)
        return seen.shape[:2] == (expected if cell.time_axis == 0 else expected[::-1])

    def _fill(self, name: str, shape: Sequence[int], time: int) -> np.ndarray:
        """Something for an input: zeros for a state, the length for lengths, else random data."""
        dtype = _dtype(self._inputs[name])
        if name in self._interface.lengths:
            return np.full(shape, time, dtype)
        return (
            np.zeros(shape, dtype) if name in self._interface.inputs else sample(dtype, shape, np.random.default_rng(0))
        )

    def _input_port(self, name: str, batch: str, time: str | None) -> Port:
        dims = self._dims[name]
        state = name in self._interface.inputs
        free = [i for i, d in enumerate(dims) if isinstance(d, str)]
        of_batch = [i for i in free if dims[i] == batch or (state and dims[i] != time)]
        of_time = [i for i in free if dims[i] == time]
        if len(of_batch) != 1 or len(of_time) > 1 or (state and of_time):
            raise ModelRefused(f"input '{name}' with the axes {dims} needs one batch axis")
        row = tuple(d for d in dims if isinstance(d, int))
        return Port(name, _dtype(self._inputs[name]), row, of_batch[0], of_time[0] if of_time else None)

    def _run(self, names: list[str], batch: int, time: int, seed: int) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        data = {p.name: sample(p.dtype, p.shape(batch, time), random) for p in self._facts.inputs}
        return session.run(self._session, names, self._facts.feeds(data, batch, time))

    def _output_ports(self) -> dict[str, Port]:
        sizes = ((2, 3), (4, 3), (2, 6))
        base, wider, longer = ([(y.shape, y.dtype) for y in self._run(self._outputs, *size, 0)] for size in sizes)
        shapes = zip(self._outputs, base, wider, longer, strict=True)
        return {name: _output_port(name, *of_sizes) for name, *of_sizes in shapes}

    def _initial_states(self, index: int, cell: CellNode) -> tuple[np.ndarray | None, ...]:
        states = range(len(cell.cell.states))
        return tuple(
            None if (index, k) in self._interface.carried else self._initial_state(cell, cell.initial[k])
            for k in states
        )

    def _initial_state(self, cell: CellNode, name: str | None) -> np.ndarray:
        """The value that the state has before the first step, whatever the input. [H]."""
        if name is None or name in self._inputs:
            return np.zeros(cell.cell.hidden_size, cell.cell.dtype)
        draws = [self._run([name], batch, time, seed)[0] for batch, time, seed in ((2, 3, 1), (3, 4, 2))]
        rows = np.concatenate([draw.reshape(-1, cell.cell.hidden_size) for draw in draws])
        if not (rows == rows[0]).all():
            reason = f"{label(cell.node)} starts from a state that depends on its input ('{name}')"
            raise ModelRefused(reason, name_of(cell.node))
        first: np.ndarray = rows[0]
        return first


def _candidates(free: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """What could be the batch axis and the time axis."""
    yield from permutations(free, 2)
    if len(free) == 1:
        yield free[0], None


def _output_port(name: str, base: Shaped, wider: Shaped, longer: Shaped) -> Port:
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


def _dims(info: onnx.ValueInfoProto) -> list[int | str]:
    """An input's axes: a size, or a name for a free axis (made up where the file has none)."""
    return [
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"{info.name}[{i}]"
        for i, d in enumerate(info.type.tensor_type.shape.dim)
    ]


def _dtype(info: onnx.ValueInfoProto) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def _with_outputs(model: onnx.ModelProto, cells: Sequence[CellNode], others: Sequence[str]) -> onnx.ModelProto:
    """A copy that also returns the cells' inputs and initial states, and other tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in others)
    known = {output.name for output in copy.graph.output} | {i.name for i in copy.graph.input}
    for cell in cells:
        for name in dict.fromkeys((cell.x, *(n for n in cell.initial if n))):
            if name not in known:
                known.add(name)
                kind = helper.np_dtype_to_tensor_dtype(cell.cell.dtype)
                copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return copy
