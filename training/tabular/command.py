"""`python -m training table FILE --target COLUMN`: from a person's own table to an exported model."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.field import fields_of
from training.fitting.session import train
from training.options import add_fields
from training.tabular.judging import card
from training.tabular.settings import Table, defaults
from training.tabular.task import TableTask

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

PAGE = 140  # characters of a line that is not on a terminal
UNASKED = ("files", "known")
TEXT = """Fit a network on a table of your own, judge it beside naive forecasts, and export it. The table is looked at
first: what is in its columns, what each is used for, and what stands in the way."""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """The command's options."""
    sub = commands.add_parser("table", help=TEXT, description=TEXT, allow_abbrev=False)
    sub.add_argument("files", nargs="+", metavar="FILE", help="CSV, Parquet or JSON, which may be gzipped; or a glob.")
    add_fields(sub, [field for field in fields_of(defaults()) if field.name not in UNASKED])
    sub.add_argument("--look", action="store_true", help="Only look at the table.")
    sub.add_argument("--fresh", action="store_true", help="Start anew even if an interrupted run could be resumed.")
    sub.set_defaults(run=run)


def run(given: argparse.Namespace, console: Console) -> None:
    """Look, and train unless no more than a look is asked for."""
    if not console.is_terminal:
        console.width = PAGE
    config = configured(given)
    look = config.look()
    console.print(look.page)
    if given.look:
        return
    task = TableTask(config, look)
    result = train(config, fresh=given.fresh, console=console, task=task)
    path = card.write(task, result, shlex.join(["python", "-m", "training", *given.arguments]))
    console.print(f"the card is {path}")


def configured(given: argparse.Namespace) -> Table:
    """The defaults with what was given in their place; the model is called as the file is."""
    names = {field.name for field in fields(Table)}
    changes = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(given).items() if name in names
    }
    return defaults(**({"name": called(given.files[0])} | changes))


def called(file: str) -> str:
    """A file's name without its endings, as a folder may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", Path(file).name.split(".")[0]).strip("._-") or "table"
