"""Turns a file into a model that is rewritten, proved and warmed up. Slow: to be called away from the event loop."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import inliner

from server import (
    axes,
    branches,
    content,
    interface,
    iterations,
    loops,
    oracle,
    probe,
    proof,
    recurrence,
    rounding,
    session,
    sidecar,
    soundness,
    stepgraph,
)
from server.content import Content
from server.engine import Engine
from server.errors import AxesUnknown, ModelRefused, TidegateError
from server.graph import copied
from server.interface import Interface
from server.iterations import Iteration
from server.model import LoadedModel
from server.ports import Facts, Pace
from server.proof import Proof
from server.recurrence import CellNode, label, name_of
from server.reference import Original
from server.sidecar import Sidecar

_NO_STATE = (
    "the graph holds no RNN, LSTM or GRU node that is always run, and no Loop or Scan that runs once for each step, so "
    "there is no state to carry from step to step. If an input is state that an output returns, say so in model.toml "
    "beside the file, under [state]; if a node `If` hides the cells, fix the input that decides it under [fixed], or "
    "its size at each step under [block]"
)


def load(path: Path, max_batch: int, patience: float) -> LoadedModel:
    """Loads a model.onnx and warms it up for batches of up to `max_batch`, or that take `patience` seconds.

    Raises:
        ModelRefused: the file cannot be served; the sentence says why, and where in the graph.
        MemoryError: this process may not have as much memory as the file asks for.
    """
    return prove(read(path), max_batch, patience)


def read(path: Path) -> Content:
    """Reads a model.onnx and what belongs to it. Raises as `load`."""
    with _refusing():
        return content.read(path)


def prove(content: Content, max_batch: int, patience: float) -> LoadedModel:
    """Loads what was read, as `load` does."""
    with _refusing():
        return _prove(content, max_batch, patience)


@contextmanager
def _refusing() -> Iterator[None]:
    """Whatever a file makes the libraries do becomes a refusal of the file."""
    try:
        yield
    except Exception as error:
        if _is_starved(error):
            raise MemoryError(str(error)) from error
        if isinstance(error, ModelRefused):
            raise
        if isinstance(error, TidegateError):
            raise ModelRefused(f"the model does not run: {error}") from error
        if isinstance(error, onnx.checker.ValidationError):
            raise ModelRefused(f"the file breaks a rule of ONNX: {_one_line(error)}. Export the model again") from error
        raise ModelRefused(
            f"the file cannot be read as an ONNX model: {type(error).__name__}: {_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _is_starved(error: BaseException | None) -> bool:
    """Whether there was too little memory at the root of an error."""
    return error is not None and (session.is_starved(error) or _is_starved(error.__cause__ or error.__context__))


def _prove(content: Content, max_batch: int, patience: float) -> LoadedModel:
    soundness.check(content.model)
    _check(content.model)
    said = content.said
    found = _found(sidecar.fix(inliner.inline_local_functions(content.model), said.fixed), said)
    engine = found.engine
    engine.warm_up(max_batch, patience)
    engine.keep_bits()
    metadata = {entry.key: entry.value for entry in content.model.metadata_props}
    return LoadedModel(engine.graph, found.facts, engine, found.proof, content.prints.whole, metadata)


def _found(model: onnx.ModelProto, said: Sidecar) -> "_Understood":
    """What the file is as it stands or else, if it shows its state, as it takes one block at a time."""
    try:
        return _decided(branches.resolve(model), said)
    except TidegateError:
        if not said.block:
            raise
        with suppress(TidegateError):
            found = _decided(branches.resolve(sidecar.cut(model, said.block)), said)
            if found.facts.carried:  # else each block would begin anew
                return found
        raise


def _decided(model: onnx.ModelProto, said: Sidecar) -> "_Understood":
    """What a file is in which every `If` that can be decided is."""
    cells = recurrence.find(model)
    if not cells and not said.state and not loops.find(model):
        _refuse_backwards(model)
        _refuse_undecided(model)
        raise ModelRefused(_NO_STATE)
    return _understand(model, cells, said)


@dataclass(frozen=True, eq=False)
class _Understood:
    """A model's facts, what runs it, and the proof that they are right."""

    facts: Facts
    engine: Engine
    proof: Proof


