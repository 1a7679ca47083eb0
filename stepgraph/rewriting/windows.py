"""A step graph whose state begins anew after each window of so many steps. Pure onnx."""

from collections.abc import Collection

import numpy as np
import onnx

from stepgraph.file.window import Window
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.nodes import refill
from stepgraph.rewriting.stepgraph import ANSWERED, COUNT, NEXT_STATE, PREFIX, StepGraph
from stepgraph.rewriting.unanswered import aside, say, silence

_PREFIX = f"{PREFIX}window/"


def counted(g: GraphBuilder, before: str, dtype: np.dtype) -> str:
    """How many steps of its window a sequence has taken after this step, if it goes on; [B, 1]."""
    return g.op("Add", before, g.constant(np.ones(1, dtype)))


def write(graph: onnx.GraphProto, opset: int, laid: StepGraph, window: Window, keep: Collection[str] = ()) -> None:
    """Changes the graph of a step: after the last step of a window the state is that of a new sequence.

    The columns of the state in `keep` go on all the same.
    """
    g, count = GraphBuilder(_PREFIX, opset), next(columns for columns in laid.state if columns.name == COUNT)
    answers = [port for port in laid.outputs if window.last and port.name != ANSWERED]
    names = aside(graph, _PREFIX, (NEXT_STATE, *(port.name for port in answers)))
    state = names[NEXT_STATE]
    taken = g.op("Gather", state, g.constant([count.offset], np.int64), axis=1)
    going = g.op("Less", taken, g.constant(np.full(1, window.steps, laid.dtype)))
    kept = np.zeros((1, len(laid.initial)), bool)
    for columns in (each for each in laid.state if each.name in keep):
        kept[:, columns.span] = True
    stays = g.op("Or", going, g.constant(kept)) if kept.any() else going
    g.op_to(NEXT_STATE, "Where", stays, state, g.constant(laid.initial[np.newaxis]))
    for port in answers:
        silence(g, going, port, names[port.name])
    if window.last:
        say(g, graph, going)
    refill(graph.node, [*graph.node, *g.nodes])
    graph.initializer.extend(g.constants)
