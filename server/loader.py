"""Turns a file into a model that is rewritten, proved and warmed up. Slow: to be called away from the event loop."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import inliner

from server import (
    axes,
    branches,
    interface,
    iterations,
    loops,
    names,
    oracle,
    probe,
    proof,
    recurrence,
    sidecar,
    stepgraph,
)
from server.engine import Engine
from server.errors import AxesUnknown, ModelRefused, TidegateError
from server.interface import Interface
from server.iterations import Iteration
from server.model import LoadedModel
from server.probe import Facts
from server.recurrence import CellNode

_NO_STATE = (
    "the graph holds no RNN, LSTM or GRU node that is always run, and no Loop or Scan that runs once for each step, so "
    "there is no state to carry from step to step. If "
    "an input is state that an output returns, say so in model.toml beside the file, under [state]; if a node `If` "
    "hides the cells, fix the input that decides it under [fixed]"
)


def load(path: Path, max_batch: int, patience: float) -> LoadedModel:
    """Loads a model.onnx and warms it up for batches of up to `max_batch`, or that take `patience` seconds.

    Raises:
        ModelRefused: the file cannot be served; the sentence says why, and where in the graph.
    """
    try:
        return _load(path, max_batch, patience)
    except ModelRefused:
        raise
    except TidegateError as error:
        raise ModelRefused(f"the model does not run: {error}") from error
    except Exception as error:  # whatever a damaged file makes the libraries do, it is the file's fault
        raise ModelRefused(f"the file cannot be read as an ONNX model: {type(error).__name__}: {error}") from error


def _load(path: Path, max_batch: int, patience: float) -> LoadedModel:
    content = path.read_bytes()
    model = onnx.load(path)
    _refuse_unreadable(model)
    _check(model)
    said = sidecar.read(path)
    model = branches.resolve(sidecar.fix(inliner.inline_local_functions(model), said.fixed))
    cells = recurrence.find(model)
    if not cells and not said.state and not loops.find(model):
        raise ModelRefused(_NO_STATE)
    found = _understand(model, cells, said.state)
    engine = Engine(stepgraph.rewrite(found.model, found.cells, found.facts))
    proved = proof.prove(found.original, found.facts, engine)
    engine.warm_up(max_batch, patience)
    engine.keep_bits()
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return LoadedModel(engine.graph, found.facts, engine, proved, hashlib.sha256(content).hexdigest(), metadata)


@dataclass(frozen=True, eq=False)
class _Understood:
    """A model, what its step graph is to be measured by, its cells, and its facts."""

    model: onnx.ModelProto
    original: onnx.ModelProto
    cells: Sequence[CellNode]
    facts: Facts


def _understand(model: onnx.ModelProto, cells: Sequence[CellNode], declared: Mapping[str, str]) -> _Understood:
    """Learns all there is to know; axes that the file fixes are freed if it cannot be understood otherwise."""
    known = interface.find(model, [*cells, *loops.find(model)], declared)
    try:
        return _probed(model, cells, known)
    except AxesUnknown as unknown:
        for candidate in axes.freed(model, known):
            with suppress(TidegateError):
                found = _probed(candidate, recurrence.find(candidate), known)
                return replace(found, facts=replace(found.facts, freed=True))
        raise ModelRefused(str(unknown), node=unknown.node) from unknown


def _probed(model: onnx.ModelProto, cells: Sequence[CellNode], known: Interface) -> _Understood:
    original = oracle.runnable(model)
    copy, counts = loops.counted(original)
    facts = probe.probe(copy, cells, known, counts)
    if not facts.outputs:
        raise ModelRefused("all that the model returns is its state, so there is no answer to give; export an output")
    of_loops = frozenset((i - len(cells), k) for i, k in known.carried if i >= len(cells))
    learnt = iterations.learn(original, facts, of_loops)
    if not learnt:
        if not cells and not facts.carried:
            raise ModelRefused(_NO_STATE)
        return _Understood(model, original, cells, replace(facts, holds=_holds(known, cells)))
    return _without_loops(model, original, cells, facts, known, learnt)


def _without_loops(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    cells: Sequence[CellNode],
    facts: Facts,
    known: Interface,
    learnt: Sequence[Iteration],
) -> _Understood:
    """The loops have become one step of theirs, and what was in them is the graph's own."""
    stepped = branches.resolve(
        loops.stepped(model, loops.find(model), {it.loop.name: [s is not None for s in it.states] for it in learnt})
    )
    states = [state for it in learnt for state in it.states if state is not None]
    ends = {state.carried.given.name: state.carried.returned.name for state in states}
    found = recurrence.find(stepped)
    of_step = interface.find(stepped, found, {**dict(known.states), **ends})
    outside = {tuple(cell.node.output): rows for cell, rows in zip(cells, facts.initial, strict=True)}
    return _Understood(
        stepped,
        original,
        found,
        replace(
            facts,
            initial=tuple(outside.get(tuple(cell.node.output)) or _inside(cell) for cell in found),
            looped=tuple(states),
            anew=frozenset(i for i, cell in enumerate(found) if tuple(cell.node.output) not in outside),
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


def _check(model: onnx.ModelProto) -> None:
    """What onnx itself has to say against a file, but that it wants outputs to have shapes: onnxruntime does not."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for output in copy.graph.output:
        output.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(copy)


def _refuse_unreadable(model: onnx.ModelProto) -> None:
    name = names.unreadable(model)
    if name is not None:
        raise ModelRefused(
            f"the file holds the name '{name}', which is not UTF-8: names of nodes, tensors and axes must be text. The "
            "file is damaged, or was written in another encoding"
        )