def _understand(model: onnx.ModelProto, cells: Sequence[CellNode], said: Sidecar) -> _Understood:
    """Learns all there is to know, and proves it.

    Axes that the file fixes are freed if it cannot be understood otherwise; if its batch axis cannot be, a batch of one
    will do.
    """
    known = interface.find(model, [*cells, *loops.find(model)], said.state)
    try:
        return _proved(model, cells, known, said)
    except AxesUnknown as unknown:
        refusal = ModelRefused(str(unknown), node=unknown.node)
    refusals = list[ModelRefused]()
    for candidate, alone in _candidates(model, known):
        with suppress(AxesUnknown):
            try:
                return _freed(model, candidate, known, said, alone)
            except ModelRefused as refused:
                refusals.append(refused)
    raise next((r for r in refusals if r.node), refusals[0] if refusals else refusal)


def _candidates(model: onnx.ModelProto, known: Interface) -> Iterator[tuple[axes.Freed, bool]]:
    """What to try with a file whose axes are not free, best first, and whether a batch of one will do."""
    yield from ((candidate, False) for candidate in axes.freed(model, known))
    yield axes.Freed(model, ""), True
    yield from ((candidate, True) for candidate in axes.freed(model, known, alone=True))


def _freed(fixed: onnx.ModelProto, candidate: axes.Freed, known: Interface, said: Sidecar, alone: bool) -> _Understood:
    cells = recurrence.find(candidate.model)
    found = _proved(candidate.model, cells, known, said, alone, fixed if candidate.said else None)
    return replace(found, facts=replace(found.facts, freed=candidate.said))


def _proved(
    model: onnx.ModelProto,
    cells: Sequence[CellNode],
    known: Interface,
    said: Sidecar,
    alone: bool = False,
    fixed: onnx.ModelProto | None = None,
) -> _Understood:
    """The model as one reading of its interface has it.

    Where states go in and come out and the proof says that they are not meant to go on from step to step, they start
    from zeros each time: the proof decides.
    """
    try:
        return _read(model, cells, known, said, alone, fixed)
    except ModelRefused:
        if not known.states or said.state:
            raise
        with suppress(TidegateError):
            found = _read(model, cells, interface.reset(known), said, alone, fixed)
            if not found.facts.one_step:  # of one step alone, a proof cannot tell
                return found
        raise


def _read(
    model: onnx.ModelProto,
    cells: Sequence[CellNode],
    known: Interface,
    said: Sidecar,
    alone: bool,
    fixed: onnx.ModelProto | None,
) -> _Understood:
    if rounding.rounds(model):
        return _read_rounded(model, cells, known, said, alone, fixed)
    return _read_exact(model, cells, known, said, alone, fixed)[0]


def _read_rounded(
    model: onnx.ModelProto,
    cells: Sequence[CellNode],
    known: Interface,
    said: Sidecar,
    alone: bool,
    fixed: onnx.ModelProto | None,
) -> _Understood:
    """A file that rounds to 8 bits is understood and proved without that, and measured with it."""
    exact = rounding.unrounded(model)
    exact_fixed = fixed and rounding.unrounded(fixed)
    found, facts, learnt = _read_exact(exact, recurrence.find(exact), known, said, alone, exact_fixed)
    step = _step(_Step(model, cells, facts), known, learnt)
    engine = Engine(stepgraph.rewrite(step.model, step.cells, step.facts), _rounding_alone(model) or facts.alone)
    apart = proof.rounding_error(Original(model, step.cells), step.facts, engine)
    return _Understood(step.facts, engine, replace(found.proof, rounding=apart))


def _rounding_alone(model: onnx.ModelProto) -> str | None:
    if not rounding.by_range(model):
        return None
    return (
        "the file rounds to 8 bits by the range of all that it is given at once, so its own answer to a step depends a "
        "little on the steps and sequences beside it. Each step by itself, it has the same bits whoever else is served"
    )


