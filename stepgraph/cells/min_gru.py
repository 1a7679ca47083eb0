"""minGRU: z = sigmoid(x W_z + b_z), n = x W_n + b_n, h' = (1 - z) h + z n. Its gates do not see h.

Files write it with plain operators; it is known by its equation, or named in their metadata. Source: Feng et al. 2024,
"Were RNNs All We Needed?", section 3.1; with its g() the candidate is positive.
"""

from collections.abc import Iterator, Mapping, Sequence

from stepgraph.cells.cell import Cell, Kind, Known, Tensors
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.equations import Equations


def _follow(g: GraphBuilder, _cell: Cell, gates: Tensors, states: Tensors) -> Tensors:
    h_BH = states["hidden"]
    return {"hidden": g.op("Add", h_BH, g.op("Mul", gates["update"], g.op("Sub", gates["candidate"], h_BH)))}


def _known(step: Equations, states: Mapping[str, str]) -> Iterator[Known]:
    for h, end in states.items():
        computed = (*step.of("Where", end)[1:2], end)[0]  # torch.lerp computes the same in two ways
        for z, n in (*_weighed(step, h, computed), *_moved(step, h, computed)):
            if not step.sees(h, z, n):
                yield Known({"update": z, "candidate": n}, {"hidden": h})
                break


def _weighed(step: Equations, h: str, end: str) -> Iterator[tuple[str, str]]:
    """(1 - z) h + z n."""
    for p, rest in step.kept(h, end):
        yield from ((z, n) for z, n in step.two("Mul", rest) if step.are_one(p, z))


def _moved(step: Equations, h: str, end: str) -> Iterator[tuple[str, str]]:
    """As h + z (n - h), or h - z (h - n)."""
    added = [rest for start, rest in step.two("Add", end) if start == h]
    yield from ((z, of[0]) for z, of in _products(step, added) if of[1] == h)
    taken = [of[1] for of in [step.of("Sub", end)] if of and of[0] == h]
    yield from ((z, of[1]) for z, of in _products(step, taken) if of[0] == h)


def _products(step: Equations, tensors: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of z (a - b): z, and a and b."""
    pairs = (pair for tensor in tensors for pair in step.two("Mul", tensor))
    return ((z, of) for z, change in pairs if (of := step.of("Sub", change)))


KIND = Kind("minGRU", ("hidden",), ("update", "candidate"), follow=_follow, known=_known)
