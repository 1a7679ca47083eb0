"""What a file means: it is read in each way that it can be read, and the first reading that is proved is the one.

Decides nothing that the proof does not: which axes are batch and time, which inputs are state, which loops are steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import onnx

from stepgraph.cells import operators
from stepgraph.cells.operators import CellNode
from stepgraph.errors import AxesUnknown, ModelRefused, StepFailed, StepgraphError
from stepgraph.file import sidecar
from stepgraph.file.sidecar import Sidecar
from stepgraph.graphs.graph import Graph
from stepgraph.proving import beginnings, drawn, judgement, proof, sizes, windowed
from stepgraph.proving.proof import Proof
from stepgraph.proving.reference import Original
from stepgraph.reading import annotation, axes, branches, interface, iterations, legends, loops, outputs, stateless
from stepgraph.reading.interface import Interface
from stepgraph.reading.iterations import Iteration
from stepgraph.reading.probe import Probe
from stepgraph.reading.source import Source, source
from stepgraph.rewriting import generator, rewriter, runnable, unrounded
from stepgraph.rewriting.ports import Facts
from stepgraph.running.engine import Engine


@dataclass(frozen=True, eq=False)
class Interpretation:
    """A model's facts, what runs it, and the proof that they are right."""

    facts: Facts
    engine: Engine
    proof: Proof


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
    except StepgraphError:
        found = _in_blocks(model, said, said.block) if said.block else None
        if found is None:
            raise
        return found


def _in_blocks(model: onnx.ModelProto, said: Sidecar, block: Mapping[str, int]) -> Interpretation | None:
    """What the file is if an axis of these inputs has that size at each step."""
    with suppress(StepgraphError):
        inputs = {info.name for info in model.graph.input}
        others = {name: size for name, size in said.block.items() if name not in inputs}
        found = _decided(branches.resolve(sidecar.cut(model, block)), replace(said, block=others))
        if found.facts.carried or not found.facts.one_step:  # else each block would begin anew
            return found
    return None


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
    raise next((r for r in refusals if r.node), refusals[0] if refusals else refusal)


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
    raise next((refused for refused in refusals if refused.node), refusal)


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
    return _read_rounded(reading) if unrounded.rounds(reading.graph.model) else _read_exact(reading)[0]


def _read_rounded(reading: _Reading) -> Interpretation:
    """A file that rounds to 8 bits is understood and proved without that, and measured with it."""
    model, exact = reading.graph.model, Graph(unrounded.unrounded(reading.graph.model))
    fixed = reading.fixed and unrounded.unrounded(reading.fixed)
    found, facts, learnt = _read_exact(replace(reading, graph=exact, cells=operators.find(exact), fixed=fixed))
    plain, _ = beginnings.applied(source(Source(model, reading.cells, facts), reading.known, learnt), reading.graph)
    step = annotation.applied(plain)
    alone, endless = _rounding_alone(model) or found.facts.alone, _endless(step)
    engine = _engine(endless, alone)
    apart = proof.rounding_error(Original(reading.graph, step.cells), endless.facts, engine)
    engine = _engine(step, alone) if step.facts.window else engine
    facts, engine = _drawing(step, engine, proof.ROUNDING)
    return Interpretation(facts, engine, replace(found.proof, rounding=apart))


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
    return _proved_step(step, Original(reading.graph, step.cells, reading.fixed), reading.looks_back)


def _proved_step(plain: Source, original: Original, looks_back: bool) -> Interpretation:
    """One step with the cells that the file names: if it can be proved without them only, they are to blame.

    Where it names none, with those that are known by their equations, if that can be proved.
    """
    plain, finding = beginnings.applied(plain, original.graph)
    if looks_back and not plain.facts.rings:
        raise judgement.told(ModelRefused(stateless.NO_STATE), finding)
    step = _recognised(plain, original, read=finding is None) or annotation.applied(plain)
    try:
        engine, proved = _compared(step, original, read=finding is None)
    except ModelRefused as refused:
        if step.named and _holds(plain, original):
            raise annotation.refusal(step.named) from None
        raise judgement.told(refused, finding) from refused
    except StepFailed as failed:
        if finding is None or finding.kind != "mixes":
            raise
        raise ModelRefused(f"{finding}, so this model cannot answer a stream ({failed})", finding.node) from failed
    facts, unread = judgement.confirmed(finding, original.graph, step.facts)
    if facts.alone != step.facts.alone or facts.window:
        engine = _engine(replace(step, facts=facts))
    if facts.window:
        proved = windowed.prove(original, facts, engine, facts.window, proved)
    facts, engine = _drawing(replace(step, facts=facts), engine, proved.tolerance)
    return Interpretation(facts, engine, replace(proved, unread=unread))


def _drawing(step: Source, given: Engine, same: float) -> tuple[Facts, Engine]:
    """The facts and the engine once random numbers that were inputs are drawn from the state; the same if none were."""
    facts = drawn.from_state(step.facts, given.graph)
    if not facts.drawn:
        return facts, given
    engine = _engine(replace(step, facts=facts), given.alone)
    drawn.check(facts, engine, given, same)
    return facts, engine


def _endless(step: Source) -> Source:
    return replace(step, facts=replace(step.facts, window=None)) if step.facts.window else step


def _recognised(plain: Source, original: Original, *, read: bool) -> Source | None:
    """The same with cells that are known by their equations, if there are some and that can be proved."""
    step = annotation.recognised(plain)
    return step if step.named and _holds(step, original, read=read) else None


def _compared(step: Source, original: Original, *, read: bool = False) -> tuple[Engine, Proof]:
    engine = _engine(_endless(step))
    return engine, proof.prove(original, _endless(step).facts, engine, read=read)


def _holds(step: Source, original: Original, *, read: bool = False) -> bool:
    try:
        _compared(step, original, read=read)
    except StepgraphError:
        return False
    return True


def _engine(step: Source, alone: str | None = None) -> Engine:
    return Engine(rewriter.rewrite(step.model, step.cells, step.facts, step.named), alone or step.facts.alone)
