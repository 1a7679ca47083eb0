"""Compares a step graph that begins anew after each window with the original file, given one window at a time."""

from dataclasses import replace

import numpy as np

from stepgraph.errors import ModelRefused
from stepgraph.file.window import Window
from stepgraph.graphs.graph import Graph
from stepgraph.proving import long_run, sizes
from stepgraph.proving.proof import Proof
from stepgraph.proving.reference import Original, Reference, sequences
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.stepgraph import ANSWERED, COUNT
from stepgraph.running.engine import Engine

_WHOLE = 1000  # steps of a window that are all compared; of a longer one so many, up to its end


def prove(original: Original, facts: Facts, engine: Engine, window: Window, proved: Proof) -> Proof:
    """The proof, with the steps that were compared over the ends of two windows.

    A file that fixes its axis of time to the window's length is run as it was.

    Raises:
        ModelRefused: an answer differs from the file's answer to the steps of its window, or is given too early.
    """
    if window.steps <= facts.lead:
        raise ModelRefused(
            f"a window of {window.steps} steps has no answer: the file drops the first {facts.lead} rows of a sequence"
        )
    batch, length, asked = 1 if facts.alone else 2, min(window.steps, _WHOLE), long_run.Asked(last=window.last)
    if original.fixed is not None and facts.made_for == length:
        batch, asked = sizes.batch(original.fixed, facts), replace(asked, prefixes=1)
        original = Original(Graph(original.fixed), original.cells)
    reference, state = Reference(original, facts, engine.graph), engine.graph.start(batch)
    (count,) = (columns.span for columns in engine.graph.state if columns.name == COUNT)
    state[:, count] = window.steps - length
    for seed in range(2):
        data = sequences(facts, length - facts.lead, batch, seed)
        result = engine.run(data, state, trace=False)
        first = length - 1 if window.last else facts.lead
        _check_answered(window, result.outputs.get(ANSWERED), first)
        same = max(proved.tolerance, proved.max_error)  # more where rounding grows
        apart = long_run.first_apart(reference, facts, data, result.outputs, same, asked).apart
        if apart is not None:
            raise ModelRefused(f"{long_run.said(apart)} of a window of {window.steps}")
        state = result.state.copy()
        if (state != engine.graph.start(batch)).any():
            raise ModelRefused(f"the state after a window of {window.steps} steps is not that of a new sequence")
        state[:, count] = window.steps - length
    return replace(proved, steps=proved.steps + 2 * length * batch)


def _check_answered(window: Window, answered: np.ndarray | None, first: int) -> None:
    if answered is not None and (answered[:first].any() or not answered[first:].all()):
        raise ModelRefused(f"other steps than those from {first} on of a window of {window.steps} are answered")
