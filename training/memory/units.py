"""What the page says of single units: how long they remember, how sharply their gates decide, what they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.memory.drawing import charts
from training.memory.numbers import of, starts
from training.memory.page import Section, figure, paragraph, table
from training.memory.sections import ASKED, ORDER, compared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from training.memory.experiments import Outcome


def lasting(outcomes: Sequence[Outcome]) -> Section:
    """Half-lives of units against what the task asks for."""
    length = compared(outcomes)
    asked = ASKED * length
    rows, told = [], []
    for name in starts(outcomes, ORDER):
        tried = of(outcomes, ORDER, length, name)
        before = gathered(tried, lambda one: one.before.half_lives)
        after = gathered(tried, lambda one: one.after.half_lives)
        if not before:
            continue
        rows += [(name, "before", before), (name, "after", after)]
        told.append([name, *(f"{np.mean(np.array(values) > asked):.0%}" for values in (before, after))])
    said = (
        "An open forget gate of 0.9 leaves half of a memory after 6.6 steps, one of 0.99 after 69: ln 2 / -ln f. "
        f"Each dot is a unit of a network for temporal order of {length} steps, which asks for {asked:.0f}. A "
        "network needs only some units that remember so long; the others may be quick. (This reads the gate as if "
        "nothing were written meanwhile.)"
    )
    return Section(
        "How long a unit remembers",
        (
            paragraph(said),
            figure(charts.half_lives(rows, asked), caption="All seeds together; a GRU's update gate does the keeping."),
            table(["network", f"units above {asked:.0f} steps, before", "after"], told),
            *rewriting(outcomes, length, asked),
        ),
    )


def rewriting(outcomes: Sequence[Outcome], length: int, asked: float) -> list[str]:
    """A sentence on networks that solved the task although no unit of theirs is that slow."""
    found = []
    for name in starts(outcomes, ORDER):
        solved = [
            one for one in of(outcomes, ORDER, length, name) if one.solved_at is not None and one.after.half_lives
        ]
        if solved and max(gathered(solved, lambda one: one.after.half_lives)) < asked:
            found.append(name)
    if not found:
        return []
    return [
        paragraph(
            f"{' and '.join(found)} solved it without one such unit: these units hold a memory together, each "
            "writing at every step what the others held. A gate alone does not show that; the gradient above does."
        )
    ]


def gathered(tried: Sequence[Outcome], part: Callable[[Outcome], list[float]]) -> list[float]:
    """The units of all seeds."""
    return [value for one in tried for value in part(one)]


def deciding(outcomes: Sequence[Outcome]) -> Section:
    """Saturation of the gates of the longest temporal order and of text."""
    length = compared(outcomes)
    parts = [
        paragraph(
            "A gate that is nearly always open or nearly always closed decides sharply. Each dot is a unit: to the "
            "right if its gate is mostly open (above 0.9), upwards if it is mostly closed (below 0.1); on the "
            "dashed line it is always one of both. A forget gate at the lower right never forgets: a counter. One "
            "at the origin is never sure. After Karpathy, Johnson & Fei-Fei (2015)."
        )
    ]
    for kind, at, name, title in (
        (ORDER, length, "LSTM, chrono", f"temporal order of {length} steps, LSTM chrono"),
        ("text", None, "LSTM, forget bias 1", "Shakespeare, letter by letter, LSTM with forget bias 1"),
    ):
        tried = of(outcomes, kind, at, name)
        gates = {
            gate: [(name, *dot) for one in tried for dot in one.after.saturated[gate]]
            for gate in tried[0].after.saturated
        }
        parts.append(figure(charts.triangles(gates), caption=f"Trained on {title}; all seeds."))
    one = of(outcomes, ORDER, length, "LSTM, chrono")[0]
    share = sum(one.after.kept) / (sum(one.after.kept) + sum(one.after.written))
    parts.append(paragraph("And what its state is made of at each step, as a mean over units:"))
    parts.append(
        figure(
            charts.flow(one.after.kept, one.after.written, f"kept and written, temporal order of {length} steps"),
            caption=f"Kept (blue) and written (orange); LSTM chrono, seed 0. {share:.0%} of it is kept, the rest is "
            "new.",
        )
    )
    return Section("How sharply gates decide", tuple(parts))
