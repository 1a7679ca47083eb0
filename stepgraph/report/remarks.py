"""Notes on anything unusual about how a model is served."""

from collections.abc import Iterator

from stepgraph.cells.operators import runs_backwards
from stepgraph.file import sidecar
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label, stem
from stepgraph.model import LoadedModel
from stepgraph.proving.proof import Proof
from stepgraph.reading import interface
from stepgraph.rewriting.ports import Facts
from stepgraph.rewriting.stepgraph import ANSWERED


def remarks(loaded: LoadedModel) -> Iterator[str]:
    """Notes on axes, batches, cells and inputs that are served in an unusual way."""
    facts = loaded.facts
    if facts.freed:
        yield f"the file fixes {facts.freed}; it is served with any size of them"
    if facts.left_out:
        yield f"not sent to clients, as they belong to no step or are left out: {', '.join(facts.left_out)}"
    yield from facts.untold
    yield from _of_proof(loaded.proof)
    if loaded.engine.alone:
        yield f"sequences run one by one, not in batches: {loaded.engine.alone}"
    yield from _of_windows(facts)
    if facts.drawn:
        yield (
            "it draws random numbers: equal sequences get different answers. Their seed is part of a sequence's state, "
            "so one that is resumed or rewound draws the same ones, and so do two that begin with the same seed"
        )
    yield from _of_forgotten(loaded)
    yield from _of_cells(loaded)
    for node in filter(runs_backwards, loaded.graph.model.graph.node):
        yield f"{label(node)} runs backwards or both ways within each step, then begins anew: no trace shows it"
    for port in (port for port in facts.inputs if port.block):
        yield f"{port.block} rows of input '{port.name}' are one step, as the file answers once for so many"
    for port in facts.starts:
        yield (
            f"input '{port.name}' starts cells and no output returns it: clients do not send it, it begins as "
            f"{f'{sidecar.FILE} says' if port.start else 'zeros'}. "
            f"If an output is what it becomes, say so in {sidecar.FILE} beside the file, under [state]"
        )
    for port in facts.lengths:
        yield f"input '{port.name}' says how long sequences are: clients do not send it"


def _of_proof(proof: Proof) -> Iterator[str]:
    if proof.objection:
        yield proof.objection
    if proof.by_rounding:
        yield proof.by_rounding
    if proof.narrowed:
        yield proof.narrowed.said


def _of_windows(facts: Facts) -> Iterator[str]:
    """The steps without an answer, the window that model.toml says, or that the file's own size suggests."""
    if facts.lead:
        yield (
            f"the file drops the first rows of a sequence, so its first {facts.lead} steps have no answer: "
            f"'{ANSWERED}' is false there"
        )
    if facts.window:
        steps, answered = facts.window.steps, "each of them is answered"
        if facts.window.last:
            answered = f"only the last of them is answered: '{ANSWERED}' is false at the others"
        yield f"a sequence's state begins anew after every {steps} steps, as {sidecar.FILE} says, and {answered}"
    elif facts.made_for > 1:
        last = ' and answer = "last"' if any(port.time is None for port in facts.outputs) else ""
        yield (
            f"the file takes {facts.made_for} steps at a time, and here a sequence goes on without end. If the network "
            f"was trained on windows of {facts.made_for}, its state has to begin anew after each: say so in "
            f"{sidecar.FILE} beside the file, under [window]: steps = {facts.made_for}{last}"
        )


def _of_forgotten(loaded: LoadedModel) -> Iterator[str]:
    """Inputs of a file of one step that may be what an output was at the step before."""
    facts, how = loaded.facts, f"say so in {sidecar.FILE} beside the file, under [state]"
    if not facts.one_step:
        return
    given = (*facts.starts, *facts.inputs)
    pairs = [(i.name, o.name) for i in given for o in facts.outputs if i.row and (i.row, i.dtype) == (o.row, o.dtype)]
    if not loaded.graph.state:
        name, output = next(iter(pairs), ("INPUT", "OUTPUT"))
        yield (
            "nothing is carried from one step to the next: the file takes one step at a time, and no output was found "
            f'to become an input. If one does, {how}: {name} = "{output}"'
        )
        return
    graph = Graph(loaded.graph.model)
    likely = (p for p in pairs if stem(p[0]) == stem(p[1]) != "" or p[1] in interface.rearranged(graph, p[0]))
    for name, output in likely:
        yield f"input '{name}' is sent by clients. If it is what output '{output}' was a step before, {how}"


def _of_cells(loaded: LoadedModel) -> Iterator[str]:
    """Cells that take several time steps of their own within a step, or have several rows for a sequence."""
    for node in loaded.facts.anew:
        yield f"{node} runs over the last steps anew at each step, as the file has it: no trace shows it"
    for i, (cell, pace) in enumerate(zip(loaded.graph.layers, loaded.facts.paces, strict=True)):
        if pace.computed:
            yield f"layer {i} starts from what the first step of a sequence computes from its inputs"
        if pace.inner > 1 and loaded.graph.gates_of(i) == cell.gates:
            yield f"layer {i} takes {pace.inner} time steps of its own within each step; a trace shows the last of them"
        elif pace.inner > 1:
            yield (
                f"layer {i} takes {pace.inner} time steps of its own within each step, in the file's own operator: a "
                "trace shows its states after the last of them, and not its gates"
            )
        if pace.rows > 1:
            yield f"layer {i} has {pace.rows} rows for each sequence; a trace shows them one after the other"
