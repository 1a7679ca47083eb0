"""Proves a step graph against the original file: the same random sequences through both must give the same numbers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from stepgraph.cells.operators import is_recurrent
from stepgraph.errors import Imprecise, ModelRefused, StepFailed
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import with_inner
from stepgraph.proving import diagnosis, explanation, hints, long_run, sizes
from stepgraph.proving.diagnosis import Bounds
from stepgraph.proving.difference import Compared, Difference, errors, first_beyond
from stepgraph.proving.proof import ROUNDING, Proof
from stepgraph.proving.reference import Answer, Data, Original, Reference, begin, sequences, size
from stepgraph.reading import loops
from stepgraph.rewriting import runnable
from stepgraph.rewriting.ports import Facts
from stepgraph.running import session
from stepgraph.running.engine import Engine
from stepgraph.running.result import Result

_LENGTHS, _BATCHES = (1, 2, 5, 13), (1, 3)
_BEGUN = 5  # steps from random states
_LONGEST = 1000  # steps of a file that fixes its time axis to more are not compared at that length
_BOUNDS = Bounds(same=1e-5, other=1e-3)  # the oracle computes doubles in single precision
_HALF_BOUNDS = Bounds(same=2e-3, other=2e-2)
_SHORT_BOUNDS = Bounds(same=2e-2, other=2e-1)  # of bfloat16, with 8 binary digits


def prove(original: Original, facts: Facts, engine: Engine, *, read: bool = False) -> Proof:
    """Compares the engine, step by step, with the original on every prefix of random sequences.

    The step graph's answer at step t must be the original's answer to the prefix that ends at t, and so must its
    states be those that the original's cells end with. A file that takes one step at a time is given its own state back
    after each. Each row of a batch must have the answer that it has without the others; and where axes were freed, the
    file as it was must give the same answers at the size that it was made for. Where the graph was `read` and reading
    found nothing, fewer lengths are run.

    Raises:
        ModelRefused: they differ by more than the tolerance, the original's own answers are no numbers, its rows
            influence each other, or the step graph does not run.
    """
    return _Comparison(original, facts, engine, _bounds(original, facts, engine)).proof(read)


def rounding_error(original: Original, facts: Facts, engine: Engine) -> float:
    """The largest difference from the answers of a file that rounds to 8 bits, one sequence at a time."""
    return _Comparison(original, facts, engine, Bounds(ROUNDING, ROUNDING)).rounding()


class _Comparison:
    def __init__(self, original: Original, facts: Facts, engine: Engine, bounds: Bounds) -> None:
        self._original, self._facts, self._engine, self._bounds = original, facts, engine, bounds
        self._reference = Reference(original, facts, engine.graph)
        self._worst = 0.0

    def proof(self, read: bool) -> Proof:
        steps, lengths = 0, _LENGTHS[-1:] if read else _LENGTHS
        batches = (1,) if self._facts.alone else _BATCHES
        for seed, (length, batch) in enumerate((t, b) for t in lengths for b in batches):
            data = sequences(self._facts, length, batch, seed)
            answers = list(self._reference.answers(data))
            apart = self._compare(data, answers)
            if apart and not (read and self._is_rounding(data, answers)):
                raise self._refusal(apart, batch)
            if not self._facts.one_step:
                self._check_causal(answers)
            if batch > 1:
                self._check_rows(data, answers[-1])
            steps += length * batch
        steps += sum(self._compare_begun(batch, read) for batch in batches if self._facts.carried)
        steps += self._compare_long(read)
        if self._original.fixed is not None:
            steps += self._compare_fixed(self._original.fixed)
        return Proof(self._worst, self._bounds.same, steps)

    def _compare_begun(self, batch: int, read: bool) -> int:
        """From random states; returns how many steps were compared: none if the original has no numbers for them."""
        data, random = sequences(self._facts, _BEGUN, batch, batch), np.random.default_rng(batch)
        begun = {c.given.name: c.given.sample(1, batch, random)[0] for c in self._facts.carried}
        try:
            answers = list(self._reference.answers(data, begun))
        except StepFailed:
            return 0
        values = (value for answer in answers for value in answer.values())
        if not all(np.isfinite(value).all() for value in values):
            return 0
        apart = self._compare(data, answers, begun)
        if apart and not (read and self._is_rounding(data, answers, begun)):
            raise self._refusal(apart, batch)
        return _BEGUN * batch

    def _compare_long(self, read: bool) -> int:
        """One sequence beyond every constant that could be a reach in steps; returns how many steps were compared."""
        found = replace(hints.hints(self._original.graph), rings=sum(ring.steps for ring in self._facts.rings))
        told = long_run.first_beyond(self._reference, self._facts, self._engine, found, self._bounds, few=read)
        self._worst, apart = max(self._worst, told.largest), told.apart
        if apart is not None and told.rounding:
            raise long_run.imprecise(apart, self._bounds.other)
        if apart is not None:
            node = diagnosis.mixing_node(
                self._reference.model, self._facts, self._engine.graph, self._bounds, apart.step + 1
            )
            raise long_run.refusal(apart, None if node is None else explanation.mixing(node))
        return told.steps

    def rounding(self) -> float:
        for seed, length in enumerate(_LENGTHS):
            data = sequences(self._facts, length, 1, seed)
            apart = self._compare(data, list(self._reference.answers(data)))
            if apart:
                raise ModelRefused(
                    f"{self._said(apart)}: the file rounds to 8 bits by the range of all steps at once, and one step "
                    "at a time that comes to something else. Serve the model as it was before it was quantised"
                )
        return self._worst

    # step by step

    def _compare(self, data: Data, answers: Sequence[Answer], begun: Data | None = None) -> Difference | None:
        """Notes the largest error of the engine's steps; returns the first that is too large."""
        compared = self._compared(data, answers, begun or {})
        apart = first_beyond(compared, self._bounds.same)
        if apart is None:
            self._worst = max(self._worst, *(float(each.errors.max()) for each in compared))
        return apart

    def _is_rounding(self, data: Data, answers: Sequence[Answer], begun: Data | None = None) -> bool:
        """Whether the original is as far from itself once the last digits of its numbers are moved.

        Then it notes the largest error. To be asked of what reading proves only.

        Raises:
            Imprecise: it is, and that is further than may be.
        """
        others = list(self._reference.inexact().answers(data, begun or {}))
        told, moved = (self._compared(data, each, begun or {}) for each in (answers, others))
        noise = (long_run.AMPLIFIED * errors(t.wanted, m.wanted, t.unit) for t, m in zip(told, moved, strict=True))
        if first_beyond(told, [np.fmax(self._bounds.same, each) for each in noise]) is not None:
            return False
        apart = first_beyond(told, self._bounds.other)
        if apart is not None:
            raise long_run.imprecise(apart, self._bounds.other)
        self._worst = max(self._worst, *(float(each.errors.max()) for each in told))
        return True

    def _compared(self, data: Data, answers: Sequence[Answer], begun: Data) -> list[Compared]:
        """Every output and state at each step, from the engine and from the original."""
        graph, steps = self._engine.graph, range(self._facts.lead, size(data)[0])
        state, results = begin(graph, size(data)[1], begun), list[Result]()
        for step in range(steps.stop):
            one = {name: x[step : step + 1] for name, x in data.items()}
            results.append(self._engine.run(one, state, trace=False))
            state = results[-1].state
        results, found = results[steps.start :], []
        for port in self._facts.outputs:
            wanted = np.stack([answer.outputs[port.name] for answer in answers])
            got = np.concatenate([result.outputs[port.name] for result in results])
            found.append(Compared(f"output '{port.name}'", steps, wanted, got, port.unit))
        for columns in graph.state:
            key = (columns.layer, columns.name)
            if key in answers[0].states:  # a loop's own states are not
                what = f"state '{columns.name}'" + ("" if columns.layer is None else f" of layer {columns.layer}")
                wanted = np.stack([answer.states[key] for answer in answers])
                got = np.stack([result.state[:, columns.span] for result in results])
                found.append(Compared(what, steps, wanted, got, is_state=True))
        return found

    def _refusal(self, apart: Difference, batch: int) -> ModelRefused:
        model = self._reference.model
        node = diagnosis.mixing_node(model, self._facts, self._engine.graph, self._bounds)
        said, noise = self._said(apart), self._noise(apart.step, batch)
        grown = long_run.AMPLIFIED * noise
        loop = next((loop for loop in loops.find(model) if loop.node is node), None)
        if loop:
            objection = f"{label(loop.node)} cannot be cut into steps: {loops.objection(loop)}"
            return ModelRefused(f"{objection} ({said})", name_of(loop.node))
        if node is not None and not is_recurrent(node) and grown < max(apart.error, self._bounds.other):
            return ModelRefused(f"{explanation.mixing(node)} ({said})", name_of(node))
        largest = max(apart.error, self._largest(batch)) if apart.error < self._bounds.other else apart.error
        if largest < self._bounds.other:
            return Imprecise(
                explanation.rounding(f"{said}; over {max(_LENGTHS)} steps it is never more than {largest:.2g}")
            )
        if grown >= apart.error:
            return Imprecise(explanation.growing_rounding(said, noise))
        if apart.step == 0:
            return ModelRefused(
                "one step of it does not give what the whole file gives, from the first step on. Its state goes a way "
                "that is not known here, or its first step is none of its own: export the file for one step at a time, "
                "with what it remembers as an input and an output, and name that pair in model.toml beside the file, "
                f"under [state] ({said})"
            )
        return ModelRefused(
            "something outside the recurrent cells mixes steps with one another, or a state is fed back that is not "
            f"meant to be. {explanation.ADVICE} ({said})"
        )

    def _noise(self, step: int, batch: int) -> float:
        """How far the original is from itself at most up to a step, if its inputs change by a millionth."""
        data = sequences(self._facts, step + 1 - self._facts.lead, batch, 0)
        pairs = zip(self._reference.answers(data), self._reference.answers(long_run.moved(data)), strict=True)
        return max(_apart(x, y) for one, two in pairs for x, y in zip(one.values(), two.values(), strict=True))

    def _largest(self, batch: int) -> float:
        """The largest difference in the longest of the sequences: what is no rounding grows from step to step."""
        data = sequences(self._facts, max(_LENGTHS), batch, 0)
        return max(float(each.errors.max()) for each in self._compared(data, list(self._reference.answers(data)), {}))

    def _said(self, apart: Difference) -> str:
        return (
            f"{apart.what} at step {apart.step} differs by {apart.error:.2g} from the original file's answer to the "
            f"first {apart.step + 1} steps; at most {self._bounds.same:.0e} is accepted"
        )

    # the original by itself

    def _check_causal(self, answers: Sequence[Answer]) -> None:
        """Checks that the original's answer at a step does not change when more steps follow."""
        for port in self._facts.outputs:
            if port.time is None:
                continue
            wanted = port.steps(answers[-1].whole[port.name]).take(range(len(answers)), 0, mode="wrap")
            got = np.stack([answer.outputs[port.name] for answer in answers])
            apart = errors(wanted, got, port.unit, since_start=False)
            for step in np.flatnonzero(~(apart <= self._bounds.same))[:1]:
                raise self._looks_ahead(port.name, int(step), float(apart[step]))

    def _looks_ahead(self, output: str, step: int, error: float) -> ModelRefused:
        node = diagnosis.ahead_node(self._reference.model, self._facts, self._bounds)
        said = f"output '{output}' at step {step} changes by {error:.2g} in the original file once later steps follow"
        if node is not None:
            return ModelRefused(f"{explanation.mixing(node)} ({said}: it looks ahead)", name_of(node))
        if error < self._bounds.other:
            return ModelRefused(explanation.rounding(said))
        return ModelRefused(f"the model looks ahead, and a stream cannot. {explanation.ADVICE} ({said})")

    def _check_rows(self, data: Data, together: Answer) -> None:
        """Checks that the answer to each row is the same without the others."""
        for row in range(size(data)[1]):
            alone = self._reference.last({name: x[:, row : row + 1] for name, x in data.items()})
            for port in self._facts.outputs:
                wanted, got = alone.outputs[port.name], together.outputs[port.name][row : row + 1]
                error = float(errors(wanted[np.newaxis], got[np.newaxis], port.unit)[0])
                if not error <= self._bounds.same:
                    raise self._mixed_rows(port.name, error)

    def _mixed_rows(self, output: str, error: float) -> ModelRefused:
        node = diagnosis.row_mixing_node(self._reference.model, self._facts, self._bounds)
        said = f"output '{output}' of one row differs by {error:.2g} when others are beside it"
        if node is None and error < self._bounds.other:
            return ModelRefused(explanation.rounding(said))
        where = "something in it" if node is None else label(node)
        return ModelRefused(
            f"rows of a batch influence each other: {where} mixes sequences. Let the network treat each row of its "
            f"batch axis by itself, or export it with a batch axis that is fixed to 1 ({said})",
            None if node is None else name_of(node),
        )

    def _compare_fixed(self, fixed: onnx.ModelProto) -> int:
        """The file before axes were freed, at the size that it fixes; returns how many steps were compared."""
        length, batch = (
            sizes.steps(fixed, self._facts) or (1 if self._facts.one_step else 3),
            sizes.batch(fixed, self._facts),
        )
        if length > _LONGEST:
            return 0
        data = sequences(self._facts, length - self._facts.lead, batch, 0)
        names = [port.name for port in self._facts.outputs]
        values = session.run(session.create(runnable.runnable(fixed)), names, self._facts.feeds(data, batch, length))
        result = self._engine.run(data, self._engine.graph.start(batch), trace=False)
        for port, y in zip(self._facts.outputs, values, strict=True):
            error = float(errors(port.last(y)[np.newaxis], result.outputs[port.name][-1:], port.unit)[0])
            if not error <= self._bounds.same:
                raise ModelRefused(
                    f"output '{port.name}' differs by {error:.2g} once the axes that the file fixes are freed, so they "
                    "cannot be. Export the model with a dynamic batch axis and a dynamic time axis"
                )
            self._worst = max(self._worst, error)
        return length * batch


def _apart(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(errors(wanted[np.newaxis], got[np.newaxis])[0])


def _bounds(original: Original, facts: Facts, engine: Engine) -> Bounds:
    """By the shortest type of a port, a cell, or of what a node rounds to on the way."""
    ports = (*facts.inputs, *facts.outputs, *(carried.given for carried in facts.through))
    types = {*(port.dtype for port in ports), *(cell.dtype for cell in engine.graph.layers)}
    casts = [node for node in with_inner(original.graph.nodes) if node.op_type == "Cast"]
    rounded = {attribute.i for node in casts for attribute in node.attribute if attribute.name == "to"}
    if TensorProto.BFLOAT16 in rounded:
        return _SHORT_BOUNDS
    return _HALF_BOUNDS if np.dtype(np.float16) in types or TensorProto.FLOAT16 in rounded else _BOUNDS
