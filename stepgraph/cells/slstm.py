"""sLSTM, the scalar LSTM of xLSTM: c' = f c + i z, n' = f n + i, h' = o c' / n', with exponential gates i and f.

To keep them within range, what is exponentiated has m' = max(a_f + m, a_i) taken from it: i = exp(a_i - m') and
f = exp(a_f + m - m'), where f without m would be exp(a_f). i and f are named after that; m, the stabiliser, is a state
that the file's own nodes compute, and a file that has none names none. Files write the cell with plain operators; it is
known by its equations, or named in their metadata. Source: Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory",
equations 8 to 17.
"""

from collections.abc import Iterator, Mapping

from stepgraph.cells.cell import Cell, Kind, Known, Tensors
from stepgraph.graphs.builder import GraphBuilder
from stepgraph.graphs.equations import Equations


def _follow(g: GraphBuilder, _cell: Cell, gates: Tensors, states: Tensors) -> Tensors:
    f_BH, i_BH = gates["forget"], gates["input"]
    c_BH = g.op("Add", g.op("Mul", f_BH, states["cell"]), g.op("Mul", i_BH, gates["candidate"]))
    n_BH = g.op("Add", g.op("Mul", f_BH, states["normaliser"]), i_BH)
    return {"hidden": g.op("Mul", gates["output"], g.op("Div", c_BH, n_BH)), "cell": c_BH, "normaliser": n_BH}


def _known(step: Equations, states: Mapping[str, str]) -> Iterator[Known]:
    by_end = {step.whole(end): state for state, end in states.items()}
    for h, end in states.items():
        for o, ratio in step.two("Mul", end):
            c, n = (by_end.get(tensor, "") for tensor in step.of("Div", ratio) or ("", ""))
            gates = _fed(step, states, c, n) if c and n else {}
            if gates:
                m = [state for state in states if _stabilises(step, states[state], gates)]
                found = {"hidden": h, "cell": c, "normaliser": n}
                yield Known(gates | {"output": o}, found | dict(zip(("stabiliser",), m, strict=False)))


def _fed(step: Equations, states: Mapping[str, str], c: str, n: str) -> dict[str, str]:
    """The gates that c' = f c + i z and n' = f n + i have in common; {} if they have none."""
    for f, i in step.kept(n, states[n]):
        for kept, new in step.kept(c, states[c]):
            for gate, z in step.two("Mul", new):
                if (kept, gate) == (f, i):
                    return {"input": i, "forget": f, "candidate": z}
    return {}


def _stabilises(step: Equations, end: str, gates: Mapping[str, str]) -> bool:
    """Whether a state is the largest exponent, which i and f had taken from theirs."""
    taken = [step.of("Sub", of[0]) for of in (step.of("Exp", gates[gate]) for gate in ("input", "forget")) if of]
    return bool(step.of("Max", end)) and [pair[1:] for pair in taken] == [(step.whole(end),)] * 2


_STATES = ("hidden", "cell", "normaliser")
_GATES = ("input", "forget", "candidate", "output")
KIND = Kind("sLSTM", _STATES, _GATES, follow=_follow, optional=("stabiliser",), known=_known)
