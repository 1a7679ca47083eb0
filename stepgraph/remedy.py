"""What a model.toml beside a refused file could say so that the file is served, found by trying.

Knows no report: the refusal carries the lines. Whether they are true of the model, only its owner knows.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import onnx

from stepgraph.cells import operators
from stepgraph.cells.operators import is_recurrent
from stepgraph.errors import ModelRefused, StepgraphError
from stepgraph.file import sidecar
from stepgraph.file.sidecar import Sidecar
from stepgraph.graphs import weights
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import stem
from stepgraph.graphs.nodes import with_inner
from stepgraph.proving.one_step import Interpretation
from stepgraph.reading import axes, branches, guess, interface, randomness

_SECONDS = 8.0  # for all tries together
_SIZES = (10, 512, 160, 480)  # of an axis that is neither batch nor time: of a context, or samples of sound
_RATES = (2, 3, 4, 5, 8, 10)  # rows of one input to one of another
_MOST_SIZES, _MOST_VALUES = 12, 4
_COMPARING = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_HINT = "so many were tried: say how many your clients send at each step"

Attempt = Callable[[Sidecar], Interpretation]
Infos = Mapping[str, onnx.ValueInfoProto]


def remedied(model: onnx.ModelProto, said: Sidecar, refused: StepgraphError, attempt: Attempt) -> StepgraphError:
    """The refusal with what would get the file served; the refusal itself if no such thing is found in time."""
    deadline = time.monotonic() + _SECONDS
    with suppress(Exception):  # what a try meets is not what the file is refused for
        for candidate, why in _candidates(model, said):
            if time.monotonic() > deadline:
                break
            if _serves(attempt, candidate):
                return _told(refused, said, candidate, why)
    return refused


def _serves(attempt: Attempt, candidate: Sidecar) -> bool:
    with suppress(Exception):
        facts = attempt(candidate).facts
        return bool(facts.carried) or not facts.one_step  # else each step would begin anew
    return False


def _told(refused: StepgraphError, said: Sidecar, found: Sidecar, why: str) -> ModelRefused:
    new = _new(said, found)
    node = refused.node if isinstance(refused, ModelRefused) else None
    if why and replace(found, block=said.block) == said:
        sizes = ", ".join(f"{sidecar.key(k)} = {v}" for k, v in new.block.items())
        said_so = (
            f"the file is served once its size is said in {sidecar.FILE} beside it, under [block]: {sizes} ({_HINT})"
        )
        return ModelRefused(f"{why}, and {said_so}", remedy=sidecar.lines(new))
    lines = sidecar.lines(new)
    hint = f" ({_HINT})" if max(new.block.values(), default=1) > 1 else ""
    once = f"{str(refused).rstrip('.')}. It is served once {sidecar.FILE} beside it says, if that is true of it: "
    return ModelRefused(f"{once}{' '.join(lines)}{hint}", node, lines)


def _new(said: Sidecar, found: Sidecar) -> Sidecar:
    """What is found and not said."""

    def fresh(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in new.items() if name not in old}

    return Sidecar(
        fresh(found.state, said.state),
        fresh(found.fixed, said.fixed),
        fresh(found.block, said.block),
        tuple(name for name in found.left_out if name not in said.left_out),
    )


def _candidates(model: onnx.ModelProto, said: Sidecar) -> Iterator[tuple[Sidecar, str]]:
    """What to try, and what is the matter with the axes whose sizes it says, if that is known."""
    for left_out, state, fixed in product(_left_out(model, said), _states(model, said), _fixed(model, said)):
        base = replace(said, left_out=left_out, state=state, fixed=fixed)
        if base != said:
            yield base, ""
        if not said.block:
            decided = Graph(branches.resolve(sidecar.fix(model, fixed)))
            yield from ((replace(base, block=block), why) for block, why in _blocks(decided, base))


def _left_out(model: onnx.ModelProto, said: Sidecar) -> Iterator[tuple[str, ...]]:
    """What is said, and the outputs that are made of random numbers, if there are others."""
    graph = Graph(model)
    drawn = {name for node in model.graph.node if node.op_type in randomness.OPERATORS for name in node.output}
    names = [info.name for info in model.graph.output if info.name not in said.left_out]
    random = [name for name in names if graph.made_of(name) & drawn]
    alone = 0 < len(random) < len(names) and not said.random
    yield (*said.left_out, *random) if alone else said.left_out


def _states(model: onnx.ModelProto, said: Sidecar) -> Iterator[Mapping[str, str]]:
    """What is said; for a file without cells, inputs and outputs of one name."""
    inputs, outputs = Graph(model).inputs, {info.name: info for info in model.graph.output}
    found = dict(pairs(inputs, outputs))
    cells = any(is_recurrent(node) for node in with_inner(model.graph.node))
    yield found if found and not said.state and not cells and len(found) < len(inputs) else said.state


def pairs(inputs: Infos, outputs: Infos) -> list[tuple[str, str]]:
    """Inputs and outputs that are named alike but for words such as "in" and "next"."""
    return [(i, o) for i in inputs for o in outputs if stem(i) == stem(o) != ""]


def _fixed(model: onnx.ModelProto, said: Sidecar) -> Iterator[Mapping[str, Any]]:
    """What is said, and for the first single number that decides an `If` the values that it is compared with."""
    names = [name for name, info in Graph(model).inputs.items() if is_number(info) and name not in said.fixed]
    found = {name: values for name in names if (values := _compared(model, name))}
    for name, values in list(found.items())[:1]:
        yield from ({**said.fixed, name: value} for value in values[:_MOST_VALUES])
    yield said.fixed


def is_number(info: onnx.ValueInfoProto) -> bool:
    """Whether an input is a single number."""
    return all(dim.dim_value == 1 for dim in info.type.tensor_type.shape.dim)


def _compared(model: onnx.ModelProto, name: str) -> list[int]:
    """The whole numbers that an input is compared with, at any depth, the largest first."""
    graph, inner = Graph(model), list(with_inner(model.graph.node))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in inner if node.op_type == "Constant"}
    nodes = [node for node in inner if node.op_type in _COMPARING and name in graph.made_of(*node.input)]
    values = [weights.array(constants[other]) for node in nodes for other in node.input if other in constants]
    return sorted({int(v.item()) for v in values if v.size == 1 and v.dtype.kind in "iu"}, reverse=True)


def _blocks(graph: Graph, said: Sidecar) -> Iterator[tuple[dict[str, int], str]]:
    """Sizes of the last free axes of inputs, and what is the matter with these, if that is known."""
    cells = operators.find(graph)
    known = interface.find(graph, cells, said.state)
    strange = axes.of_no_step(graph, cells, known)
    together = [list(strange)] if len(strange) > 1 else []
    for labels, size in product([*([label] for label in strange), *together], _SIZES):
        names = [name for label in labels for name in strange[label]]
        which = f"the axis {' and '.join(map(repr, labels))} of {', '.join(map(repr, dict.fromkeys(names)))}"
        yield dict.fromkeys(names, size), f"{which} is neither batch nor time"
    if strange:
        return
    data = {name: guess.dims_of(info) for name, info in graph.inputs.items() if name not in known.inputs}
    for name, dims in data.items():
        if isinstance(dims[-1] if dims else 1, str):
            yield from (({name: size}, "") for size in dict.fromkeys((*_SIZES[1:], *_numbers(graph))))
        elif any(isinstance(dim, str) for dim in dims) and not cells:
            yield {name: 1}, ""
        elif any({*guess.free({other: data[other]})} - {*dims} for other in data):  # of another rate
            yield from (
                ({name: size}, f"a step has several rows of '{name}', and of other inputs one") for size in _RATES
            )


def _numbers(graph: Graph) -> list[int]:
    """Sizes that the graph's reshapes and strides name, the largest first."""
    found = set[int]()
    for node in graph.nodes:
        value = graph.value(node.input[1]) if node.op_type == "Reshape" else None
        strides = [list(a.ints) for a in node.attribute if a.name == "strides"]
        found.update(*strides, [] if value is None else np.ravel(value).tolist())
    return sorted((n for n in found if 1 < n < 65_536), reverse=True)[:_MOST_SIZES]
