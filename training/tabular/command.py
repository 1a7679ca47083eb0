"""`python -m training table FILE --target COLUMN`: a person's own table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, get_args

from training.tabular.look import read_and_look
from training.tabular.roles import Asked, Goal

if TYPE_CHECKING:
    from rich.console import Console

PAGE = 140  # characters of a line that is not on a terminal
TEXT = (
    """Look at a table of your own: what is in its columns, what each will be used for, and what stands in the way."""
)


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """The command's options."""
    sub = commands.add_parser("table", help=TEXT, description=TEXT, allow_abbrev=False)
    sub.add_argument(
        "files", nargs="+", metavar="FILE", help="CSV, Parquet or JSON, which may be gzipped; several, or a glob."
    )
    sub.add_argument("--target", nargs="+", required=True, metavar="COLUMN", help="What is to be learnt.")
    sub.add_argument(
        "--task", choices=get_args(Goal), help="What is to be learnt of it; by default the target decides."
    )
    sub.add_argument(
        "--horizons", type=steps, default=(1,), metavar="STEPS", help="How far ahead, as 1,6,24 (default: 1)."
    )
    sub.add_argument("--series", metavar="COLUMN", help="The column that tells series apart.")
    sub.add_argument("--time", metavar="COLUMN", help="The column of times; by default the one that holds some.")
    for name, text in (
        ("known", "Columns that are known ahead of their time, as a holiday is."),
        ("category", "Columns whose numbers are names of categories."),
        ("ignore", "Columns that are left out."),
    ):
        sub.add_argument(f"--{name}", nargs="+", default=(), metavar="COLUMN", help=text)
    sub.set_defaults(run=run)


def steps(text: str) -> tuple[int, ...]:
    """`1,6,24` as numbers, in rising order."""
    found = tuple(sorted({int(part) for part in text.split(",")}))
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a horizon is at least 1 step")
    return found


def run(given: argparse.Namespace, console: Console) -> None:
    """Print the page."""
    asked = Asked(
        tuple(given.target),
        given.task,
        given.series,
        given.time,
        *map(tuple, (given.known, given.category, given.ignore)),
    )
    if not console.is_terminal:
        console.width = PAGE
    console.print(read_and_look(tuple(given.files), asked, given.horizons).page)
