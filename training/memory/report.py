"""Joins the parts: the experiments of a plan, the numbers as CSV, and the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.errors import DataError
from training.memory import numbers, sections, units
from training.memory.drawing import charts
from training.memory.equations import run
from training.memory.gradients import reach
from training.memory.measures import KEEPING, half_lives
from training.memory.model_file import read
from training.memory.page import Section, figure, page, paragraph, table
from training.memory.work import carry_out_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.console import Console

    from training.memory.experiments import Outcome
    from training.memory.model_file import Measured
    from training.memory.plan import Plan

TITLE = "What a network remembers"
PAGE = "memory.html"
MODEL_STEPS = 100


@dataclass(frozen=True)
class Own:
    """A reader's own model, and rows for it; None: random ones."""

    path: Path
    rows: Path | None


def report(plan: Plan, folder: Path, jobs: int, own: Own | None, console: Console) -> Path:
    """Train what is not trained yet, and write the page and its numbers into the folder."""
    torch.set_num_threads(1)  # for small networks one is the fastest
    measured = read_own(own) if own else []  # a file that cannot be measured is refused before any training
    outcomes = carry_out_all(plan, folder / "experiments", jobs, console)
    begun = numbers.beginnings(plan.seeds)
    files = numbers.write(folder, begun, outcomes)
    parts = [sections.words(), sections.one_unit(outcomes), sections.forgetting(begun), sections.opened(outcomes)]
    parts += [sections.solving(outcomes), units.lasting(outcomes), units.deciding(outcomes)]
    parts += [sections.no_edge(outcomes), *([yours(own, measured)] if own else []), method(plan, outcomes, files)]
    file = folder / PAGE
    file.write_text(page(TITLE, lead(plan), parts), encoding="utf-8")
    return file


def lead(plan: Plan) -> str:
    """What the page is, in two sentences."""
    return paragraph(
        "Why does a plain recurrent network forget, what does a gate do about it, and where does it not help? Every "
        f"picture on this page is of small networks that were trained for it, {often(plan.seeds)}."
    )


def often(seeds: int) -> str:
    """How many trainings there are of each network."""
    return "once each" if seeds == 1 else f"{seeds} times each, with other random numbers to begin with"


def method(plan: Plan, outcomes: Sequence[Outcome], files: Sequence[str]) -> Section:
    """How it was measured, and where the numbers are."""
    trained = len(outcomes)
    widths = sorted({outcome.experiment.hidden for outcome in outcomes})
    return Section(
        "How this was measured",
        (
            paragraph(
                f"{trained} trainings (`python -m training memory{' --quick' if plan.name == 'quick' else ''}`), "
                f"networks of {', '.join(map(str, widths))} units in one layer under a linear head, Adam, batches of "
                f"16 to 64, gradients clipped at 1, {plan.seeds} seeds. Solved: adding, squared error below 0.005 "
                "(without memory 0.167); temporal order and latch, 99.9 % right. Gradients are those of the "
                "equations, multiplied step by step in double precision: the Frobenius norm of the derivative of "
                "the last state by an earlier input, over the root of the number of units. One learning rate, few "
                "steps: *never* means not within those, not that it cannot be done."
            ),
            paragraph(f"Every number drawn here stands beside this page: {', '.join(f'`{name}`' for name in files)}."),
        ),
    )


def read_own(own: Own) -> list[Measured]:
    rows_TF = rows_of(own.rows) if own.rows else None
    return read(own.path, rows_TF, MODEL_STEPS)


def rows_of(path: Path) -> NDArray[np.float32]:
    """Rows of a .npy file, or of a CSV file with or without a line of names."""
    try:
        if path.suffix == ".npy":
            found: NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32)
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            names = any(character.isalpha() for character in lines[0].replace("e", "").replace("nan", ""))
            found = np.loadtxt(lines[names:], delimiter=",", dtype=np.float32, ndmin=2)
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path}: {error}") from error
    if found.ndim < 2 or len(found) < 2:
        raise DataError(f"{path}: expected rows of numbers, at least two")
    return found


def yours(own: Own, measured: Sequence[Measured]) -> Section:
    """Gradients and half-lives of a reader's model, layer by layer."""
    parts = [
        paragraph(
            f"`{own.path.name}`, on {'its own' if own.rows else 'random'} rows: how much the last state of each "
            "layer depends on what reached the layer so many steps before."
        )
    ]
    told = []
    for one in measured:
        far = reach(one.layer, [one.x_TF])
        name = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}[one.layer.kind]
        curve = numbers.spread([list(far.by_input)])
        panel = charts.Panel(f"{one.name}: {name} of {one.layer.hidden}", {name: curve})
        parts.append(figure(charts.gradients([panel]), caption="What lies on the lower edge is smaller than drawn."))
        kept_TH = run(one.layer, one.x_TF).gates.get(KEEPING.get(one.layer.kind, ""))
        lives = [] if kept_TH is None else half_lives(kept_TH).tolist()
        middle = f"{np.median(lives):.3g}, longest {max(lives):.3g}" if lives else "it has no gate that keeps"
        far_back = len(far.by_input) - 1
        told.append([one.name, f"{name} of {one.layer.hidden}", sections.tiny(far.by_input[far_back]), middle])
    parts.append(table(["layer", "cell", f"gradient {far_back} steps back", "half-life of its units, middle"], told))
    return Section("Your model", tuple(parts))
