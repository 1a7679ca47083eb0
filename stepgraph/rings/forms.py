"""How a node that looks back over steps is written for one step: what it needs of the steps before becomes state.

A tensor with an axis of time is cut to the elements that come with a step: those whose positions are the step's. So
what moves elements along time, and nothing else, is left out, and a node needs earlier ones where its inputs stand
apart, or its window begins before the step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from stepgraph.graphs.graph import Graph
from stepgraph.graphs.sliding import SLIDING
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.rings import Form
from stepgraph.rings import counts, moves, sums, windows
from stepgraph.rings.elementwise import beside
from stepgraph.rules import reader
from stepgraph.rules.reader import Cut, Reader
from stepgraph.rules.table import Call
from stepgraph.rules.value import COUNTED, Finding, Value


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read of a graph: `finding` as `reader.read` has it, once the nodes that have `forms` are cut to a step.

    The forms are by the first output of each node.
    """

    finding: Finding | None
    forms: Mapping[str, Form]


def read(graph: Graph, facts: Facts) -> Reading:
    """Where something is made of the number of the step and nothing else is in the way, that is counted as a state."""
    found = _read(graph, facts, counting=False)
    return _read(graph, facts, counting=True) if found.finding and COUNTED in found.finding.words else found


def values(graph: Graph, facts: Facts) -> dict[str, Value]:
    """What is known of every tensor once the nodes that have forms are cut to a step."""
    return Reader(graph, cut=_cut({}, counting=True)).values(reader.begin(facts))


def _read(graph: Graph, facts: Facts, counting: bool) -> Reading:
    forms: dict[str, Form] = {}
    return Reading(reader.read(graph, facts, _cut(forms, counting)), forms)


def _cut(forms: dict[str, Form], counting: bool) -> Cut:
    """Says what a node makes of its own step, and notes the forms of those that have one."""

    def cut(call: Call, results: Sequence[Value]) -> Sequence[Value]:
        counted = counts.form(call, results) if counting else None
        made = counted or form(call, results)
        if made is None:
            return results
        forms[next(filter(None, call.node.output))] = made
        if counted:
            return [replace(results[0], live=True, varies="")]
        same = any(span.held for span in made.spans)  # at every step
        return [
            replace(value.settled(), back=0, ahead=0, last=value.last and not same, first=same) for value in results
        ]

    return cut


def form(call: Call, results: Sequence[Value]) -> Form | None:
    """How a node is written; None if it does within a step what it does in the file, or cannot be cut to one.

    `results` as its rule has them, before elements are counted from the first step on.
    """
    if any(value.far for value in call.all):
        return None  # what goes into it cannot be cut to one step
    if call.node.op_type in sums.JOINING:
        return sums.upon_the_last(call, results)
    if any(value.back == inf for value in results):
        return moves.first(call)  # what else comes out cannot be
    made = _FORMS.get(call.node.op_type, beside)(call, results)
    if made is None or any(span.last >= span.own for span in made.spans):
        return None
    return made


_FORMS: dict[str, Callable[[Call, Sequence[Value]], Form | None]] = {
    **dict.fromkeys(SLIDING, windows.window),
    "ConvTranspose": windows.spread,
    "STFT": windows.spectra,
    "Pad": moves.padded,
    "Slice": moves.cut,
    "Gather": moves.gathered,
    "Concat": moves.joined,
}
