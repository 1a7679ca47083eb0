"""Learns from running a model what its file does not say: which axes are batch and time, and the initial states.

Runs the original with onnxruntime at a few sizes and looks at the shapes. Changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper

from server import session, tokens
from server.errors import AxesUnknown, ModelRefused, StepFailed
from server.graph import copied, reachable, returning
from server.interface import Interface
from server.ports import Carried, Facts, Pace, Port
from server.recurrence import CellNode, label, name_of, runs_backwards, time_axis

_SIZES = ((2, 3), (4, 3), (2, 6))  # sequences and steps: a run, one with twice the batch, one of twice the length
_LENGTHS = (5040, 46080, 51200, 44100)  # in samples: whatever a block's size, it likely divides one of them
_LABELS = 6  # free axes under different names: how many are tried in every way
_NO_BLOCKS: Mapping[str, int] = MappingProxyType({})

Dims = Sequence[int | str]


@dataclass(frozen=True)
class _Guess:
    """Which free axes are batch, which are time, and how much of a time axis is one step."""

    batch: frozenset[str]
    time: frozenset[str]
    blocks: Mapping[str, int] = field(default_factory=dict)

    def size(self, dim: int | str, batch: int, time: int) -> int:
        if isinstance(dim, int):
            return dim
        return time * self.blocks.get(dim, 1) if dim in self.time else batch


def probe(
    model: onnx.ModelProto,
    cells: Sequence[CellNode],
    interface: Interface,
    counts: Sequence[str] = (),
    blocks: Mapping[str, int] = _NO_BLOCKS,
    alone: bool = False,
    fixed: bool = False,
) -> Facts:
    """Learns the facts of `model`, whose forward recurrent nodes are `cells`.

    Args:
        model: as onnxruntime runs it.
        cells: its recurrent nodes.
        interface: what is known of its inputs.
        counts: the outputs that say how often its loops ran.
        blocks: how much of the time axis of an input is one step, as declared; found by trying where it is not.
        alone: whether a batch of one sequence will do.
        fixed: whether the file fixes the axes that are free here. Then a step is what it takes, unless it hides states.

    Raises:
        AxesUnknown: batch and time cannot be found among the free axes.
        ModelRefused: the model does not run, or its outputs and states are not those of a stream.
    """
    return _Probe(model, cells, interface, counts, blocks, alone, fixed and bool(interface.states)).facts()


class _Probe:
    def __init__(
        self,
        model: onnx.ModelProto,
        cells: Sequence[CellNode],
        interface: Interface,
        counts: Sequence[str],
        blocks: Mapping[str, int],
        alone: bool,
        whole_blocks: bool,
    ) -> None:
        self._model = model
        self._whole_blocks = whole_blocks
        self._cells = cells
        self._counts = list(counts)
        self._interface = interface
        self._alone = alone
        self._inputs = {info.name: info for info in session.real_inputs(model)}
        self._outputs = [output.name for output in model.graph.output]
        self._dims = {name: _dims(info) for name, info in self._inputs.items()}
        self._data = [name for name in self._inputs if name not in interface.inputs]
        self._backwards = [node for node in model.graph.node if runs_backwards(node)]
        self._seen = list(dict.fromkeys([*(cell.x for cell in cells), *(node.input[0] for node in self._backwards)]))
        self._blocks = self._declared(blocks)
        self._tokens = {name: tokens.count(model, name) for name in self._data}
        self._failure = ""  # of the first guess that did not run
        self._runs_at_all = False
        self._positive = frozenset[str]()  # kinds of numbers, "f" or "i", that must be above zero
        self._strange_loops = False
        self._guesses = list(self._possible())
        if not self._guesses:
            raise self._unknown()
        self._session = session.create(
            _with_outputs(model, cells, [*(node.input[0] for node in self._backwards), *counts])
        )

    def _declared(self, blocks: Mapping[str, int]) -> dict[str, int]:
        """The declared blocks by the names of the input's free axes, one of which will turn out to be time."""
        strange = blocks.keys() - set(self._data)
        if strange:
            raise ModelRefused(
                f"model.toml says how many samples of '{min(strange)}' are one step, and the model has no such input; "
                f"it has {', '.join(self._data)}"
            )
        return {d: size for name, size in blocks.items() for d in self._dims[name] if isinstance(d, str)}

    def facts(self) -> Facts:
        guess, paces, shapes = self._learn()
        ports = {name: self._port(name, guess) for name in self._inputs}
        known = self._interface
        given = {name: ports[name] for name, _ in known.states}
        facts = Facts(
            tuple(ports[name] for name in self._data),
            (),
            tuple(Carried(port, port) for port in given.values()),
            tuple(ports[name] for name in known.starts),
            tuple(ports[name] for name in known.lengths),
            paces,
            (),
            alone=self._why_alone(guess, ports),
        )
        self._facts = facts
        outputs = {name: self._output_port(name, guess, *(run[name] for run in shapes)) for name in self._outputs}
        answers = tuple(port for name, port in outputs.items() if name not in known.returned)
        return replace(
            facts,
            outputs=answers or tuple(outputs.values()),  # a cell and nothing else: its state is its answer
            carried=tuple(Carried(given[name], outputs[returned]) for name, returned in known.states),
            initial=tuple(self._initial_states(i, cell) for i, cell in enumerate(self._cells)),
        )

    # which axes are batch and time

    def _learn(self) -> tuple[_Guess, tuple[Pace, ...], list[dict[str, np.ndarray]]]:
        """Tries what is free, and sees what reaches the cells."""
        for guess in self._guesses:
            found = self._try(guess)
            if found:
                return guess, *found
        for guess in self._guesses:
            whole = self._with_block(guess)
            found = self._try(whole) if whole else None
            if whole and found:
                return whole, *found
        raise self._unknown()

    def _possible(self) -> Iterator[_Guess]:
        labels = list(dict.fromkeys(d for name in self._data for d in self._dims[name] if isinstance(d, str)))
        for are_time in product((False, True), repeat=len(labels)) if len(labels) <= _LABELS else ():
            time = frozenset(d for d, is_time in zip(labels, are_time, strict=True) if is_time)
            guess = _Guess(frozenset(labels) - time, time, {d: k for d, k in self._blocks.items() if d in time})
            if all(self._fits(self._dims[name], guess) for name in self._data):
                yield guess

    def _fits(self, dims: Dims, guess: _Guess) -> bool:
        batches, times = (sum(d in labels for d in dims) for labels in (guess.batch, guess.time))
        return times <= 1 and (batches <= 1 if self._alone else batches == 1)

    def _try(self, guess: _Guess) -> tuple[tuple[Pace, ...], list[dict[str, np.ndarray]]] | None:
        """How the cells run, and all outputs at the three sizes; None if the guess is wrong."""
        sizes = _SIZES if guess.batch else [(1, time) for _, time in _SIZES]
        try:
            runs = self._runs(guess, sizes) if self._takes_zero(guess) else None
            if runs is None or not self._finite(runs[0]):
                runs = self._positive_runs(guess, sizes) or runs or self._runs(guess, sizes)
        except StepFailed as failure:
            self._failure = self._failure or str(failure)
            return None
        self._runs_at_all = True
        paces = [self._pace(guess, [run[cell.x].shape[:2] for run in runs], cell.time_axis) for cell in self._cells]
        counts = [_growth([int(run[name]) for run in runs]) for name in self._counts]
        if None in paces or not self._remembers(guess, paces, counts):
            return None
        self._strange_loops = (0, 0) in counts  # they are refused elsewhere, in words of their own
        for node in self._backwards:
            axis = time_axis(node)
            if _growth([run[node.input[0]].shape[axis] for run in runs]) != (1, 1):
                raise ModelRefused(backwards(node), name_of(node))
        return tuple(pace for pace in paces if pace), runs

    def _runs(self, guess: _Guess, sizes: Sequence[tuple[int, int]]) -> list[dict[str, np.ndarray]]:
        return [self._run_at(guess, batch, time if guess.time else 1) for batch, time in sizes]

    def _takes_zero(self, guess: _Guess) -> bool:
        """Whether whole numbers that pick from no table may be zero: some files divide by them."""
        if not any(
            _dtype(self._inputs[name]).kind in "iu" and self._tokens[name] == tokens.UNKNOWN for name in self._data
        ):
            return True
        try:
            return self._finite(self._run_at(guess, 1, _SIZES[0][1] if guess.time else 1, zero=True))
        except StepFailed:
            return False

    def _finite(self, run: Mapping[str, np.ndarray]) -> bool:
        """Whether the outputs are numbers, and what the cells see, which may make numbers of anything."""
        floats = (value for value in run.values() if session.is_tensor(value) and value.dtype.kind == "f")
        return all(bool(np.isfinite(value).all()) for value in floats)

    def _positive_runs(self, guess: _Guess, sizes: Sequence[tuple[int, int]]) -> list[dict[str, np.ndarray]] | None:
        """Runs with numbers above zero, for a file that divides by its input or takes its logarithm."""
        for kinds in ("i", "if"):
            self._positive = frozenset(kinds)
            runs = self._runs(guess, sizes)
            if self._finite(runs[0]):
                return runs
        self._positive = frozenset()
        return None

    def _remembers(self, guess: _Guess, paces: Sequence[Pace | None], counts: Sequence[tuple[int, int]]) -> bool:
        """Whether steps can be told apart: time is what cells and loops run over, and a file without it is one step."""
        if (2, 1) in counts and (1, 2) not in counts:
            return False
        if guess.time:
            return any(pace is not None and pace.streams for pace in paces) or (not paces and bool(counts))
        single = all(pace is None or pace.inner == 1 for pace in paces)
        return bool(self._interface.states) or (single and bool(self._cells) and not self._backwards)

    def _pace(self, guess: _Guess, shapes: Sequence[tuple[int, ...]], axis: int) -> Pace | None:
        """How a cell runs whose input has these first two axes at the three sizes, its own time at `axis`."""
        time, rows = ([shape[i] for shape in shapes] for i in (axis, 1 - axis))
        wide = 2 if guess.batch else 1
        batch = _SIZES[0][0] if guess.batch else 1
        match _growth(time), _growth(rows):
            case (1, 2), (w, 1) if w == wide and guess.time:
                return _whole(time[0], _SIZES[0][1], rows[0], batch, streams=True)
            case (1, 1), (w, 2) if w == wide and guess.time:
                return _whole(time[0], 1, rows[0], batch * _SIZES[0][1], streams=False)
            case (1, 1), (w, 1) if w == wide:
                return _whole(time[0], 1, rows[0], batch, streams=False)
        return None

    def _with_block(self, guess: _Guess) -> _Guess | None:
        """The guess with the samples that make one step of the first cell, if there is such a number."""
        if (
            self._whole_blocks
            or not self._cells
            or self._cells[0].x in self._inputs
            or len(guess.time) != 1
            or guess.blocks
        ):
            return None
        (axis,) = guess.time
        cell = self._cells[0]
        front = session.create(_up_to(self._model, cell.x))
        for length in _LENGTHS:
            feeds = {name: self._fill(name, guess, _SIZES[0][0], length) for name in self._inputs}
            try:
                (seen,) = session.run(front, [cell.x], feeds)
            except StepFailed:
                continue
            steps = seen.shape[cell.time_axis]
            if 1 < steps < length and length % steps == 0:
                return replace(guess, blocks={axis: length // steps})
        return None

    def _unknown(self) -> AxesUnknown:
        free = dict.fromkeys(d for name in self._data for d in self._dims[name] if isinstance(d, str))
        if self._backwards:
            return AxesUnknown(backwards(self._backwards[0]), name_of(self._backwards[0]))
        first = self._cells[0].node if self._cells else None
        seer = "the model" if first is None else label(first)
        if self._failure and not self._runs_at_all:
            return AxesUnknown(
                f"the file does not run, whichever of the free axes {', '.join(free)} is batch and which is time: "
                f"{self._failure}. Run it in onnxruntime with other sizes than those of its export, and export it anew",
                None if first is None else name_of(first),
            )
        return AxesUnknown(
            f"the inputs {', '.join(self._data)} have the free axes {', '.join(free) or '(none)'}, and batch and time "
            f"cannot be found among them: {seer} must see one step after the other of every sequence of a batch. "
            "Export the model with both axes dynamic",
            None if first is None else name_of(first),
        )

    # runs

    def _run_at(self, guess: _Guess, batch: int, time: int, zero: bool = False) -> dict[str, np.ndarray]:
        """Values of all outputs and of what the cells see, with random data, its integers perhaps 0."""
        wanted = list(dict.fromkeys([*self._outputs, *self._seen, *self._counts]))
        feeds = {name: self._fill(name, guess, batch, time) for name in self._inputs}
        if zero:
            feeds |= {n: np.zeros_like(feeds[n]) for n in self._data if feeds[n].dtype.kind != "f"}
        computed = [name for name in wanted if name not in feeds]
        ran = session.run(self._session, computed, feeds) if computed else []
        return feeds | dict(zip(computed, ran, strict=True))

    def _fill(self, name: str, guess: _Guess, batch: int, time: int) -> np.ndarray:
        """Something for an input: zeros for a state, the length for lengths, else random data."""
        dtype, known = _dtype(self._inputs[name]), self._interface
        at = replace(guess, time=frozenset()) if name in known.inputs else guess
        shape = tuple(at.size(d, batch, time) for d in self._dims[name])
        if name in known.inputs:
            return np.full(shape, time if name in known.lengths else 0, dtype)
        port = Port(name, dtype, shape[1:], 0, None, tokens=self._tokens[name], positive=self._above_zero(dtype))
        port = port if shape else replace(port, batch=None)
        return port.original(port.sample(1, shape[0] if shape else 1, np.random.default_rng(0)))

    def _run(self, name: str, batch: int, time: int, seed: int) -> np.ndarray:
        data = self._facts.sample(time, batch, np.random.default_rng(seed))
        return session.run(self._session, [name], self._facts.feeds(data, batch, time))[0]

    # ports

    def _port(self, name: str, guess: _Guess) -> Port:
        dims, state = self._dims[name], name in self._interface.inputs
        of_batch = [i for i, d in enumerate(dims) if isinstance(d, str) and (state or d in guess.batch)]
        of_time = [] if state else [i for i, d in enumerate(dims) if d in guess.time]
        if len(of_batch) > 1 or (state and not of_batch and guess.batch):
            raise AxesUnknown(f"input '{name}' with the axes {dims} needs one batch axis")
        ones = [i for i, d in enumerate(dims) if d == 1] if not guess.batch else []
        batch = next(iter((*of_batch, *ones)), None)
        time = next(iter(of_time), None)
        block = guess.blocks.get(str(dims[time]), 0) if time is not None else 0
        row = tuple(block if i == time else d for i, d in enumerate(dims) if i != batch and (i != time or block))
        return Port(
            name,
            _dtype(self._inputs[name]),
            tuple(d for d in row if isinstance(d, int)),
            batch,
            time,
            block,
            self._tokens.get(name, 2),
            self._above_zero(_dtype(self._inputs[name])),
        )

    def _above_zero(self, dtype: np.dtype) -> bool:
        return ("f" if dtype.kind == "f" else "i") in self._positive

    def _why_alone(self, guess: _Guess, ports: Mapping[str, Port]) -> str | None:
        if not guess.batch:
            return "the file fixes its batch axis, or has none, and does not run with another size of it"
        shared = [name for name in self._data if ports[name].batch is None]
        if not shared:
            return None
        return (
            f"input '{shared[0]}' has no batch axis, so that sequences with different values of it cannot share a "
            f"batch. If it is always the same, say so in model.toml beside the file, under [fixed]: {shared[0]} = VALUE"
        )

    def _output_port(self, name: str, guess: _Guess, *runs: np.ndarray) -> Port:
        """Finds the axes that grew with the batch and with the time."""
        shape = runs[0].shape
        growths = [_growth(sizes) for sizes in zip(*(run.shape for run in runs), strict=True)]
        batches = [i for i, growth in enumerate(growths) if growth == (2, 1)]
        if not guess.batch:
            batches = [i for i, size in enumerate(shape) if size == 1 and growths[i] == (1, 1)][:1]
        times = [i for i, growth in enumerate(growths) if growth == (1, 2)]
        odd = any(growth not in ((1, 1), (2, 1), (1, 2)) for growth in growths) and not self._strange_loops
        if odd or len(batches) > 1 or len(times) > 1 or (guess.batch and not batches):
            raise ModelRefused(
                f"output '{name}' of shape {list(shape)} for 2 sequences of 3 steps becomes {list(runs[1].shape)} for "
                f"4 sequences and {list(runs[2].shape)} for 6 steps: it must have one batch axis and at most one time "
                "axis, so that each step of each sequence gets its own answer"
            )
        batch, time = next(iter(batches), None), next(iter(times), None)
        if batch is not None and guess.batch and shape[batch] != _SIZES[0][0]:
            raise ModelRefused(
                f"output '{name}' has {shape[batch]} rows for 2 sequences: it folds sequences into an axis of its own"
            )
        per_step = 1 if time is None else shape[time] // _SIZES[0][1]
        block = per_step if per_step > 1 else 0
        row = tuple(block if i == time else n for i, n in enumerate(shape) if i != batch and (i != time or block))
        return Port(name, runs[0].dtype, row, batch, time, block)

    # initial states

    def _initial_states(self, index: int, cell: CellNode) -> tuple[np.ndarray | None, ...]:
        states = range(len(cell.cell.states))
        return tuple(
            None if (index, k) in self._interface.carried else self._initial_state(index, cell, cell.initial[k])
            for k in states
        )

    def _initial_state(self, index: int, cell: CellNode, name: str | None) -> np.ndarray | None:
        """The value that the state has before the first step, whatever the input. [rows * H]."""
        pace = self._facts.paces[index]
        width = pace.rows * cell.cell.hidden_size
        if name is None or name in self._inputs:
            return np.zeros(width, cell.cell.dtype)
        batched = any(port.batch is not None for port in self._facts.inputs) and not self._facts.alone
        sizes = ((2, 3, 1), (3, 4, 2)) if batched else ((1, 3, 1), (1, 4, 2))
        draws = [self._run(name, *size) for size in sizes]
        rows = np.concatenate([draw.reshape(-1, width) for draw in draws])
        if (rows == rows[0]).all():
            first: np.ndarray = rows[0]
            return first
        if not pace.streams:
            return None  # the step itself computes it
        raise ModelRefused(
            f"{label(cell.node)} starts from a state that is computed from its input ('{name}'), which a stream does "
            "not know before its first step. Let it start from zeros or from constants",
            name_of(cell.node),
        )


def backwards(node: onnx.NodeProto) -> str:
    """Why a cell that does not run forward is refused."""
    direction = next(a.s.decode() for a in node.attribute if a.name == "direction")
    return (
        f"{label(node)} runs {direction}: it needs steps that have not come yet, so it cannot answer a stream. Train a "
        "forward model"
    )


def _growth(sizes: Sequence[int]) -> tuple[int, int]:
    """How an axis grows with twice the batch and with twice the time: 1 or 2 times; (0, 0) if it is neither."""
    base, wider, longer = sizes
    if base and all(size in (base, 2 * base) for size in (wider, longer)):
        return wider // base, longer // base
    return (1, 1) if base == wider == longer else (0, 0)


def _whole(time: int, steps: int, rows: int, sequences: int, streams: bool) -> Pace | None:
    if time % steps or rows % sequences:
        return None
    return Pace(time // steps, rows // sequences, streams)


def _dims(info: onnx.ValueInfoProto) -> list[int | str]:
    """An input's axes: a size, or a name for a free axis (made up where the file has none)."""
    return [
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"{info.name}[{i}]"
        for i, d in enumerate(info.type.tensor_type.shape.dim)
    ]


def _dtype(info: onnx.ValueInfoProto) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def _up_to(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The part of a model that computes a tensor: a long signal is cut into blocks without running what comes after."""
    copy = copied(model)
    del copy.graph.node[:]
    copy.graph.node.extend(reachable(model.graph.node, [tensor]))
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return copy


def _with_outputs(model: onnx.ModelProto, cells: Sequence[CellNode], others: Sequence[str]) -> onnx.ModelProto:
    """A copy that also returns the inputs and initial states of cells, and other tensors."""
    wanted = [name for cell in cells for name in (cell.x, *(n for n in cell.initial if n))]
    return returning(model, (*wanted, *others))
