"""Proves a step graph against the original file: the same random sequences through both must give the same numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from server import diagnosis, loops, oracle, session
from server.engine import Engine
from server.errors import ModelRefused
from server.ports import Facts
from server.recurrence import RECURRENT, CellNode, label, name_of
from server.stepgraph import PREFIX

Data = dict[str, np.ndarray]  # [T, B, ...row] by input

_LENGTHS, _BATCHES = (1, 2, 5, 13), (1, 3)
_LONGEST = 1000  # steps of a file that fixes its time axis to more are not compared at that length
_TOLERANCE, _HALF_TOLERANCE = 1e-5, 2e-3  # the oracle computes doubles in single precision
ROUNDING = 0.1  # how far a file that rounds to 8 bits may be from itself, one step at a time


@dataclass(frozen=True)
class Proof:
    """How far the two were apart at most, over `steps` single steps, in outputs and in states.

    A difference counts in units of the largest value that the same element has had so far in that random sequence, in
    any row, or of 1 where that is less: elements of different scale are each measured by their own, a value near zero
    is not held to more digits than its neighbours in time, and what is small is measured absolutely.
    A file that rounds to 8 bits while it runs is compared without its rounding; `rounding` is then how far apart they
    were with it, each sequence alone. None for other files.
    """

    max_error: float
    tolerance: float
    steps: int
    rounding: float | None = None


@dataclass(frozen=True, eq=False)
class Original:
    """What is proved against: the file, its recurrent nodes, and, where axes were freed, the file as it was."""

    model: onnx.ModelProto
    cells: Sequence[CellNode]
    fixed: onnx.ModelProto | None = None


def prove(original: Original, facts: Facts, engine: Engine) -> Proof:
    """Compares the engine, step by step, with the original on every prefix of random sequences.

    The step graph's answer at step t must be the original's answer to the prefix that ends at t, and so must its
    states be those that the original's cells end with. A file that takes one step at a time is given its own state back
    after each. Each row of a batch must have the answer that it has without the others; and where axes were freed, the
    file as it was must give the same answers at the size that it was made for.

    Raises:
        ModelRefused: they differ by more than the tolerance, the original's own answers are no numbers, its rows
            influence each other, or the step graph does not run.
    """
    return _Comparison(original, facts, engine, _tolerance(facts, engine)).proof()


def rounding_error(original: Original, facts: Facts, engine: Engine) -> float:
    """How far the answers are from those of a file that rounds to 8 bits, one sequence at a time.

    Raises:
        ModelRefused: by more than `ROUNDING`.
    """
    return _Comparison(original, facts, engine, ROUNDING).rounding()


class _Differs(Exception):  # it never leaves this file
    """What differs by more than the tolerance, as the beginning of a sentence; `first`: at a sequence's first step."""

    def __init__(self, said: str, first: bool) -> None:
        super().__init__(said)
        self.first = first


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the original says after a step, [B, ...row] each: outputs by name, states by their columns."""

    outputs: Mapping[str, np.ndarray]
    states: Mapping[tuple[int | None, str], np.ndarray]


class _Comparison:
    def __init__(self, original: Original, facts: Facts, engine: Engine, tolerance: float) -> None:
        self._original = original
        self._facts = facts
        self._engine = engine
        shown, self._ends = _showing_states(original.model, original.cells, engine)
        self._model = oracle.runnable(shown)
        self._reference = session.create(self._model)
        self._tolerance = tolerance
        self._worst = 0.0

    def proof(self) -> Proof:
        steps = 0
        batches = (1,) if self._facts.alone else _BATCHES
        for seed, (length, batch) in enumerate((t, b) for t in _LENGTHS for b in batches):
            data = _sequences(self._facts, length, batch, seed)
            try:
                self._compare(data)
            except _Differs as differs:
                raise self._refusal(differs) from None
            if batch > 1:
                self._check_rows(data)
            steps += length * batch
        if self._original.fixed is not None:
            steps += self._compare_fixed(self._original.fixed)
        return Proof(self._worst, self._tolerance, steps)

    def rounding(self) -> float:
        for seed, length in enumerate(_LENGTHS):
            try:
                self._compare(_sequences(self._facts, length, 1, seed))
            except _Differs as differs:
                raise ModelRefused(
                    f"{differs}: the file rounds to 8 bits by the range of all steps at once, and one step at a time "
                    "that comes to something else. Serve the model as it was before it was quantised"
                ) from None
        return self._worst

    # what the original says

    def _answers(self, data: Data) -> Iterator[_Answer]:
        return self._one_by_one(data) if self._facts.one_step else self._prefixes(data)

    def _prefixes(self, data: Data) -> Iterator[_Answer]:
        """The original's answers to each prefix."""
        length, batch = _size(data)
        answers = []
        for step in range(length):
            prefix = {port.name: port.original(data[port.name][: step + 1]) for port in self._facts.inputs}
            values = self._values(self._facts.feeds(prefix, batch, step + 1))
            answers.append(self._answer(values, batch))
            yield answers[-1]
        if self._tolerance < ROUNDING:  # a file that rounds by range breaks this by nature
            self._check_causal(answers, values)

    def _check_causal(self, answers: Sequence[_Answer], whole: Data) -> None:
        """What the original answers at a step must not change when more steps follow."""
        for port in self._facts.outputs:
            if port.time is None:
                continue
            for step, answer in enumerate(answers):
                wanted = port.at(whole[port.name], step).astype(np.float64)
                error = _error("step", wanted, answer.outputs[port.name], {})
                if not error <= self._tolerance:
                    raise self._looks_ahead(port.name, step, error)

    def _looks_ahead(self, output: str, step: int, error: float) -> ModelRefused:
        node = diagnosis.ahead_node(self._model, self._facts, self._tolerance)
        said = (
            f"output '{output}' at step {step} changes by {error:.2g} in the original file once later steps follow: it "
            "looks ahead"
        )
        if node is None:
            return ModelRefused(f"the model looks ahead, and a stream cannot. {diagnosis.ADVICE} ({said})")
        return ModelRefused(f"{diagnosis.explained(node)} ({said})", name_of(node))

    def _one_by_one(self, data: Data) -> Iterator[_Answer]:
        """The same of a file that takes one step at a time and may hand its state back."""
        length, batch = _size(data)
        states: Data = {}
        for step in range(length):
            one = {port.name: port.original(data[port.name][step : step + 1]) for port in self._facts.inputs}
            values = self._values(self._facts.feeds(one, batch, 1) | states)
            yield self._answer(values, batch)
            states = {c.given.name: values[c.returned.name] for c in self._facts.carried}

    def _values(self, feeds: Data) -> Data:
        ports = (*self._facts.outputs, *(carried.returned for carried in self._facts.carried))
        names = list(dict.fromkeys((*(port.name for port in ports), *self._ends.values())))
        return dict(zip(names, session.run(self._reference, names, feeds), strict=True))

    def _answer(self, values: Data, batch: int) -> _Answer:
        states: dict[tuple[int | None, str], np.ndarray] = {
            (None, c.given.name): c.returned.last(values[c.returned.name]) for c in self._facts.carried
        }
        states |= {key: values[tensor] for key, tensor in self._ends.items()}
        return _Answer(
            {port.name: port.last(values[port.name]) for port in self._facts.outputs},
            {key: value.reshape(batch, -1) for key, value in states.items()},
        )

    # how the engine compares

    def _compare(self, data: Data) -> None:
        """Notes the largest error of the engine's steps; raises at the first that is too large."""
        engine = self._engine
        state = np.tile(engine.graph.initial, (_size(data)[1], 1))
        scales: Data = {}
        for step, expected in enumerate(self._answers(data)):
            result = engine.run({name: x[step : step + 1] for name, x in data.items()}, state, trace=False)
            state = result.state
            for name, wanted in expected.outputs.items():
                self._judge(f"output '{name}'", step, wanted, result.outputs[name][0], scales)
            for columns in engine.graph.state:
                what = f"state '{columns.name}'" + ("" if columns.layer is None else f" of layer {columns.layer}")
                shown = expected.states.get((columns.layer, columns.name))  # a loop's own states are not
                if shown is not None:
                    self._judge(what, step, shown, state[:, columns.span], scales)

    def _judge(self, what: str, step: int, wanted: np.ndarray, got: np.ndarray, scales: Data) -> None:
        wanted = wanted.astype(np.float64)
        if not np.isfinite(wanted).all() and (what.startswith("state") or np.isnan(wanted).any()):
            raise ModelRefused(
                f"the original file itself answers {_first_strange(wanted)} in {what} at step {step} of a random "
                "sequence (normal numbers, positive ones where those did not do, tokens within their tables): it "
                "overflows, or takes numbers of another kind only. Nothing can be proved of it; scale its inputs "
                "within the graph, so that ordinary numbers can go in"
            )
        if np.isnan(got).any() and not np.isnan(wanted).any():
            raise ModelRefused(
                f"{what} is NaN at step {step} of a random sequence, where the original file's operator makes a number "
                "of a NaN that it is given: the file divides by its input, or takes its root or logarithm, where that "
                "is not defined. Let it bound its input first"
            )
        error = _error(what, wanted, got, scales)
        if not error <= self._tolerance:
            raise _Differs(
                f"{what} at step {step} differs by {error:.2g} from the original file's answer to the first {step + 1} "
                f"steps; at most {self._tolerance:.0e} is accepted",
                step == 0,
            )
        self._worst = max(self._worst, error)

    def _check_rows(self, data: Data) -> None:
        """Each row must end as it does without the others."""
        *_, together = self._answers(data)
        for row in range(_size(data)[1]):
            *_, alone = self._answers({name: x[:, row : row + 1] for name, x in data.items()})
            for name, wanted in alone.outputs.items():
                error = _error("row", wanted.astype(np.float64), together.outputs[name][row : row + 1], {})
                if not error <= self._tolerance:
                    raise self._mixed_rows(name, error)

    def _mixed_rows(self, output: str, error: float) -> ModelRefused:
        node = diagnosis.row_mixing_node(self._model, self._facts, self._tolerance)
        where = "something in it" if node is None else label(node)
        return ModelRefused(
            f"rows of a batch influence each other: {where} mixes sequences. Let the network treat each row of its "
            f"batch axis by itself, or export it with a batch axis that is fixed to 1 (output '{output}' of one row "
            f"differs by {error:.2g} when others are beside it)",
            None if node is None else name_of(node),
        )

    def _refusal(self, differs: _Differs) -> ModelRefused:
        node = diagnosis.mixing_node(self._model, self._facts, self._engine.graph, self._tolerance)
        loop = next((loop for loop in loops.find(self._model) if loop.node is node), None)
        if loop:
            said = f"{label(loop.node)} cannot be cut into steps: {loops.objection(loop)}"
            return ModelRefused(f"{said} ({differs})", name_of(loop.node))
        if node is not None and node.op_type not in RECURRENT:
            return ModelRefused(f"{diagnosis.explained(node)} ({differs})", name_of(node))
        if differs.first:
            return ModelRefused(
                "the equations do not give what the file gives, even for a single step. This is a fault of the "
                f"server's; please report it with the file ({differs})"
            )
        return ModelRefused(
            "something outside the recurrent cells mixes steps with one another, or a state is fed back that is not "
            f"meant to be. {diagnosis.ADVICE} ({differs})"
        )

    def _compare_fixed(self, fixed: onnx.ModelProto) -> int:
        """The file before axes were freed, at the size that it fixes; returns how many steps were compared."""
        length, batch = _fixed_size(fixed, self._facts)
        if length > _LONGEST:
            return 0
        data = _sequences(self._facts, length, batch, 0)
        feeds = self._facts.feeds({p.name: p.original(data[p.name]) for p in self._facts.inputs}, batch, length)
        names = [port.name for port in self._facts.outputs]
        values = session.run(session.create(oracle.runnable(fixed)), names, feeds)
        state = np.tile(self._engine.graph.initial, (batch, 1))
        result = self._engine.run(data, state, trace=False)
        for port, y in zip(self._facts.outputs, values, strict=True):
            error = _error(port.name, port.last(y).astype(np.float64), result.outputs[port.name][-1], {})
            if not error <= self._tolerance:
                raise ModelRefused(
                    f"output '{port.name}' differs by {error:.2g} once the axes that the file fixes are freed, so they "
                    "cannot be. Export the model with a dynamic batch axis and a dynamic time axis"
                )
            self._worst = max(self._worst, error)
        return length * batch


