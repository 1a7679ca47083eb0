"""`python -m training table FILE --target COLUMN`: from a person's own table to an exported model."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import fields, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError
from training.field import fields_of
from training.fitting import processes
from training.options import add_fields
from training.tabular.comparing import best_of_each, fit_each, land, page, spread, varied
from training.tabular.inheriting import frozen
from training.tabular.looking.reading import called
from training.tabular.refitting import later, told
from training.tabular.searching import search
from training.tabular.settings import Table, defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from training.config import Cell
    from training.tabular.looking.look import Look

PAGE = 140  # characters of a line that is not on a terminal
UNASKED = ("files", "cell")
CELLS: tuple[Cell, ...] = ("rnn", "lstm", "gru")


def table() -> Table:
    """Fit a network on a table of your own, judge it beside naive forecasts, and export it.

    The table is looked at first: what is in its columns, what each is used for, and what stands in the way.
    """
    return defaults()


def add(commands: argparse._SubParsersAction[Any], name: str, recipe: Callable[[], Table]) -> None:
    """A command and its options: `table`, or a recipe that is a table with settings of its own."""
    usual, text = recipe(), " ".join((recipe.__doc__ or "").split())
    sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    if not usual.files:
        files = "CSV, Parquet or JSON, which may be gzipped; or a glob."
        sub.add_argument("files", nargs="+", metavar="FILE", help=files)
    searched = "Search settings for so long, then fit the best; 0: fit the best that was found before."
    cells = "The recurrence: rnn (tanh), lstm or gru; all: each of them, side by side. (default: lstm)"
    sub.add_argument("--cell", choices=(*CELLS, "all"), default=argparse.SUPPRESS, help=cells)
    named = {} if usual.files else {"name": "the file's name"}
    asked = [field for field in fields_of(usual) if field.name not in UNASKED]
    add_fields(sub, [replace(field, default=named.get(field.name, field.default)) for field in asked])
    sub.add_argument("--seeds", type=positive, default=1, help="Fit with so many seeds, and show the spread.")
    sub.add_argument("--search", type=minutes, metavar="MINUTES", help=searched)
    sub.add_argument("--look", action="store_true", help="Only look at the table.")
    sub.add_argument("--fresh", action="store_true", help="Start anew even if an interrupted run could be resumed.")
    sub.set_defaults(run=run, usual=usual)


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 is needed")
    return int(text)


def minutes(text: str) -> float:
    found = float(text)
    if not 0 <= found < inf:
        raise argparse.ArgumentTypeError(f"{text}: a number of minutes from 0 on is needed")
    return found


def run(given: argparse.Namespace, console: Console) -> None:
    """Look, and train unless no more than a look is asked for."""
    if not console.is_terminal:
        console.width = PAGE
    config = configured(given)
    look = config.look()
    console.print(look.page)
    if given.look:
        return
    if given.search is not None:
        if processes.count() > 1:
            raise ConfigError("--search: start it on each machine by itself; they share the journal in the runs folder")
        config = search(config, look, given.search, console)
    cells = CELLS if getattr(given, "cell", "") == "all" and given.search is None else (config.cell,)
    learn(varied(config, cells, given.seeds), look, console, given)


def learn(configs: list[Table], look: Look, console: Console, given: argparse.Namespace) -> None:
    """Fit all of them; of each name export the best, with its card."""
    fits, interrupted = fit_each(configs, look, fresh=given.fresh, console=console)
    if len(fits) > 1:
        console.print(page(fits))
    command = shlex.join(["python", "-m", "training", *given.arguments])
    for fit in best_of_each(fits):
        again = ""
        if fit.config.refit and not interrupted:
            more, interrupted = fit_each(later(fit.config), look, fresh=given.fresh, console=console)
            again = told(fit, more) if not interrupted else ""
        land(fit, console, command, spread(fits) if len(fits) > 1 else "", again)
    if interrupted:
        raise interrupted


def configured(given: argparse.Namespace) -> Table:
    """The usual settings, or an earlier run's, with what was given in their place; a model is called as its file."""
    usual: Table = given.usual
    names = {field.name for field in fields(Table)}
    told = {name: value for name, value in vars(given).items() if name in names and value != "all"}
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    before: dict[str, Any] = {} if usual.files else {"name": called(given.files[0])}
    if changes.get("from_"):
        before = earlier(str(changes["from_"]))
    return replace(usual, **(before | changes))


def earlier(folder: str) -> dict[str, Any]:
    """The settings of an earlier run; what it began with itself does not count.

    Raises:
        ConfigError: the folder holds no run.
    """
    try:
        said = json.loads((Path(folder) / "config.json").read_text())
    except (OSError, json.JSONDecodeError):
        raise ConfigError(f"--from: {folder} holds no run; give its folder, as runs/NAME/1a2b3c4d") from None
    names = {field.name for field in fields(Table)} - {"from_"}
    return {name: frozen(value) for name, value in said.items() if name in names}
