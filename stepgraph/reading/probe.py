"""Learns from running a model what its file does not say: which axes are batch and time, and the initial states.

Runs the original with onnxruntime at a few sizes and looks at the shapes. Changes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import onnx

from stepgraph.cells.operators import CellNode, backwards, runs_backwards, time_axis
from stepgraph.errors import AxesUnknown, ModelRefused, StepFailed, StepgraphError
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.labels import label, name_of
from stepgraph.reading import starts
from stepgraph.reading.growth import SIZES, begun, carried, free_beside, growth, output_port, pace, stopped
from stepgraph.reading.guess import Dims, Guess, free, guesses, hops, strides
from stepgraph.reading.interface import Interface
from stepgraph.reading.trial import Trial, Values
from stepgraph.rewriting.ports import Carried, Facts, Pace, Port

_BLOCKS = (2, 3, 4, 5, 6, 8, 10, 12, 16)  # rows in a step that are tried where single ones do not do
_LENGTHS = (5040, 46080, 51200, 44100)  # in samples: whatever a block's size, it likely divides one of them


@dataclass(eq=False)
class Probe:
    """Learns the facts of a graph as onnxruntime runs it, whose forward recurrent nodes are `cells`.

    `counts` are the outputs that say how often its loops ran, `within` tensors that the `trial` is to return.
    `blocks` say how much of the time axis of an input is one step, which is found by trying where it is not declared.
    `alone`: a batch of one sequence will do. `fixed`: the file fixes the axes that are free here; then a step is what
    it takes, unless it hides states. `looks_back`: nothing has to run over the steps, which are what nodes look back
    over; `last` takes the last of the guesses first. `lead` tells from what is known of the interface how many steps
    at the beginning have no answer.
    """

    graph: Graph
    cells: Sequence[CellNode]
    interface: Interface
    counts: Sequence[str] = ()
    within: Sequence[str] = ()
    blocks: Mapping[str, int] = field(default_factory=dict)
    alone: bool = False
    fixed: bool = False
    start: Mapping[str, Any] = field(default_factory=dict)  # what states begin with, by the inputs that take them
    looks_back: bool = False
    last: bool = False
    lead: Callable[[Facts], int] | None = None
    # what was seen
    _computed: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set), init=False)  # states, by cell
    _failure: str = field(default="", init=False)  # of the first guess that did not run
    _over_time: onnx.NodeProto | None = field(default=None, init=False)  # a cell that runs backwards over all steps
    _runs_at_all: bool = field(default=False, init=False)
    _ran: Sequence[Sequence[int]] = field(default=(), init=False)  # how often loops did, at each of the sizes

    @cached_property
    def _backwards(self) -> list[onnx.NodeProto]:
        return [node for node in self.graph.nodes if runs_backwards(node)]

    @cached_property
    def trial(self) -> Trial:
        seen = [*(cell.x for cell in self.cells), *(node.input[0] for node in self._backwards), *self.counts]
        starts = [name for cell in self.cells for name in cell.initial if name]
        return Trial(self.graph, self.interface, seen, [*starts, *self.within])

    @cached_property
    def _dims(self) -> dict[str, Dims]:
        return {name: self.trial.dims[name] for name in self.trial.data}

    def _declared(self) -> dict[str, int]:
        """The declared blocks by the names of the input's free axes, one of which will turn out to be time."""
        strange = self.blocks.keys() - self._dims.keys()
        if strange:
            raise ModelRefused(
                f"model.toml says how many samples of '{min(strange)}' are one step, and the model has no such input; "
                f"it has {', '.join(self._dims)}"
            )
        return {d: size for name, size in self.blocks.items() for d in self._dims[name] if isinstance(d, str)}

    def facts(self) -> Facts:
        """The facts.

        Raises:
            AxesUnknown: batch and time cannot be found among the free axes.
            ModelRefused: the model does not run, or its outputs and states are not those of a stream.
        """
        guess, paces, runs = self._learn()
        known, facts = self.interface, replace(self._given(guess), paces=paces)
        lenient = (0, 0) in map(growth, self._ran)  # such loops are refused elsewhere, in words of their own
        outputs = {
            name: output_port(name, [run[name] for run in runs], bool(guess.batch), lenient, guess.lead)
            for name in self.trial.outputs
        }
        answers = tuple(port for name, port in outputs.items() if name not in known.returned)
        return replace(
            facts,
            outputs=answers or tuple(outputs.values()),  # a cell and nothing else: its state is its answer
            carried=tuple(
                carried(each.given, outputs[returned])
                for each, (_, returned) in zip(facts.carried, known.states, strict=True)
            ),
            initial=tuple(self._initial_states(i, cell, facts) for i, cell in enumerate(self.cells)),
            paces=tuple(replace(pace, computed=frozenset(self._computed[i])) for i, pace in enumerate(paces)),
        )

    def _given(self, guess: Guess) -> Facts:
        """What is known of the interface before the file is run."""
        ports, known = {name: self._port(name, guess) for name in self.trial.dims}, self.interface
        return Facts(
            tuple(ports[name] for name in self._dims),
            (),
            tuple(Carried(ports[name], ports[name]) for name, _ in known.states),
            tuple(ports[name] for name in known.starts),
            tuple(ports[name] for name in known.lengths),
            (),
            (),
            alone=self._why_alone(guess, ports),
            lead=guess.lead,
        )

    # which axes are batch and time

    def _learn(self) -> tuple[Guess, tuple[Pace, ...], list[Values]]:
        tried = list(guesses(self._dims, self._declared(), self.alone))[:: -1 if self.last else 1]
        for guess in self._ways(self._in_blocks(tried, strides(self.graph))):
            found = self._try(guess)
            if found and min(inner := [pace.inner for pace in found[0] if pace.streams] or [1]) == 1 < max(inner):
                return guess, *found
        strange = None
        for guess in self._ways(tried):
            found = self._try(guess)
            if found and (stopped(self._ran) or not self._odd(found[1], guess.lead)):
                return guess, *found
            strange = strange or (found and (guess, *found))
        sizes = dict.fromkeys((*_BLOCKS, *hops(self.graph)))
        blocks = (*filter(None, map(self._with_block, tried)), *self._in_blocks(tried, [*sizes]))
        for guess in self._ways(blocks):
            found = self._try(guess)
            if found and not self._odd(found[1], guess.lead):
                return guess, *found
        if strange:
            return strange
        raise self._unknown()

    def _in_blocks(self, tried: Sequence[Guess], sizes: Sequence[int]) -> Iterator[Guess]:
        """The guesses with so many rows of time as one step."""
        for guess, size in product(tried, sizes):
            if len(guess.time) == 1 and not guess.blocks and not self.fixed:
                yield replace(guess, blocks=dict.fromkeys(guess.time, size))

    def _ways(self, tried: Iterable[Guess]) -> Iterator[Guess]:
        """The guesses, and if none of them will do, those in which the first steps have no answer."""
        tried = list(tried)
        yield from tried
        for guess in tried if self.lead else ():
            with suppress(StepgraphError):
                lead = self.lead(self._given(guess)) if self.lead and guess.time else 0
                if lead:
                    yield replace(guess, lead=lead)

    def _odd(self, runs: Sequence[Values], lead: int) -> bool:
        """Whether an axis of an output grows neither with the batch nor with time, or has no whole number a step."""
        shapes = (zip(*(run[n].shape for run in runs), strict=True) for n in self.trial.outputs)
        axes = [begun(sizes, lead)[0] for each in shapes for sizes in each]
        return any(growth(sizes) == (0, 0) or (growth(sizes) == (1, 2) and sizes[0] % SIZES[0][1]) for sizes in axes)

    def _try(self, guess: Guess) -> tuple[tuple[Pace, ...], list[Values]] | None:
        """How the cells run, and all outputs at the three sizes; None if the guess is wrong."""
        try:
            runs = self.trial.runs(guess)
        except StepFailed as failure:
            self._failure = self._failure or str(failure)
            return None
        self._runs_at_all = True
        batched, timed = bool(guess.batch), bool(guess.time)
        paces = [
            pace([[run[cell.x].shape[i] for i in cell.axes] for run in runs], batched, timed, guess.lead)
            for cell in self.cells
        ]
        self._ran = [[int(run[name]) for run in runs] for name in self.counts]
        counts = [growth(each) for each in self._ran]
        if None in paces or not self._remembers(guess, paces, counts):
            return None
        for node in () if self.looks_back else self._backwards:  # within a step they may run as they like
            if growth([run[node.input[0]].shape[time_axis(node)] for run in runs]) != (1, 1):
                self._over_time = self._over_time or node
                return None
        return tuple(pace for pace in paces if pace), runs

    def _remembers(self, guess: Guess, paces: Sequence[Pace | None], counts: Sequence[tuple[int, int]]) -> bool:
        """Whether steps can be told apart: time is what cells and loops run over, and a file without it is one step."""
        if (2, 1) in counts and (1, 2) not in counts:
            return False
        if guess.time and self.looks_back:
            return True
        if guess.time:
            return any(pace is not None and pace.streams for pace in paces) or (not paces and bool(counts))
        single = all(pace is None or pace.inner == 1 for pace in paces)
        return bool(self.interface.states) or (single and bool(self.cells) and not self._backwards)

    def _with_block(self, guess: Guess) -> Guess | None:
        """The guess with the samples that make one step of the first cell, if there is such a number."""
        if (self.fixed and self.interface.states) or not self.cells or len(guess.time) != 1 or guess.blocks:
            return None
        cell = self.cells[0]
        if cell.x in self.trial.dims:
            return None
        (axis,) = guess.time
        for length, steps in self.trial.lengths(cell.x, cell.time_axis, guess, _LENGTHS):
            if 1 < steps < length and length % steps == 0:
                return replace(guess, blocks={axis: length // steps})
        return None

    def _unknown(self) -> AxesUnknown:
        axes = free(self._dims)
        if self._over_time:
            return AxesUnknown(backwards(self._over_time), name_of(self._over_time))
        first = self.cells[0].node if self.cells else None
        seer = "the model" if first is None else label(first)
        if self._failure and not self._runs_at_all:
            return AxesUnknown(
                f"the file does not run, whichever of the free axes {', '.join(axes)} is batch and which is time: "
                f"{self._failure}. Run it in onnxruntime with other sizes than those of its export, and export it anew",
                None if first is None else name_of(first),
            )
        return AxesUnknown(
            f"the inputs {', '.join(self._dims)} have the free axes {', '.join(axes) or '(none)'}, and batch and time "
            f"cannot be found among them: {seer} must see one step after the other of every sequence of a batch. "
            "Export the model with both axes dynamic",
            None if first is None else name_of(first),
        )

    # ports

    def _port(self, name: str, guess: Guess) -> Port:
        dims, state = self.trial.dims[name], name in self.interface.inputs
        of_batch = [i for i, d in enumerate(dims) if isinstance(d, str) and (state or d in guess.batch)]
        of_time = [] if state else [i for i, d in enumerate(dims) if d in guess.time]
        if state and len(of_batch) > 1:
            raise AxesUnknown(free_beside(name, dims))
        if len(of_batch) > 1 or (state and not of_batch and guess.batch):
            raise AxesUnknown(f"input '{name}' with the axes {dims} needs one batch axis")
        ones = [i for i, d in enumerate(dims) if d == 1] if not guess.batch else []
        batch = next(iter((*of_batch, *ones)), None)
        time = next(iter(of_time), None)
        block = guess.blocks.get(str(dims[time]), 0) if time is not None else 0
        row = tuple(block if i == time else d for i, d in enumerate(dims) if i != batch and (i != time or block))
        shape = tuple(d for d in row if isinstance(d, int))
        port = self.trial.suited(Port(name, self.trial.dtype(name), shape, batch, time, block))
        return starts.put(port, self.start) if state else port

    def _why_alone(self, guess: Guess, ports: Mapping[str, Port]) -> str | None:
        if not guess.batch:
            return "the file fixes its batch axis, or has none, and does not run with another size of it"
        shared = [name for name in self._dims if ports[name].batch is None]
        if not shared:
            return None
        return (
            f"input '{shared[0]}' has no batch axis, so that sequences with different values of it cannot share a "
            f"batch. If it is always the same, say so in model.toml beside the file, under [fixed]: {shared[0]} = VALUE"
        )

    # initial states

    def _initial_states(self, index: int, cell: CellNode, facts: Facts) -> tuple[np.ndarray | None, ...]:
        carried = self.interface.carried
        return tuple(
            None if (index, k) in carried else self._initial_state(cell, facts, index, k)
            for k in range(len(cell.initial))
        )

    def _initial_state(self, cell: CellNode, facts: Facts, index: int, k: int) -> np.ndarray | None:
        """The value that the state has before the first step, [rows * H]; None if each step computes it itself."""
        pace = facts.paces[index]
        name, width = cell.initial[k], pace.rows * cell.cell.width(cell.cell.states[k])
        begins = {port.name: port for port in facts.starts}
        if name in begins:
            return begins[name].begun.reshape(-1)
        if name is None or name in self.trial.dims:
            return np.zeros(width, cell.cell.dtype)
        given = self.graph.made_of(name, by_value=True) & self.trial.dims.keys()
        if given & dict(self.interface.states).keys() or (given and not pace.streams):
            return None  # the step itself computes it
        batched = any(port.batch is not None for port in facts.inputs) and not facts.alone
        sizes = ((2, 3, 1), (3, 4, 2)) if batched else ((1, 3, 1), (1, 4, 2))
        draws = [self.trial.values([name], facts, *size)[name] for size in sizes]
        rows = np.concatenate([draw.reshape(-1, width) for draw in draws])
        if (rows == rows[0]).all():
            first: np.ndarray = rows[0]
            return first
        self._computed[index].add(k)
        return np.zeros(width, cell.cell.dtype)
