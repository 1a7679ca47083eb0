"""`python -m training memory`: its options, and what they do."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError
from training.memory.plan import full, quick
from training.memory.report import Own, report

if TYPE_CHECKING:
    from rich.console import Console

SENTENCE = "Why a network forgets and what a gate does about it: a page of measured pictures, and its numbers as CSV."


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to those of `python -m training`."""
    parser = commands.add_parser("memory", help=SENTENCE, description=SENTENCE, allow_abbrev=False)
    parser.add_argument(
        "--quick", action="store_true", help="short sequences and few steps: minutes instead of an hour"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network (default: 3)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time (default: one a core)"
    )
    parser.add_argument("--model", type=Path, help="measure the recurrent layers of this ONNX file too")
    parser.add_argument("--rows", type=Path, help="rows for that model, .npy or .csv (default: random ones)")
    parser.add_argument("--output", type=Path, default=Path("runs/memory"), help="folder of the page and the numbers")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace, console: Console) -> None:
    """Write the page; what is trained already is not trained again.

    Raises:
        ConfigError: an option is out of range.
        DataError: the model or its rows cannot be measured.
        Interrupted: Ctrl-C; the same command goes on.
    """
    for name in ("seeds", "jobs"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name}: {getattr(given, name)} must be at least 1")
    if given.rows and not given.model:
        raise ConfigError("--rows: are for a model, which is given by --model")
    own = Own(given.model, given.rows) if given.model else None
    plan = quick(given.seeds) if given.quick else full(given.seeds)
    lasts = "minutes" if given.quick else "about an hour; --quick takes minutes"
    console.print(f"{len(plan.experiments)} trainings, those that are finished left out: {lasts}")
    file = report(plan, given.output / plan.name, given.jobs, own, console)
    console.print(f"wrote {file}")
