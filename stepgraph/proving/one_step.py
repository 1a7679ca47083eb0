"""One step of a file, as one reading has it, proved with the cells that fit it best. Decides nothing about axes."""

from dataclasses import dataclass, replace

from stepgraph.errors import ModelRefused, StepFailed, StepgraphError
from stepgraph.file.precision import Precision
from stepgraph.file.sidecar import FILE
from stepgraph.proving import beginnings, comparison, judgement, narrowed, random_inputs, windowed
from stepgraph.proving.proof import Proof
from stepgraph.proving.reference import Original
from stepgraph.reading import annotation, stateless
from stepgraph.reading.source import Source
from stepgraph.rewriting import rewriter
from stepgraph.rewriting.ports import Facts
from stepgraph.running.engine import Engine


@dataclass(frozen=True, eq=False)
class Interpretation:
    """A model's facts, what runs it, and the proof that they are right.

    `step` is what was compared with `original`, before any random numbers were drawn from the state.
    """

    facts: Facts
    engine: Engine
    proof: Proof
    step: Source
    original: Original


def proved(plain: Source, original: Original, looks_back: bool) -> Interpretation:
    """One step with the cells that the file names: if it can be proved without them only, they are to blame.

    Where it names none, with those that are known by their equations, if that can be proved.
    """
    plain, finding = beginnings.applied(plain, original.graph)
    if looks_back and not plain.facts.rings:
        raise judgement.told(ModelRefused(stateless.NO_STATE), finding)
    step = _recognised(plain, original, read=finding is None) or annotation.applied(plain)
    try:
        engine, agreed = _compared(step, original, read=finding is None)
    except ModelRefused as refused:
        if step.named and _holds(plain, original):
            raise annotation.refusal(step.named) from None
        raise judgement.told(refused, finding) from refused
    except StepFailed as failed:
        if finding is None or finding.kind not in ("mixes", "unknown"):
            raise
        raise judgement.failing(finding, failed) from failed
    facts, unread = judgement.confirmed(finding, original.graph, step.facts)
    if facts.alone != step.facts.alone or facts.window:
        engine = engine_of(replace(step, facts=facts))
    if facts.window:
        agreed = windowed.prove(original, facts, engine, facts.window, agreed)
    step, agreed = replace(step, facts=facts), replace(agreed, unread=unread)
    facts, engine = drawing(step, engine, agreed.tolerance)
    return Interpretation(facts, engine, agreed, step, original)


def narrow(found: Interpretation, weights: Precision) -> Interpretation:
    """The same with weights in a narrower type, and how far that leads from the file. Raises ModelRefused: too far."""
    if found.proof.rounding is not None:
        raise ModelRefused(f"{FILE} asks for narrower weights, and the file rounds to 8 bits by itself")
    step, facts = found.step, replace(found.facts, weights=weights)
    tried = endless(replace(step, facts=replace(step.facts, weights=weights)))
    error = narrowed.measured(found.original, tried.facts, engine_of(tried), weights)
    engine = engine_of(replace(step, facts=facts), found.engine.alone)
    return replace(found, facts=facts, engine=engine, proof=replace(found.proof, narrowed=error))


def drawing(step: Source, given: Engine, same: float) -> tuple[Facts, Engine]:
    """The facts and the engine once random numbers that were inputs are drawn from the state; the same if none were."""
    facts = random_inputs.from_state(step.facts, given.graph)
    if not facts.drawn:
        return facts, given
    engine = engine_of(replace(step, facts=facts), given.alone)
    random_inputs.check(facts, engine, given, same)
    return facts, engine


def endless(step: Source) -> Source:
    return replace(step, facts=replace(step.facts, window=None)) if step.facts.window else step


def _recognised(plain: Source, original: Original, *, read: bool) -> Source | None:
    """The same with cells that are known by their equations, if there are some and that can be proved."""
    step = annotation.recognised(plain)
    return step if step.named and _holds(step, original, read=read) else None


def _compared(step: Source, original: Original, *, read: bool = False) -> tuple[Engine, Proof]:
    engine = engine_of(endless(step))
    return engine, comparison.prove(original, endless(step).facts, engine, read=read)


def _holds(step: Source, original: Original, *, read: bool = False) -> bool:
    try:
        _compared(step, original, read=read)
    except StepgraphError:
        return False
    return True


def engine_of(step: Source, alone: str | None = None) -> Engine:
    return Engine(rewriter.rewrite(step.model, step.cells, step.facts, step.named), alone or step.facts.alone)
