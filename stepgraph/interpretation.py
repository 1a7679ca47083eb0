"""What a file means: it is read in each way that it can be read, and the first reading that is proved is the one.

Decides nothing that the proof does not: which axes are batch and time, which inputs are state, which loops are steps.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import onnx

from stepgraph.cells import operators
from stepgraph.cells.operators import CellNode
from stepgraph.errors import AxesUnknown, Imprecise, ModelRefused, StepFailed, StepgraphError
from stepgraph.file import sidecar
from stepgraph.file.sidecar import Sidecar
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label
from stepgraph.proving import beginnings, comparison, judgement, one_step, sizes
from stepgraph.proving.one_step import Interpretation
from stepgraph.proving.proof import ROUNDING
from stepgraph.proving.reference import Original
from stepgraph.reading import annotation, axes, branches, interface, iterations, legends, loops, outputs, stateless
from stepgraph.reading.interface import Interface
from stepgraph.reading.iterations import Iteration
from stepgraph.reading.probe import Probe
from stepgraph.reading.source import Source, source
from stepgraph.rewriting import generator, runnable, unrounded
from stepgraph.rewriting.ports import Facts
from stepgraph.rings import dropped, last_steps


@dataclass(frozen=True, eq=False)
class _Reading:
    """One way to read a file, before it is proved.

    `alone`: a batch of one sequence will do. `fixed`: the file before axes were freed, if some were. `looks_back`: its
    only state is what nodes look back at; `last`: of the ways to tell batch and time apart, the last is tried first.
    """

    graph: Graph
    cells: Sequence[CellNode]
    known: Interface
    said: Sidecar
    alone: bool = False
    fixed: onnx.ModelProto | None = None
    looks_back: bool = False
    last: bool = False


def interpret(model: onnx.ModelProto, said: Sidecar) -> Interpretation:
    """What the file is as it stands or else, if it shows its state, as it takes one block at a time."""
    try:
        return _decided(branches.resolve(model), said)
    except StepgraphError as refused:
        if not said.block:
            raise
        try:
            found = _in_blocks(model, said)
        except StepgraphError:
            if said.block.keys() & said.state.keys():
                raise
            raise refused from None
        if found.facts.one_step and not found.facts.carried:  # each block would begin anew
            raise
        return found


def _in_blocks(model: onnx.ModelProto, said: Sidecar) -> Interpretation:
    """What the file is if an axis of the inputs under [block] has that size at each step."""
    inputs = {info.name for info in model.graph.input}
    others = {name: size for name, size in said.block.items() if name not in inputs}
    return _decided(branches.resolve(sidecar.cut(model, said.block)), replace(said, block=others))


def _decided(model: onnx.ModelProto, said: Sidecar) -> Interpretation:
    """What a file is in which every `If` that can be decided is.

    Axes that the file fixes are freed if it cannot be understood otherwise; if its batch axis cannot be, a batch of one
    will do.
    """
    graph, found = Graph(model), loops.find(model)
    cells = operators.find(graph)
    known = interface.find(graph, [*cells, *found], said.state)
    reading = _Reading(graph, cells, known, said)
    if not cells and not said.state and not found:
        return _looking_back(reading, stateless.refusal(model))
    try:
        return _proved(reading)
    except AxesUnknown as unknown:
        refusal = ModelRefused(str(unknown), node=unknown.node)
    except (ModelRefused, StepFailed) as refused:
        other = _over_windows(reading, refused) or _fixed_after_all(reading)
        if other is None:
            raise
        return other
    refusals = list[ModelRefused]()
    for candidate, alone in _candidates(graph, known):
        with suppress(AxesUnknown):
            try:
                return _freed(model, candidate, known, said, alone)
            except ModelRefused as refused:
                refusals.append(refused)
    if not known.states:
        with suppress(ModelRefused):
            return _looking_back(reading, refusal)
    raise _best(refusals or [judgement.at_once(graph, cells, known) or refusal])


def _looking_back(reading: _Reading, refusal: ModelRefused) -> Interpretation:
    """A file in which nothing runs over the steps, but nodes look back over them.

    Raises:
        ModelRefused: no reading has such nodes: `refusal`, or, if that names no node, which node mixes steps.
    """
    refusals = [refusal]
    for last, alone in ((False, False), (True, False), (False, True)):
        try:
            return _read(replace(reading, looks_back=True, last=last, alone=alone))
        except ModelRefused as refused:
            refusals.append(refused)
        except (AxesUnknown, StepFailed):
            continue
    raise _best(refusals)


def _best(refusals: Sequence[ModelRefused]) -> ModelRefused:
    """Of a reading that only its rounding keeps from being proved; else the first that names a node, or the first."""
    told = [*(r for r in refusals if isinstance(r, Imprecise)), *(r for r in refusals if r.node), *refusals]
    return told[0]


def _fixed_after_all(reading: _Reading) -> Interpretation | None:
    """The same with an axis that is free in name only, if that can be proved once its size is known."""
    for model in axes.fixed_after_all(reading.graph):
        with suppress(StepgraphError):
            return _decided(model, reading.said)
    return None


def _over_windows(reading: _Reading, refused: StepgraphError) -> Interpretation | None:
    """The same with cells that run over the last steps within a step, beginning anew in each; None if none do.

    `refused` is why it is not served with cells that go on from step to step.
    """
    graph, cells = reading.graph, reading.cells
    if not last_steps.may_be_cut(graph, cells):
        return None
    with suppress(StepgraphError):
        probe = Probe(Graph(runnable.runnable(graph.model)), cells, reading.known, start=reading.said.start)
        probe.lead = dropped.lead(graph, cells)
        facts = probe.facts()
        anew = last_steps.over_windows(graph, cells, facts)
        rest, loose = [cell for cell in cells if cell not in anew], loops.find(graph.model)
        known = interface.find(graph, [*rest, *loose], reading.said.state)
        other = replace(reading, cells=rest, known=known)
        if anew:
            found = _proved(other) if rest or loose else _looking_back(other, ModelRefused(str(refused)))
            return replace(found, facts=replace(found.facts, anew=tuple(label(cell.node) for cell in anew)))
    return None


def _candidates(graph: Graph, known: Interface) -> Iterator[tuple[axes.Freed, bool]]:
    """What to try with a file whose axes are not free, best first, and whether a batch of one will do."""
    yield from ((candidate, False) for candidate in axes.freed(graph, known))
    yield axes.Freed(graph.model, ""), True
    yield from ((candidate, True) for candidate in axes.freed(graph, known, alone=True))


def _freed(
    fixed: onnx.ModelProto, candidate: axes.Freed, known: Interface, said: Sidecar, alone: bool
) -> Interpretation:
    graph = Graph(candidate.model)
    found = _proved(_Reading(graph, operators.find(graph), known, said, alone, fixed if candidate.said else None))
    freed = (
        part for part in candidate.said.split(", ") if generator.NORMAL not in part and generator.UNIFORM not in part
    )
    return replace(found, facts=replace(found.facts, freed=", ".join(freed)))


def _proved(reading: _Reading) -> Interpretation:
    """The model as one reading of its interface has it.

    Where states go in and come out and the proof says that they are not meant to go on from step to step, they start
    from zeros each time: the proof decides.
    """
    try:
        return _read(reading)
    except (ModelRefused, StepFailed):
        if not reading.known.states or reading.said.state:
            raise
        with suppress(StepgraphError):
            found = _read(replace(reading, known=interface.reset(reading.known)))
            if not found.facts.one_step:  # of one step alone, a proof cannot tell
                return found
        raise


def _read(reading: _Reading) -> Interpretation:
    if not unrounded.rounds(reading.graph.model):
        return _read_exact(reading)[0]
    return _read_rounded(reading)


def _read_rounded(reading: _Reading) -> Interpretation:
    """A file that rounds to 8 bits is understood and proved without that, and measured with it."""
    model, exact = reading.graph.model, Graph(unrounded.unrounded(reading.graph.model))
    fixed = reading.fixed and unrounded.unrounded(reading.fixed)
    found, facts, learnt = _read_exact(replace(reading, graph=exact, cells=operators.find(exact), fixed=fixed))
    plain, _ = beginnings.applied(source(Source(model, reading.cells, facts), reading.known, learnt), reading.graph)
    step = annotation.applied(plain)
    alone, endless = _rounding_alone(model) or found.facts.alone, one_step.endless(step)
    engine = one_step.engine_of(endless, alone)
    apart = comparison.rounding_error(Original(reading.graph, step.cells), endless.facts, engine)
    engine = one_step.engine_of(step, alone) if step.facts.window else engine
    facts, engine = one_step.drawing(step, engine, ROUNDING)
    return replace(found, facts=facts, engine=engine, proof=replace(found.proof, rounding=apart))


def _rounding_alone(model: onnx.ModelProto) -> str | None:
    if not unrounded.by_range(model):
        return None
    return (
        "the file rounds to 8 bits by the range of all that it is given at once, so its own answer to a step depends a "
        "little on the steps and sequences beside it. Each step by itself, it has the same bits whoever else is served"
    )


def _read_exact(reading: _Reading) -> tuple[Interpretation, Facts, Sequence[Iteration]]:
    model, cells, known = reading.graph.model, reading.cells, reading.known
    original, counts = loops.counted(runnable.runnable(model))
    graph = reading.graph if original is model else Graph(original)
    found = loops.find(original)
    block, start, fixed = reading.said.block, reading.said.start, reading.fixed is not None
    probe = Probe(graph, cells, known, counts, iterations.tensors(found), block, reading.alone, fixed, start)
    probe.looks_back, probe.last = reading.looks_back, reading.last
    probe.lead = dropped.lead(reading.graph, cells)
    facts = replace(outputs.on_their_grid(probe.facts(), graph), window=reading.said.window)
    facts = replace(facts, made_for=sizes.steps(reading.fixed, facts) if reading.fixed else 0)
    facts = legends.put(facts, reading.graph.model, reading.said)
    of_loops = frozenset((i - len(cells), k) for i, k in known.carried if i >= len(cells))
    learnt = iterations.learn(found, counts, facts, of_loops, probe.trial)
    del probe  # and its session, which holds the file's weights once more
    if not learnt and not cells and not facts.carried and not reading.looks_back:
        raise stateless.refusal_of_loops(original)
    try:
        return _stepped(reading, facts, learnt), facts, learnt
    except ModelRefused as refused:
        if not legends.draws(facts):
            raise
        facts = legends.without_doubtful(facts, reading.said, str(refused))
        with suppress(ModelRefused):
            return _stepped(reading, facts, learnt), facts, learnt
        raise


def _stepped(reading: _Reading, facts: Facts, learnt: Sequence[Iteration]) -> Interpretation:
    step = source(Source(reading.graph.model, reading.cells, facts), reading.known, learnt)
    original = Original(reading.graph, step.cells, reading.fixed)
    return one_step.proved(step, original, reading.looks_back)
