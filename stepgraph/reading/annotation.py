"""Cells that a file writes with plain operators, so that their gates can be shown: known by equations, or named by it.

The metadata property `tidegate.cells` is JSON, a list of cells: [{"kind": KIND, "states": {"hidden": "h.1"},
"gates": {"update": "/Sigmoid_output_0", ...}}]. A gate is the name of a tensor; a state the name of the tensor that a
loop carries, as its body calls it, or of an input that is state. "name" and "input_size" may be given.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from stepgraph.cells import activations
from stepgraph.cells.cell import Cell, Kind
from stepgraph.cells.kinds import KINDS
from stepgraph.errors import ModelRefused
from stepgraph.graphs.equations import Equations
from stepgraph.reading.source import Source
from stepgraph.rewriting.layout import NamedCell
from stepgraph.rewriting.ports import Carried, Facts, Pace

KEY = "tidegate.cells"
_INLINED = (
    r"(?:taken\d+/|tidegate\.loops/body\.\d+/)*"  # what `branches` and `loops` put before the names in a subgraph
)


class Misnamed(ModelRefused):
    """What the property says is wrong, and no model.toml beside the file would mend it."""


@dataclass(frozen=True)
class _Entry:
    """What the file says of one cell."""

    kind: Kind
    name: str
    input_size: int | None
    states: Mapping[str, str]
    gates: Mapping[str, str]


def applied(step: Source) -> Source:
    """The same with the cells that the file names as layers after the others."""
    text = next((entry.value for entry in step.model.metadata_props if entry.key == KEY), None)
    return _named(step, [] if text is None else [_cell(entry, step) for entry in _entries(text)])


def recognised(step: Source) -> Source:
    """The same with the cells that are known by their equations, if the file names none."""
    if any(entry.key == KEY for entry in step.model.metadata_props):
        return step
    facts, graph = step.facts, Equations(step.model)
    loops = {state.carried.given.name: state.loop for state in facts.looped}
    carried = {each.given.name: each for each in (*facts.carried, *(state.carried for state in facts.looped))}
    free = {name: each.returned.name for name, each in carried.items() if not facts.holds.get(name)}
    named = list[NamedCell]()
    for kind in KINDS.values() if free else ():
        for found in kind.known(graph, free) if kind.known else ():
            first = found.states[kind.states[0]]
            states = {name: carried[given] for name, given in found.states.items()}
            named.append(_made(kind, loops.get(first, f"state '{first}'"), None, found.gates, states))
    return _named(step, named)


def _named(step: Source, named: Sequence[NamedCell]) -> Source:
    if not named:
        return step
    holds = {given: set(of) for given, of in step.facts.holds.items()}
    for layer, cell in enumerate(named, len(step.cells)):
        for k, state in enumerate(cell.states.values()):
            holds.setdefault(state.given.name, set()).add((layer, k))
    facts = replace(
        step.facts,
        paces=(*step.facts.paces, *(Pace(streams=False) for _ in named)),
        initial=(*step.facts.initial, *((None,) * len(cell.states) for cell in named)),
        holds={given: frozenset(of) for given, of in holds.items()},
    )
    return replace(step, facts=facts, named=named)


def refusal(named: Sequence[NamedCell]) -> Misnamed:
    cells = " and ".join(f"'{each.cell.node}' ({each.cell.kind})" for each in named)
    return Misnamed(
        f"the metadata property {KEY} names gates and states of {cells}, and by the equations of such a cell they do "
        "not give what the file gives. Name the tensors that are its gates, after their activation, or leave it out"
    )


def _entries(text: str) -> Iterator[_Entry]:
    try:
        given = json.loads(text)
        for i, entry in enumerate(given):
            kind = KINDS.get(entry["kind"])
            if kind is None:
                raise _unreadable(f"it names a {entry['kind']!r:.60}; known are {', '.join(KINDS)}")
            states = _names(entry, "states", kind.states, kind.optional)
            gates = _names(entry, "gates", kind.gates)
            size = entry.get("input_size")
            yield _Entry(kind, str(entry.get("name", f"cell {i}")), size and int(size), states, gates)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(f"{type(error).__name__}: {error!s:.100}") from error


def _names(entry: Mapping[str, Any], part: str, wanted: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:
    given = entry.get(part, {})
    if given.keys() - set(optional) != set(wanted):
        raise _unreadable(
            f"it gives the {part} {', '.join(given) or '(none)'} of a {entry['kind']}, which has "
            f"{', '.join(wanted) or 'none'}"
        )
    return {name: str(given[name]) for name in (*wanted, *optional) if name in given}


def _unreadable(why: str) -> Misnamed:
    return Misnamed(f"the metadata property {KEY} cannot be read: {why}")


def _cell(entry: _Entry, step: Source) -> NamedCell:
    states = {name: _state(tensor, step.facts) for name, tensor in entry.states.items()}
    gates = {name: _tensor(tensor, step.model) for name, tensor in entry.gates.items()}
    return _made(entry.kind, entry.name, entry.input_size, gates, states)


def _made(
    kind: Kind, name: str, inputs: int | None, gates: Mapping[str, str], states: Mapping[str, Carried]
) -> NamedCell:
    first = next(iter(states.values())).given
    functions = activations.read(kind.activations, (), ())
    cell = Cell(kind.name, name, inputs, math.prod(first.row), first.dtype, tuple(states), kind.gates, functions)
    return NamedCell(cell, gates, states)


def _state(tensor: str, facts: Facts) -> Carried:
    carried = {state.given.name: state for state in facts.carried}
    carried |= {state.tensor: state.carried for state in facts.looped}
    if tensor not in carried:
        raise ModelRefused(  # a model.toml may name it
            f"the metadata property {KEY} says that '{tensor}' is a state; carried from step to step are "
            f"{', '.join(carried) or 'none'}"
        )
    return carried[tensor]


def _tensor(name: str, model: onnx.ModelProto) -> str:
    pattern = re.compile(_INLINED + re.escape(name))
    made = (output for node in model.graph.node for output in node.output)
    found = next(filter(pattern.fullmatch, made), None)
    if found is None:
        raise Misnamed(f"the metadata property {KEY} says that '{name}' is a gate, and no node makes it")
    return found
