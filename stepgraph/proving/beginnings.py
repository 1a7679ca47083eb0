"""Gives the graph of one step the rings that its nodes look back at; runs the original to see what they begin with."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from stepgraph.errors import ModelRefused
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label, name_of
from stepgraph.graphs.nodes import reachable, returning
from stepgraph.proving.reference import sequences
from stepgraph.reading.source import Source
from stepgraph.rewriting import pools, ring_writer, rings, runnable
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.rings import Form, Ring
from stepgraph.rings import forms
from stepgraph.rules.value import Finding
from stepgraph.running import session

_MOST_BYTES = 4 * 2**20  # of the rings of one sequence
_STEPS = 2
_BY_AGE = "{} makes something else of sequences that are at different steps, so that they cannot share a batch"


def applied(step: Source, original: Graph) -> tuple[Source, Finding | None]:
    """The same with each node that looks back written for one step, and what keeps the file from being cut to one.

    Raises:
        ModelRefused: the rings would be too large, or begin with what depends on the data.
    """
    read, facts = forms.read(original, step.facts), step.facts
    counting = Graph(pools.counting(original.model)) if read.finding else original
    if counting.model is not original.model and not (other := forms.read(counting, facts)).finding:
        read, original, step = other, counting, replace(step, model=pools.counting(step.model))
    if read.finding and read.finding.kind in ("mixes", "random"):
        if facts.lead:
            raise ModelRefused(f"{read.finding}, so this model cannot answer a stream", read.finding.node)
        return step, read.finding
    ends = [*(p.name for p in facts.outputs), *(c.returned.name for c in facts.through)]
    nodes = reachable(step.model.graph.node, ends)
    needed = {name: read.forms[name] for node in nodes for name in node.output if name in read.forms}
    if not needed and not facts.lead:
        return step, read.finding
    found, young = rings.found(nodes, needed), rings.young(nodes, needed)
    counted = rings.counted(nodes, needed)
    _check_size(found)
    held = _held(original, facts, found, (*young, *counted))
    types = {name: held[name].dtype for name in (*young, *counted)}
    model = ring_writer.stepped(step.model, needed, found, types, facts.lead)
    alone = facts.alone or next((_BY_AGE.format(label(node)) for node in nodes if _by_age(node, needed)), None)
    facts = replace(facts, rings=rings.states(found, held, young, counted, facts.lead), alone=alone)
    return replace(step, model=model, facts=facts), read.finding


def _by_age(node: onnx.NodeProto, needed: Mapping[str, Form]) -> bool:
    """Whether what a node makes has no rows of a batch, and is not the same for sequences of unlike age."""
    form = needed.get(rings.first_of(node))
    return form is not None and (form.count is not None or any(span.there is not None for span in form.spans))


def _check_size(found: Mapping[rings.Key, Ring]) -> None:
    needed = rings.all_bytes(found.values())
    if needed > _MOST_BYTES:
        largest = max(found.values(), key=lambda ring: ring.bytes)
        raise ModelRefused(
            f"what the file looks back at takes {needed / 2**20:.1f} MiB for each sequence, and at most "
            f"{_MOST_BYTES // 2**20} MiB are kept: {label(largest.node)} alone needs the last "
            f"{largest.span.back} of '{largest.tensor}', {largest.bytes / 2**20:.1f} MiB",
            name_of(largest.node),
        )


def _held(
    original: Graph, facts: Facts, found: Mapping[rings.Key, Ring], young: Iterable[str]
) -> dict[str, np.ndarray]:
    """Tensors that are looked back at, or of which the first steps have fewer elements, in a run of one sequence."""
    names = list(dict.fromkeys((*(ring.tensor for ring in found.values()), *young)))
    if not names:
        return {}
    run = session.create(returning(runnable.runnable(original.model), names))
    draws = [_values(run, names, facts, seed) for seed in (0, 1)]
    for ring in found.values():
        if ring.span.input == rings.OWN and draws[0][ring.tensor].dtype.kind != "f":
            raise ModelRefused(
                f"{label(ring.node)} sums up whole numbers over all steps, and a state holds them exactly up to 2**24 "
                "only. Let it sum up numbers with a point, or export the file for one step at a time with the sum as "
                "an input and an output",
                name_of(ring.node),
            )
        first, second = (ring.start(draw[ring.tensor]) for draw in draws)
        if not np.array_equal(first, second):
            raise ModelRefused(
                f"{label(ring.node)} looks back at '{ring.tensor}', and what stands there before the first step "
                "depends on the data. Let the file pad with a constant",
                name_of(ring.node),
            )
    return draws[0]


def _values(run: session.Session, names: list[str], facts: Facts, seed: int) -> dict[str, np.ndarray]:
    data = sequences(facts, _STEPS, 1, seed)
    feeds = facts.feeds(data, 1, facts.lead + _STEPS)
    computed = [name for name in names if name not in feeds]
    values = session.run(run, computed, feeds) if computed else []
    return {name: feeds[name] for name in names if name in feeds} | dict(zip(computed, values, strict=True))