def _read_exact(
    model: onnx.ModelProto,
    cells: Sequence[CellNode],
    known: Interface,
    said: Sidecar,
    alone: bool,
    fixed: onnx.ModelProto | None,
) -> tuple[_Understood, Facts, Sequence[Iteration]]:
    """What was understood; the facts of the file as it is, and its loops."""
    original = oracle.runnable(model)
    copy, counts = loops.counted(original)
    facts = probe.probe(copy, cells, known, counts, said.block, alone, fixed is not None)
    learnt = iterations.learn(
        original, facts, frozenset((i - len(cells), k) for i, k in known.carried if i >= len(cells))
    )
    if not learnt and not cells and not facts.carried:
        _refuse_loops(original)
        raise ModelRefused(_NO_STATE)
    step = _step(_Step(model, cells, facts), known, learnt)
    engine = Engine(stepgraph.rewrite(step.model, step.cells, step.facts), facts.alone)
    proved = proof.prove(Original(model, step.cells, fixed), step.facts, engine)
    return _Understood(step.facts, engine, proved), facts, learnt


def _step(whole: "_Step", known: Interface, learnt: Sequence[Iteration]) -> "_Step":
    if learnt:
        return _without_loops(whole, known, learnt)
    return replace(whole, facts=replace(whole.facts, holds=_holds(known, whole.cells)))


@dataclass(frozen=True, eq=False)
class _Step:
    """The graph that one step is cut from, its cells, and its facts."""

    model: onnx.ModelProto
    cells: Sequence[CellNode]
    facts: Facts


def _without_loops(whole: _Step, known: Interface, learnt: Sequence[Iteration]) -> _Step:
    """The loops have become one step of theirs, and what was in them is the graph's own."""
    model, facts = whole.model, whole.facts
    stepped = branches.resolve(
        loops.stepped(model, loops.find(model), {it.loop.name: [s is not None for s in it.states] for it in learnt})
    )
    states = [state for it in learnt for state in it.states if state is not None]
    ends = {state.carried.given.name: state.carried.returned.name for state in states}
    found = recurrence.find(stepped)
    of_step = interface.find(stepped, found, {**dict(known.states), **ends})
    rows = zip(whole.cells, facts.initial, facts.paces, strict=True)
    outside = {tuple(cell.node.output): (initial, pace) for cell, initial, pace in rows}
    of_cells = [outside.get(tuple(cell.node.output)) or (_inside(cell), Pace(streams=False)) for cell in found]
    return _Step(
        stepped,
        found,
        replace(
            facts,
            initial=tuple(initial for initial, _ in of_cells),
            paces=tuple(pace for _, pace in of_cells),
            looped=tuple(states),
            holds=_holds(of_step, found),
        ),
    )


def _holds(known: Interface, cells: Sequence[CellNode]) -> dict[str, frozenset[tuple[int, int]]]:
    """Which states of cells the inputs hold that are state."""
    given = {name for name, _ in known.states}
    return {
        name: frozenset((i, k) for i, k in of if i < len(cells)) for name, of in known.holds.items() if name in given
    }


def _inside(node: CellNode) -> tuple[np.ndarray | None, ...]:
    """What the states of a cell in a loop begin with: None if the body says it."""
    zeros = np.zeros(node.cell.hidden_size, node.cell.dtype)
    return tuple(None if initial else zeros for initial in node.initial)


def _refuse_undecided(model: onnx.ModelProto) -> None:
    """A file whose cells lie in branches, and data decide which is taken."""
    found = branches.undecided(model)
    if found:
        node, inputs = found
        said = " and ".join(f"'{name}'" for name in inputs) or "what it computes"
        raise ModelRefused(
            f"{label(node)} hides the recurrent cells: which of its branches is taken depends on {said}, and until "
            "that is known, their states cannot be reached. Say in model.toml beside the file what it always is under "
            f"[fixed], or its size at each step under [block]: {inputs[0] if inputs else 'input'} = ...",
            name_of(node),
        )


def _refuse_loops(model: onnx.ModelProto) -> None:
    """A file whose loops run as often as they will, however many steps there are."""
    for loop in loops.find(model):
        raise ModelRefused(
            f"{label(loop.node)} does not run once for each step of a sequence, so it is no recurrence, and there is "
            "no RNN, LSTM or GRU node either that is always run. Export the model with a dynamic time axis",
            loop.name,
        )


def _refuse_backwards(model: onnx.ModelProto) -> None:
    """A file of backward cells alone."""
    for node in model.graph.node:
        if recurrence.runs_backwards(node):
            raise ModelRefused(probe.backwards(node), name_of(node))


def _check(model: onnx.ModelProto) -> None:
    """What onnx itself has to say against a file, but that it wants outputs to have shapes: onnxruntime does not."""
    copy = copied(model)
    for output in copy.graph.output:
        output.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(copy)
