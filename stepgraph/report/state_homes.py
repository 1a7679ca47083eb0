"""Where each state of a loaded model is kept, and why a trace does not show it."""

from collections.abc import Iterator

import numpy as np

from stepgraph.file import sidecar
from stepgraph.model import LoadedModel
from stepgraph.report.report import StateFact
from stepgraph.rewriting.ports import LoopState, Port
from stepgraph.rewriting.stepgraph import AGE, STEP


def states(loaded: LoadedModel) -> tuple[StateFact, ...]:
    """The states of the cells, then those that the interface, a loop or a ring carries and that are no cell's."""
    return (*_of_cells(loaded), *_of_others(loaded))


def _of_cells(loaded: LoadedModel) -> Iterator[StateFact]:
    facts, graph = loaded.facts, loaded.graph
    kept = {(columns.layer, columns.name): columns for columns in graph.state}
    carried = {of: name for name, all_of in facts.holds.items() for of in all_of}
    returned = {c.given.name: c.returned.name for c in facts.carried}
    starts = {c.given.name: _said(c.given) for c in facts.carried}
    looped = {state.carried.given.name: state for state in facts.looped}
    for i, cell in enumerate(graph.layers):
        for k, name in enumerate(cell.states):
            rows, given = facts.paces[i].rows, carried.get((i, k))
            row = cell.shape(name) if rows == 1 else (rows, *cell.shape(name))
            columns = kept.get((i, name))
            if columns is not None:
                computed = k in facts.paces[i].computed
                start = "what the first step computes" if computed else _start(graph.initial[columns.span].any())
                yield StateFact(i, name, row, "server", None, None, start)
            elif given in returned:
                yield StateFact(i, name, row, "interface", given, returned[given], starts[given])
            elif given in looped:
                yield StateFact(
                    i, name, row, "loop", None, None, _start(looped[given].start.any()), node=looped[given].loop
                )
            else:
                yield StateFact(i, name, row, "reset", None, None, _reset_to(facts.initial[i][k]))


def _of_others(loaded: LoadedModel) -> Iterator[StateFact]:
    facts = loaded.facts
    for pair in facts.carried:
        name = pair.given.name
        if not facts.holds.get(name):
            start = _said(pair.given)
            yield StateFact(None, name, pair.given.row, "interface", name, pair.returned.name, start)
    for state in facts.looped:
        given = state.carried.given
        if not facts.holds.get(given.name):
            start = _start(state.start.any())
            yield StateFact(None, given.name, given.row, "loop", None, None, start, state.loop, _unseen(state))
    for ring in facts.rings:
        given, start = ring.carried.given, _start(ring.start.any())
        home, node = ("server", None) if given.name in (AGE, STEP) else ("ring", ring.loop)
        yield StateFact(None, given.name, given.row, home, None, None, start, node)


def _unseen(state: LoopState) -> str:
    return (
        f"{state.loop} carries '{state.tensor}' and computes it with operators of its own, not with RNN, LSTM or GRU: "
        "gates cannot be told apart in it, so a trace does not show it"
    )


def _reset_to(first: np.ndarray | None) -> str:
    return "what the step itself computes" if first is None else _start(first.any())


def _said(port: Port) -> str:
    return f"values of {sidecar.FILE}" if any(port.start) else "zeros"


def _start(values: object) -> str:
    return "values of the file" if values else "zeros"
