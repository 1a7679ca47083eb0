"""The command line: `python -m training RECIPE [--field value ...]`."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from training.errors import ConfigError, Interrupted, TrainingError
from training.field import fields_of
from training.fitting import processes
from training.fitting.session import train
from training.memory import command as memory
from training.options import add_fields
from training.recipes.named import RECIPES, TABLES
from training.tabular import command as table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.config import Config

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


class OneLineParser(argparse.ArgumentParser):
    """argparse, whose errors are one line without the list of all options above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {message}; see --help\n")


def main(arguments: Sequence[str]) -> int:
    """Train, and return the exit status: 0, 1 if it failed, 2 for a wrong use, 130 if interrupted."""
    try:
        given = parser().parse_args(arguments)
        given.arguments = list(arguments)
        with processes.joined():
            given.run(given, Console(highlight=False, soft_wrap=True, quiet=not processes.first()))
    except Interrupted as stop:
        return complain(f"{stop}\nto go on: {again(arguments)}", INTERRUPTED)
    except KeyboardInterrupt:  # while it exported: the fit itself is in its checkpoint
        return complain(f"stopped\nto go on: {again(arguments)}", INTERRUPTED)
    except ConfigError as error:
        return complain(f"python -m training {given.recipe}: {error}", WRONG_USE)
    except (TrainingError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        return complain(f"python -m training {given.recipe}: {error}", FAILED)
    return 0


def complain(message: str, status: int) -> int:
    """Say why on standard error, and give back the exit status."""
    print(message, file=sys.stderr)
    return status


def again(arguments: Sequence[str]) -> str:
    """The command that goes on with this run."""
    return shlex.join(["python", "-m", "training", *(argument for argument in arguments if argument != "--fresh")])


def parser() -> argparse.ArgumentParser:
    """One subcommand for each recipe, one option for each field of its config."""
    root = OneLineParser(prog="python -m training", description="Fit a recurrent network and export it as ONNX.")
    recipes = root.add_subparsers(metavar="RECIPE", dest="recipe", required=True)
    for name, recipe in RECIPES.items():
        text = (recipe.__doc__ or "").replace("%", "%%")
        sub = recipes.add_parser(name, help=text, description=text, allow_abbrev=False)
        add_fields(sub, fields_of(recipe()))
        sub.add_argument("--fresh", action="store_true", help="Start anew even if an interrupted run could be resumed.")
        sub.set_defaults(run=run_recipe)
    for name, recipe in TABLES.items():
        table.add(recipes, name, recipe)
    memory.add(recipes)
    return root


def run_recipe(given: argparse.Namespace, console: Console) -> None:
    train(configure(given), fresh=given.fresh, console=console)


def configure(given: argparse.Namespace) -> Config:
    """The recipe's config with what was given in place of its defaults."""
    recipe = RECIPES[given.recipe]()
    changes: dict[str, Any] = {
        name: value for name, value in vars(given).items() if name not in {"recipe", "fresh", "run", "arguments"}
    }
    return replace(recipe, **changes)
