"""Compares a step graph that draws random numbers from its state with the one that is given these numbers."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from stepgraph.errors import ModelRefused
from stepgraph.graphs.nodes import captured, opset, reachable
from stepgraph.proving.difference import errors
from stepgraph.proving.reference import sequences
from stepgraph.rewriting import generator
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.stepgraph import NEXT_STATE, SEED, STATE, StepGraph
from stepgraph.running import session
from stepgraph.running.engine import Engine

_STEPS = 5


def from_state(facts: Facts, given: StepGraph) -> Facts:
    """The facts once the inputs of the step graph that hold random numbers are drawn from the state.

    The same if there are none. Numbers without an axis of time that the state is made of have to be the same at every
    step, as in one run of the file.
    """
    drawn, inputs = (tuple(p for p in facts.inputs if generator.is_noise(p) is noise) for noise in (True, False))
    if not drawn:
        return facts
    shared = any(port.batch is None for port in drawn)
    alone = facts.alone or ("the file draws random numbers once for all rows of a batch" if shared else None)
    makers = reachable(given.model.graph.node, [NEXT_STATE])
    kept = {name for node in makers for name in (*node.input, *captured(node))}
    once = frozenset(port.name for port in drawn if port.time is None and not facts.one_step and port.name in kept)
    return replace(facts, inputs=inputs, drawn=drawn, once=once, alone=alone)


def check(facts: Facts, engine: Engine, given: Engine, same: float) -> None:
    """Whether `engine`, from random seeds, answers as the one whose inputs are `given` what these seeds make.

    Raises:
        ModelRefused: it does not.
    """
    batch = 1 if facts.alone else 2
    data, random = sequences(facts, _STEPS, batch, 0), np.random.default_rng(0)
    state, plain = engine.graph.start(batch), given.graph.start(batch)
    (seed,) = (columns.span for columns in engine.graph.state if columns.name == SEED)
    state[:, seed] = random.integers(0, 2**16, (batch, generator.SEED_SIZE))
    noise = _Noise(engine.graph, facts)
    for step in range(facts.lead + _STEPS):
        one = {name: x[step : step + 1] for name, x in data.items()}
        wanted = given.run({**one, **noise.of(state)}, plain, trace=False)
        got = engine.run(one, state, trace=False)
        for port in facts.outputs if step >= facts.lead else ():
            error = float(errors(wanted.outputs[port.name], got.outputs[port.name], port.unit)[0])
            if not error <= same:
                raise ModelRefused(
                    f"output '{port.name}' differs by {error:.2g} once random numbers are drawn from a seed"
                )
        state, plain = got.state, wanted.state


class _Noise:
    """The numbers that are drawn from a state, by input."""

    def __init__(self, graph: StepGraph, facts: Facts) -> None:
        row = helper.make_tensor_value_info(STATE, helper.np_dtype_to_tensor_dtype(graph.dtype), ["batch", None])
        ends = [onnx.ValueInfoProto(name=port.name) for port in facts.drawn]
        alone = helper.make_graph([], "noise", [row], ends)
        generator.write(alone, opset(graph.model), graph, facts)
        opsets = graph.model.opset_import
        self._session = session.create(
            helper.make_model(alone, opset_imports=opsets, ir_version=graph.model.ir_version)
        )
        self._ports = facts.drawn

    def of(self, state: np.ndarray) -> Mapping[str, np.ndarray]:
        """[1, B, ...row] each."""
        values = session.run(self._session, [port.name for port in self._ports], {STATE: state})
        return {port.name: port.steps(value) for port, value in zip(self._ports, values, strict=True)}