def _showing_states(
    model: onnx.ModelProto, cells: Sequence[CellNode], engine: Engine
) -> tuple[onnx.ModelProto, dict[tuple[int | None, str], str]]:
    """A copy that also returns how the cells end whose states the engine keeps, and the names of those tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = {next(filter(None, node.output), ""): node for node in copy.graph.node}
    known, ends = {output.name for output in copy.graph.output}, dict[tuple[int | None, str], str]()
    for columns in engine.graph.state:
        if columns.layer is None:
            continue
        cell = cells[columns.layer]
        node = nodes[next(filter(None, cell.node.output))]
        index = 1 + cell.cell.states.index(columns.name)
        node.output.extend([""] * (index + 1 - len(node.output)))
        node.output[index] = node.output[index] or f"{PREFIX}end/{columns.layer}/{columns.name}"
        ends[columns.layer, columns.name] = node.output[index]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ends.values() if name not in known)
    return copy, ends


def _tolerance(facts: Facts, engine: Engine) -> float:
    """Half precision anywhere in the file makes it coarse."""
    ports = (*facts.inputs, *facts.outputs, *(carried.given for carried in facts.through))
    types = {*(port.dtype for port in ports), *(cell.dtype for cell in engine.graph.layers)}
    return _HALF_TOLERANCE if np.dtype(np.float16) in types else _TOLERANCE


def _sequences(facts: Facts, length: int, batch: int, seed: int) -> Data:
    """Random steps for each input; what has no time axis beside others that have one stays the same."""
    random = np.random.default_rng(seed)
    data = {port.name: port.sample(length, batch, random) for port in facts.inputs}
    for port in facts.inputs:
        if port.time is None and not facts.one_step:
            data[port.name][:] = data[port.name][0]
    return data


def _size(data: Data) -> tuple[int, int]:
    """Steps and sequences."""
    length, batch = next(iter(data.values())).shape[:2]
    return length, batch


def _fixed_size(fixed: onnx.ModelProto, facts: Facts) -> tuple[int, int]:
    """The steps and sequences that a file is fixed to; 3 and 2 where it is not, or 1 if sequences run alone."""
    dims = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in fixed.graph.input}
    times = [dims[p.name][p.time] // max(1, p.block) for p in facts.inputs if p.time is not None]
    batches = [dims[p.name][p.batch] for p in facts.inputs if p.batch is not None]
    return next(filter(None, times), 3 if times else 1), next(filter(None, batches), 1 if facts.alone else 2)


def _error(what: str, wanted: np.ndarray, got: np.ndarray, scales: Data) -> float:
    """The largest difference as `Proof` counts it. `wanted` and `got` are [B, ...row], `scales[what]` is updated."""
    if wanted.size == 0:
        return 0.0
    finite = np.isfinite(wanted)
    if not np.array_equal(wanted[~finite], got[~finite]):
        return float("inf")
    values = np.where(finite, wanted, 0)
    scales[what] = np.maximum(scales.get(what, np.ones(1)), np.abs(values).max(0))
    return float((np.abs(values - np.where(finite, got, 0)) / scales[what]).max())


def _first_strange(array: np.ndarray) -> str:
    return "NaN" if np.isnan(array).any() else "Inf"
