"""Steps that have no answer: outputs of a step graph hold no number there, and one says so. Pure onnx."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper

from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.inlining import rename
from stepgraph.graphs.nodes import refill
from stepgraph.rewriting.ports import Facts, Port
from stepgraph.rewriting.stepgraph import AGE, ANSWERED, BEGUN, NEXT_STATE, PREFIX, STATE, TRACE, StepGraph

_PREFIX = f"{PREFIX}lead/"


def aside(graph: onnx.GraphProto, prefix: str, tensors: Iterable[str]) -> dict[str, str]:
    """Gives tensors that a graph computes other names, which are returned, so that others can be written to theirs."""
    names = {name: f"{prefix}of/{name}" for name in tensors}
    for node in graph.node:
        rename(node, names)
        if not set(names.values()).isdisjoint(node.output):
            node.name = f"{prefix}of/{node.name}"
    return names


def silence(g: GraphBuilder, when: str, port: Port, computed: str) -> None:
    """An output that holds no number, NaN or 0, in the sequences [B, 1] in which `when` is true."""
    shape = [1] * len(port.shape(1, 1))
    if port.batch is not None:
        shape[port.batch] = -1
    nothing = g.constant(np.nan if port.dtype.kind == "f" else 0, port.dtype)
    if port.dtype.kind == "b":  # onnxruntime's Where takes numbers only
        g.op_to(port.name, "And", computed, g.op("Not", g.reshape(when, shape)))
    else:
        g.op_to(port.name, "Where", g.reshape(when, shape), nothing, computed)


def say(g: GraphBuilder, graph: onnx.GraphProto, when: str) -> None:
    """An output that says which sequences [B, 1] are answered: not those in which `when` is true."""
    g.reshape(g.op("Not", when), [-1], ANSWERED)
    graph.output.append(helper.make_tensor_value_info(ANSWERED, onnx.TensorProto.BOOL, ["batch"]))


def write_lead(graph: onnx.GraphProto, opset: int, laid: StepGraph, facts: Facts) -> None:
    """Changes the graph of a step of a file that drops rows: the first steps leave the states of cells as they were.

    They have no answer either, unless a window says which steps do.
    """
    if not facts.lead:
        return
    g, age = GraphBuilder(_PREFIX, opset), next(columns for columns in laid.state if columns.name == AGE)
    answers = [] if facts.window and facts.window.last else [p for p in laid.outputs if p.name != ANSWERED]
    names = aside(graph, _PREFIX, (NEXT_STATE, *([TRACE] if laid.trace else []), *(port.name for port in answers)))
    taken = g.op("Gather", STATE, g.constant([age.offset], np.int64), axis=1)
    waits = g.op("Less", taken, g.constant(_of_states(laid, facts)))
    g.op_to(NEXT_STATE, "Where", waits, STATE, names[NEXT_STATE])
    if laid.trace:
        nothing = g.constant(np.nan, laid.dtype)
        g.op_to(TRACE, "Where", g.op("Less", taken, g.constant(_of_traces(laid, facts))), nothing, names[TRACE])
    early = g.op("Less", taken, g.constant(np.full(1, facts.lead, laid.dtype)))
    for port in answers:
        silence(g, early, port, names[port.name])
    if answers:
        say(g, graph, early)
    refill(graph.node, [*graph.node, *g.nodes])
    graph.initializer.extend(g.constants)


def _of_states(laid: StepGraph, facts: Facts) -> np.ndarray:
    """How many steps each column of the state waits, [1, W]: rings and what counts or draws do not."""
    waiting = {each.carried.given.name for each in facts.looped} | {each.given.name for each in facts.carried}
    found = np.zeros((1, len(laid.initial)), laid.dtype)
    for columns in laid.state:
        if columns.layer is not None:
            found[:, columns.span] = facts.paces[columns.layer].lead
        elif columns.name in waiting or columns.name == BEGUN:
            found[:, columns.span] = facts.lead
    return found


def _of_traces(laid: StepGraph, facts: Facts) -> np.ndarray:
    found = np.zeros((1, sum(columns.size for columns in laid.trace)), laid.dtype)
    for columns in laid.trace:
        of_cell = columns.layer is not None and columns.layer < len(facts.paces)
        found[:, columns.span] = facts.paces[columns.layer or 0].lead if of_cell else facts.lead
    return found
