"""Puts the nodes of a graph in an order in which each comes after those that make its inputs."""

from graphlib import CycleError, TopologicalSorter

import onnx

from stepgraph.graphs.nodes import captured, copied, refill, subgraphs


def order(graph: onnx.GraphProto) -> None:
    """Sorts the nodes of a graph and of those within it, in place; a graph that runs in a circle stays as it is."""
    for node in graph.node:
        for inner in subgraphs(node):
            order(inner)
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = [{makers[n] for n in (*node.input, *captured(node)) if n in makers} for node in graph.node]
    if all(max(before, default=-1) < i for i, before in enumerate(needs)):
        return
    try:
        places = list(TopologicalSorter(dict(enumerate(needs))).static_order())
    except CycleError:
        return
    refill(graph.node, [copied(graph.node[i]) for i in places])
