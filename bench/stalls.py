"""How long a bystander has to wait for one step while others do their worst: the longest wait of each attack.

And the longest turn of the attacked server's event loop, in processor time of its thread.

One server with its checkpoints in SQLite, where a hundred thousand sequences are parked, and a client of it that takes
one step after the other, in a process of its own. Beside them a second server that nobody attacks, with a client of the
same kind: what it has to wait is the machine's doing. Who attacks is a process that gives way to the others, as one on
another machine takes nothing from them. `--only` takes the attacks whose names contain a word.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.status import Status
from rich.table import Table

from bench import report
from bench.attacks.attacker import NOBODY
from bench.attacks.every import ATTACKS
from bench.attacks.speech import HIDDEN, IDLE, MODEL
from bench.client.connection import ready
from bench.parked import Parked
from bench.processes import exports
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from stepgraph.file import content

MOST = 20.0  # ms that a step of a bystander may take
LONGEST = 5.0  # ms of processor time that a turn of the event loop may take
HOPELESS = 5_000.0  # ms without an answer after which an attack is over, and a server anew


@dataclass(frozen=True)
class Stall:
    """What an attack did to the steps of a bystander, and what happened meanwhile at the server beside; in ms.

    `turn` is the longest turn of the event loop, and `where` what it was at after each ms.
    """

    attack: str
    took: tuple[float, ...]
    beside: tuple[float, ...]
    turn: float
    where: Sequence[str]
    error: str = ""

    @property
    def worst(self) -> float:
        """The longest step."""
        return max(self.took, default=float("inf"))

    @property
    def excess(self) -> float:
        """The longest step or turn, as a multiple of what it may take."""
        return max(self.worst / MOST, self.turn / LONGEST)

    @property
    def met(self) -> bool:
        """Whether no step, and no turn, took longer than it may."""
        return self.excess <= 1 and not self.error

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = "[green]met[/]" if self.met else f"[bold red]{self.error or 'missed'}[/]"
        figures = (_p99(self.took), _p99(self.beside), self.worst, max(self.beside, default=0.0), self.turn)
        shown = (f"{figure:.1f}" for figure in (np.median(self.took), *figures))
        return (self.attack, f"{len(self.took):,}", *shown, verdict)


def _p99(took: Sequence[float]) -> float:
    return float(np.percentile(took, 99)) if took else 0.0


class Place:
    """A server, the turns of its event loop, and its bystander."""

    def __init__(self, stack: ExitStack, name: str, models: Path, store: Path, cache: Cache) -> None:
        self.port = free_port()
        self._turns = cache.root / f"{name}-turns.json"
        self._turns.unlink(missing_ok=True)
        command = ["bench.processes.turns", str(self._turns), "--models", str(models), "--port", str(self.port)]
        options = ["--store", f"sqlite:{store}", "--idle-seconds", str(IDLE), "--cache", str(cache.proofs)]
        self._server = stack.enter_context(Child(name, [*command, *options], cache.log(name)))
        watching = f"{name}-bystander"
        self._bystander = stack.enter_context(Child(watching, ["bench.client.bystander"], cache.log(watching)))

    def measure_turns(self) -> None:
        """From now on; the server takes a whole core meanwhile."""
        os.kill(self._server.pid, signal.SIGUSR1)

    def longest_turn(self) -> tuple[float, list[str]]:
        """Since then, in ms, and what it was at."""
        os.kill(self._server.pid, signal.SIGUSR2)
        while not self._turns.exists():
            time.sleep(0.01)
        measured = json.loads(self._turns.read_text(encoding="utf-8"))
        self._turns.unlink()
        return measured["longest"], measured["where"]

    def begin(self) -> None:
        """The bystander takes steps from now on."""
        self._bystander.ask({"ask": "begin", "port": self.port, "model": MODEL})

    def end(self) -> tuple[float, ...]:
        """What each of its steps took, in ms."""
        return tuple(self._bystander.ask({"ask": "end"})["took"])


def measure(name: str, attacker: Child, attacked: Place, beside: Place) -> Stall:
    for place in (attacked, beside):
        place.begin()
    attacked.measure_turns()
    wrong = attacker.ask({"attack": name, "port": attacked.port})["wrong"]
    turn, where = attacked.longest_turn()
    return Stall(name, attacked.end(), beside.end(), turn, where, wrong)


@contextmanager
def repository(cache: Cache, listed: int) -> Iterator[Path]:
    """The model that is attacked, under many names."""
    source = cache.models / MODEL
    with TemporaryDirectory() as folder:
        for number in range(listed):
            shutil.copytree(source, Path(folder) / (f"copy{number}" if number else MODEL))
        yield Path(folder)


def table(stalls: Sequence[Stall]) -> Table:
    title = "a bystander's steps, and those at a server beside that nobody attacks, in ms"
    figures = ("steps", "median", "p99", "p99 beside", "worst", "worst beside", "longest turn", "")
    drawn = report.drawn(title, "while somebody else sends", *figures)
    for stall in stalls:
        drawn.add_row(*stall.cells)
    return drawn


@contextmanager
def places(models: Path, cache: Cache, parked: int) -> Iterator[tuple[Place, Place]]:
    """The server that is attacked, and the one beside it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        stores = [folder / f"{name}.sqlite" for name in ("attacked", "beside")]
        Parked(stores[0], parked, 1, HIDDEN).fill(content.hashed(cache.served_file(HIDDEN)))
        shutil.copy(*stores)
        attacked, beside = (Place(stack, store.stem, models, store, cache) for store in stores)
        for place in (attacked, beside):
            asyncio.run(ready(place.port, MODEL))
        yield attacked, beside


