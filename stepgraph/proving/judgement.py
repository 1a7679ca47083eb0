"""Combines the rules with the runs: a refusal with its node, or what the runs tried and the rules do not prove."""

from collections.abc import Sequence
from dataclasses import replace

import onnx

from stepgraph.cells.operators import CellNode
from stepgraph.errors import ModelRefused, StepFailed
from stepgraph.graphs import folding
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import name_of
from stepgraph.proving import explanation
from stepgraph.reading.guess import dims_of
from stepgraph.reading.interface import Interface
from stepgraph.rewriting.ports import Facts
from stepgraph.rings import forms
from stepgraph.rules.axes import ROWS, TIME, plain
from stepgraph.rules.reader import Reader
from stepgraph.rules.value import COUNTED, NO_RULE, Finding, Value

_COUNT_INSTEAD = "Let what it makes of it be an input with a value for each step, or a state that it counts up"
_BEFORE_OPTIMISED = (
    "If the operator is none of the standard, serve the file as it was before it was optimised for one runtime"
)


def told(refused: ModelRefused, finding: Finding | None) -> ModelRefused:
    """The refusal that the runs gave, with what the rules found."""
    if finding and COUNTED in finding.words:
        return ModelRefused(f"{finding}, and a step of a stream has none. {_COUNT_INSTEAD} ({refused})", finding.node)
    vague = refused.node is None
    if finding and finding.kind == "mixes" and (vague or finding.advice) and str(finding) not in str(refused):
        words = f"{finding}, so this model cannot answer a stream. {finding.advice or explanation.ADVICE} ({refused})"
        return ModelRefused(words, finding.node)
    if finding is None or (finding.kind == "unknown" and not vague) or str(finding) in str(refused):
        return refused
    return ModelRefused(f"{refused}. Read from the graph: {finding}", refused.node or finding.node)


def at_once(graph: Graph, cells: Sequence[CellNode], known: Interface) -> ModelRefused | None:
    """The refusal of a file that takes so many steps, no more and no fewer, and mixes them; None if it is none."""
    shapes = folding.shapes_of(graph)
    counts = [shapes[cell.x][cell.time_axis] or 1 for cell in cells if shapes.get(cell.x)]
    for count in {*counts} - {1}:
        values, given = dict[str, Value](), {n: dims_of(graph.inputs[n]) for n in graph.inputs.keys() - known.inputs}
        if any(dims.count(count) > 1 for dims in given.values()):
            continue  # which of them is time is not told
        for name, dims in given.items():
            axes = [(TIME,) if n == count else (ROWS,) if isinstance(n, str) else plain(n) for n in dims]
            values[name] = Value(tuple(axes), live=True, origin=name)
        found = Reader(graph).values(values)
        findings = [found[info.name].finding for info in graph.model.graph.output]
        finding = next((each for each in findings if each and each.kind == "mixes"), None)
        node = _node(graph, finding) if finding else None
        if node is not None:
            return ModelRefused(
                f"{explanation.mixing(node)}. The file takes {count} steps at once and answers when it has them all "
                f"(read from the graph: {finding})",
                name_of(node),
            )
    return None


def _node(graph: Graph, finding: Finding) -> onnx.NodeProto | None:
    return next((node for node in graph.nodes if name_of(node) == finding.node), None)


def failing(finding: Finding, failed: StepFailed) -> ModelRefused:
    """The refusal of a file of which one step alone does not run, with what the rules found."""
    if finding.kind == "mixes":
        return ModelRefused(f"{finding}, so this model cannot answer a stream ({failed})", finding.node)
    what = _BEFORE_OPTIMISED if finding.words == NO_RULE else explanation.ADVICE
    return ModelRefused(
        f"{finding}, and one step alone does not run, so it cannot be cut into steps. {what} ({failed})", finding.node
    )


def confirmed(finding: Finding | None, graph: Graph, facts: Facts) -> tuple[Facts, str]:
    """After runs without a fault: the facts, and a sentence about what no rule proves; "" if all is proved.

    Where rows of a batch may influence each other, sequences run one by one.

    Raises:
        ModelRefused: a node mixes steps or draws random numbers, though what was tried does not show it.
    """
    if finding is not None and finding.kind == "rows":
        facts = replace(facts, alone=f"rows of a batch may influence each other: {finding}")
        finding = forms.read(graph, facts).finding
    if finding is None:
        return facts, ""
    if finding.kind == "unknown":
        return facts, str(finding)
    node = _node(graph, finding)
    why = explanation.mixing(node) if node else f"this model cannot answer a stream. {explanation.ADVICE}"
    raise ModelRefused(f"{why} (read from the graph: {finding}; what was tried does not show it)", finding.node)
