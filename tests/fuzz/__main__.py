"""Gives the server bytes that are guided by what its code does with them: `make fuzz`, for FUZZ_MINUTES in all.

What reached something new stays in `.fuzz/TARGET/corpus`, where the next run begins; an input that breaks a promise is
`.fuzz/TARGET/crash-...`.
"""

from __future__ import annotations

import os
import sys

from rich.table import Table

from bench import report
from tests.fuzz.run import run
from tests.fuzz.targets import TARGETS
from tests.running_server import ROOT

MINUTES = float(os.environ.get("FUZZ_MINUTES", "60"))
FOLDER = ROOT / ".fuzz"


def main() -> int:
    """Prints a table; 1 if a promise did not hold."""
    console = report.console()
    drawn = Table(title=f"fuzzed for {MINUTES:g} minutes", title_justify="left", box=None, pad_edge=False)
    for head in ("target", "cases", "branches", "MiB", ""):
        drawn.add_column(head, justify="left" if head in ("target", "") else "right")
    seconds, found = int(60 * MINUTES / len(TARGETS)), 0
    for target in TARGETS:
        with console.status(f"{target}: {seconds} s"):
            outcome = run(target, FOLDER, f"-max_total_time={seconds}")
        found += bool(outcome.fault)
        word = "FAULT" if outcome.fault else "no fault"
        drawn.add_row(target, f"{outcome.cases:,}", str(outcome.branches), str(outcome.memory), word)
        if outcome.fault:
            console.print(outcome.fault)
    console.print(drawn)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