def until_hopeless(
    attacks: Iterable[str], attacker: Child, attacked: Place, beside: Place, again: int, status: Status
) -> Iterator[Stall]:
    """One attack after the other, up to one after which the server needs to be another."""
    for name in attacks:
        status.update(name)
        stall = measure(name, attacker, attacked, beside)
        for _ in range(again):
            if stall.met or stall.error or name == NOBODY:
                break
            stall = min(stall, measure(name, attacker, attacked, beside), key=lambda one: one.excess)
        yield stall
        if stall.error or stall.worst > HOPELESS:
            return


def run(attacks: Sequence[str], listed: int, parked: int, again: int, status: Status) -> list[Stall]:
    cache = exports.ready()
    stalls: list[Stall] = []
    attacker = Child("attacker", ["bench.attacks.attacker"], cache.log("attacker"))
    with repository(cache, listed) as models, attacker:
        while left := attacks[len(stalls) :]:
            status.update("filling the stores, and starting the servers")
            with places(models, cache, parked) as (attacked, beside):
                stalls += until_hopeless(left, attacker, attacked, beside, again, status)
    return stalls


def main() -> int:
    """Measures and prints; 1 if a step took longer than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.stalls", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="only these attacks; may be repeated"
    )
    parser.add_argument("--models", type=int, default=40, help="how many the server has (default: 40)")
    parser.add_argument("--parked", type=int, default=100_000, help="sequences in its store (default: 100,000)")
    # what the machine did elsewhere does not come again
    parser.add_argument(
        "--again", type=int, default=2, help="times that an attack that missed is repeated (default: 2)"
    )
    options = parser.parse_args()
    chosen = [name for name in ATTACKS if not options.only or any(word in name for word in options.only)]
    if not chosen:
        parser.error(f"no attack's name contains {' or '.join(options.only)}; there are: {', '.join(ATTACKS)}")
    console = report.begun()
    with console.status("exporting the models") as status:
        stalls = run([NOBODY, *chosen], options.models, options.parked, options.again, status)
    console.print(table(stalls))
    by_itself, *stalls = stalls
    console.print(f"the machine by itself: a step of {by_itself.worst:.1f} ms, a turn of {by_itself.turn:.1f} ms")
    worst = max(stalls, key=lambda stall: stall.worst)
    verdict = "met" if all(stall.met for stall in stalls) else "missed"
    longest = max(stalls, key=lambda stall: stall.turn)
    console.print(f"the longest step took {worst.worst:.1f} ms ({worst.attack}; at most {MOST:.0f})")
    console.print(f"the longest turn took {longest.turn:.1f} ms ({longest.attack}; at most {LONGEST:.0f}): {verdict}")
    for stall in stalls:
        if stall.turn > LONGEST:
            console.print(f"{stall.attack}: after each ms of its longest turn at", *stall.where, sep="\n  ")
    return int(verdict == "missed")


if __name__ == "__main__":
    raise SystemExit(main())
