"""`python -m training.recipes.full`: trains every recipe, and other cells beside it, and writes docs/recipes.md.

What is finished in the folder of the runs is not trained again, so it can be left and gone on with.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from training.fitting.run import open_run
from training.fitting.session import train
from training.network import build
from training.recipes.named import RECIPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.config import Config

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
HEAD = """# Recipes

What each recipe is, what its paper reports, how ours differs, and what ours reaches: trained by `make test-recipes` on
one core, every figure measured on sequences that training never saw, one seed. The same seed gives the same figures on
one kind of processor; on another kind the last bits of sums differ, and after hundreds of steps so do the figures. This
page is written by `python -m training.recipes.full`.
"""


@dataclass(frozen=True)
class Form:
    """A recipe with changes. `must` says that it has to reach the recipe's goal; the others stand beside it."""

    recipe: str
    network: str
    changes: dict[str, Any] = field(default_factory=dict)
    must: bool = False

    def config(self, runs: Path) -> Config:
        """The recipe's config with the changes, in a folder of the runs."""
        return replace(RECIPES[self.recipe](), **self.changes, runs=runs, models=runs / "models")


PLAIN = {"cell": "rnn"}
FORMS = (
    Form("recall", "LSTM, chrono", must=True),
    Form("recall", "RNN", PLAIN),
    Form("adding", "LSTM, chrono", must=True),
    Form("adding", "GRU, chrono", {"cell": "gru"}),
    Form("adding", "RNN", PLAIN),
    Form("temporal-order", "LSTM, chrono", must=True),
    Form("temporal-order", "LSTM, forget bias 1", {"chrono": None, "forget_bias": 1.0}),
    Form("temporal-order", "GRU, chrono", {"cell": "gru"}),
    Form("temporal-order", "GRU", {"cell": "gru", "chrono": None}),
    Form("temporal-order", "RNN", PLAIN),
    Form("copy", "LSTM, chrono", must=True),
    Form("copy", "RNN", PLAIN),
    Form("digits", "LSTM, forget bias 1", must=True),
    Form("digits", "GRU, update bias 1", {"cell": "gru"}),
    Form("digits", "RNN", PLAIN),
    Form("vowels", "LSTM, forget bias 1", must=True),
    Form("vowels", "GRU, update bias 1", {"cell": "gru"}),
    Form("vowels", "RNN", PLAIN),
    Form("text", "LSTM, forget bias 1", must=True),
    Form("glucose", "LSTM, forget bias 1", must=True),
    Form("glucose", "GRU, update bias 1", {"cell": "gru"}),
    Form("glucose", "RNN", PLAIN),
)


@dataclass(frozen=True)
class Row:
    """What became of a form."""

    form: Form
    units: int
    weights: int
    steps: int
    report: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """It had to reach the goal and did not."""
        return self.form.must and not self.report["reached"]

    def markdown(self) -> str:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in self.report["model"].items())
        reached = "yes" if self.report["reached"] else "no"
        return f"| {self.form.network} of {self.units} | {self.weights:,} | {self.steps} | {figures} | {reached} |"


def measure(form: Form, runs: Path, console: Console) -> Row:
    """Train a form, or read what it came to."""
    config = form.config(runs)
    task = config.task()
    run = open_run(config, task.data["sha256"])
    if not run.result.exists():
        console.print(f"[bold]{form.recipe}: {form.network}[/bold]")
        train(config, console=console)
    result = json.loads(run.result.read_text())
    weights = sum(parameter.numel() for parameter in build(config, task).parameters())
    return Row(form, config.hidden, weights, result["steps"], result["report"])


def page(rows: list[Row]) -> str:
    """The docstring of each recipe, with a table of ours below it."""
    parts = [HEAD]
    for name in dict.fromkeys(row.form.recipe for row in rows):
        of_recipe = [row for row in rows if row.form.recipe == name]
        parts.append(f"## `{name}`\n\n{story(name)}\n\n{ours(of_recipe)}")
    return "\n".join(parts)


def story(name: str) -> str:
    """What the recipe's file says of it, without the legend of its code."""
    text = sys.modules[type(RECIPES[name]()).__module__].__doc__ or ""
    return text.partition("\nLegend:")[0].strip()


def ours(rows: list[Row]) -> str:
    report = rows[0].report
    known = {who: figures for who, figures in report.items() if isinstance(figures, dict) and who != "model"}
    lines = [f"Ours, with the goal {report['goal'].replace('_', ' ')}:", ""]
    lines += ["| network | weights | steps | figures of the test | goal reached |", "|---|---|---|---|---|"]
    lines += [row.markdown() for row in rows]
    for who, figures in known.items():
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
        lines.append(f"| *{who}* | | | {told} | |")
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> int:
    """Train what is not finished, write the page; 1 if a recipe misses its goal."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes.full", description=__doc__)
    parser.add_argument("recipes", nargs="*", help="only these recipes; then no page is written")
    parser.add_argument("--runs", type=Path, default=Path(".recipes"), help="folder of the runs")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    wanted = [form for form in FORMS if not given.recipes or form.recipe in given.recipes]
    rows = [measure(form, given.runs, console) for form in wanted]
    if not given.recipes:
        PAGE.write_text(page(rows), encoding="utf-8")
    for row in rows:
        console.print(f"{row.form.recipe}: {row.markdown()}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
