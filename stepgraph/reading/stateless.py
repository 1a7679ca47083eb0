"""Refusals of files that carry no state from step to step, with advice. Pure onnx."""

import onnx

from stepgraph.cells import operators
from stepgraph.errors import ModelRefused
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import attributes
from stepgraph.reading import branches, loops

NO_STATE = (
    "the graph holds no RNN, LSTM or GRU node that is always run, no Loop or Scan that runs once for each step, and "
    "nothing that looks back at a bounded number of steps, so there is no state to carry from step to step. If an "
    "input is state that an output returns, say so in model.toml beside the file, under [state]; if a node `If` hides "
    "the cells, fix the input that decides it under [fixed], or its size at each step under [block]"
)

_WITHIN = (
    "If it runs within one step, over frequencies, say, nothing in the file is carried from step to step: say in "
    'model.toml beside the file which input is state, under [state]: INPUT = "OUTPUT"'
)

_MOVING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def refusal(model: onnx.ModelProto) -> ModelRefused:
    """Of a file without forward cells that are always run, and without loops."""
    return _of_backwards(model) or _of_undecided(model) or ModelRefused(NO_STATE)


def refusal_of_loops(model: onnx.ModelProto) -> ModelRefused:
    """Of a file without cells, none of whose loops runs once for each step."""
    for loop in loops.find(model):
        if loop.stops():
            return ModelRefused(loops.STOPPING.format(label(loop.node)), loop.name)
        return ModelRefused(
            f"{label(loop.node)} does not run once for each step of a sequence, so it is no recurrence, and there is "
            "no RNN, LSTM or GRU node either that is always run. Export the model with a dynamic time axis",
            loop.name,
        )
    return ModelRefused(NO_STATE)


def _of_backwards(model: onnx.ModelProto) -> ModelRefused | None:
    for node in filter(operators.runs_backwards, reversed(model.graph.node)):
        before = _reversal(Graph(model), node)
        if before and attributes(node)["direction"] == b"reverse":
            return ModelRefused(
                f"{label(node)} runs reverse over steps that {label(before)} has reversed: the two cancel each other, "
                "and no stream can do either. Export it as a forward cell, without the reversals around it",
                name_of(node),
            )
        return ModelRefused(f"{operators.backwards(node)}. {_WITHIN}", name_of(node))
    return None


def _reversal(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """What reverses steps just before a cell, with nothing between them but nodes that move whole axes."""
    maker = graph.makers.get(node.input[0])
    while maker is not None and maker.op_type in _MOVING:
        maker = graph.makers.get(maker.input[0])
    if maker is None or maker.op_type not in ("ReverseSequence", "Slice"):
        return None
    steps = graph.value(maker.input[4]) if len(maker.input) > 4 and maker.input[4] else None
    return maker if maker.op_type == "ReverseSequence" or (steps is not None and steps.min() < 0) else None


def _of_undecided(model: onnx.ModelProto) -> ModelRefused | None:
    found = branches.undecided(model)
    if not found:
        return None
    node, inputs = found
    said = " and ".join(f"'{name}'" for name in inputs) or "what it computes"
    return ModelRefused(
        f"{label(node)} hides the recurrent cells: which of its branches is taken depends on {said}, and until "
        "that is known, their states cannot be reached. Say in model.toml beside the file what it always is under "
        f"[fixed], or its size at each step under [block]: {inputs[0] if inputs else 'INPUT'} = VALUE",
        name_of(node),
    )
