"""Measures Tidegate beside an echo, beside the obvious server and beside onnxruntime alone; prints ratios.

Everything runs on this machine, over the loopback: one process that makes the load, one for each server. The
contestants of a comparison take turns in short rounds, and a ratio is the median of the rounds' ratios.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.status import Status

from bench import fairness, plan, report, verdict
from bench.outcome import Outcome
from bench.plan import Comparison, Server
from bench.processes import exports, machine
from bench.processes.child import RigError, checkout
from bench.processes.rig import Pace, Rig
from bench.rivals import compiled
from bench.scenario import HIDDEN_SIZES

FAIRNESS, WEIGHTS = "fairness", "weights"  # commands of their own in bench/, each alone when it is asked for


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what the verdict needs, in short rounds")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*plan.SECTIONS, FAIRNESS, WEIGHTS),
        help="only this section; may be repeated",
    )
    parser.add_argument("--hidden", action="append", type=int, choices=HIDDEN_SIZES, help="only this hidden size; same")
    parser.add_argument("--without", action="append", default=[], choices=get_args(Server))
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (default: 5; 3 if quick)")
    parser.add_argument("--seconds", type=float, help="length of a window (default: 1; 0.5 if quick)")
    parser.add_argument("--beside", type=checkout, metavar="DIR", help="another checkout, measured in the same rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every round to this file")
    return parser.parse_args(given)


def planned(options: argparse.Namespace) -> list[Comparison]:
    comparisons = plan.full(options.hidden or HIDDEN_SIZES, options.only or plan.SECTIONS)
    if options.quick:
        comparisons = verdict.needed(comparisons)
    kept = plan.without(comparisons, [*options.without, *([] if compiled.available() else ["compiled"])])
    return plan.beside(kept) if options.beside else kept


def paced(options: argparse.Namespace) -> Pace:
    rounds, warm, length = (3, 0.2, 0.5) if options.quick else (5, 0.3, 1.0)
    return Pace(rounds=options.rounds or rounds, warm=warm, length=options.seconds or length)


def measure(
    comparisons: Sequence[Comparison], pace: Pace, console: Console, beside: Path | None = None
) -> list[Outcome]:
    """Carry out the plan, with a line that says where it is."""
    outcomes: list[Outcome] = []
    with console.status("exporting the models") as status:
        cache = exports.ready()
        servers = plan.servers(comparisons)
        if "compiled" in servers:
            status.update("building the echo in C++")
            compiled.built(cache.compiled)
        status.update("starting the servers")
        with Rig(cache, servers, beside) as rig:
            rig.check()
            for number, comparison in enumerate(comparisons, 1):
                place = f"{number}/{len(comparisons)} {comparison.title}"
                outcomes.append(rig.carry_out(comparison, pace, partial(show, status, place)))
    return outcomes


def show(status: Status, place: str, turn: str) -> None:
    status.update(f"{place}, {turn}")


def written(outcomes: Sequence[Outcome], verdicts: Sequence[verdict.Verdict], file: Path) -> None:
    content = {
        "machine": machine.describe(),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "verdict": [
            {"limit": v.limit.sentence, v.limit.kind: v.limit.bound, "measured": v.ratio, "met": v.met}
            for v in verdicts
        ],
    }
    file.write_text(json.dumps(content, indent=1) + "\n")


def main() -> int:
    """Measure and print; 1 if a limit is missed, 2 if the rig fails."""
    options = arguments()
    if options.only == [FAIRNESS]:
        return fairness.main(["--rounds", str(paced(options).rounds)])
    if options.only == [WEIGHTS]:
        from bench import weights  # noqa: PLC0415 - torch, whose import takes two seconds

        return weights.main([])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = report.begun()
    console.print("the load: a bare client of HTTP/2, a process of its own; us: processor time a step")
    try:
        outcomes = measure(planned(options), paced(options), console, options.beside)
    except RigError as error:
        console.print(f"[bold red]{error}[/]")
        return 2
    except KeyboardInterrupt:
        return 130
    verdicts = verdict.decide(outcomes)
    tables = [*report.sections(outcomes), report.verdict(verdicts)]
    for table in [*tables, report.beside(outcomes)] if options.beside else tables:
        console.print(table, "")
    if options.json:
        written(outcomes, verdicts, options.json)
    return int(any(v.ratio is not None and not v.met for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
