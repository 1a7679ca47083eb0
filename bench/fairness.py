"""What one client with 10,000 ready steps costs 50 others that take a step from time to time: the p99 of their steps.

Each of them has a token. Three servers take turns: one where the 50 are alone, one where the large client shares an
account with them, so that all wait in one line, and one where each has its own, so that batches are divided.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

import numpy as np
from rich.status import Status
from rich.table import Table

from bench import report
from bench.attacks.speech import MODEL
from bench.processes import exports
from bench.processes.cache import Cache
from bench.processes.child import Child, free_port
from bench.processes.worker import Json
from server.access import token_secret
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import Right

FEW, MANY = 50, 10_000
MOST = 2.0  # times their p99 alone
SETTLE = 1.0  # seconds between the first of the many steps and what counts


@dataclass
class Figures:
    """What was measured in one way, in all rounds."""

    name: str
    p99: list[float] = field(default_factory=list)  # ms, of each round
    median: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)  # steps a second of the one that has many

    def add(self, few: Json, many: Json | None) -> None:
        self.p99.append(float(np.percentile(few["took"], 99)))
        self.median.append(float(np.median(few["took"])))
        if many is not None:
            self.many.append(many["steps"] / many["seconds"])


class Place:
    """A server with tokens for all, the process of the few, and that of the one with many."""

    def __init__(self, stack: ExitStack, folder: Path, cache: Cache) -> None:
        self.port = free_port()
        self.secrets = [token_secret.make() for _ in range(FEW + 1)]
        with TokenFile(folder / "tokens.json").change() as tokens:
            for at, one in enumerate(self.secrets):
                token = Token(f"client{at}", frozenset({Right.PREDICT}), digests=(token_secret.digest(one),))
                tokens[token.name] = token
        command = ["server", "--models", str(cache.models), "--port", str(self.port), "--store", "none"]
        options = ["--tokens", str(folder / "tokens.json"), "--cache", str(cache.proofs)]
        stack.enter_context(Child("fairness", [*command, *options], cache.log("fairness")))
        crowd = ["bench.client.crowd"]
        self.few, self.many = (stack.enter_context(Child(n, crowd, cache.log(n))) for n in ("few", "many"))

    def ready(self) -> None:
        for _ in range(600):
            if "error" not in (tried := self._tried()):
                return
            sleep(0.1)
        raise TimeoutError(f"the server did not start: {tried}")

    def _tried(self) -> Json:
        try:
            return self.few.ask({"ask": "few", "port": self.port, "tokens": self.secrets[:1], "length": 0.2})
        except Exception as error:  # noqa: BLE001 # it does not serve yet
            return {"error": str(error)}

    def measure(self, figures: Figures, length: float, *, crowded: bool, together: bool) -> None:
        """One round. `crowded`: beside the one with many. `together`: with its token."""
        tokens = [self.secrets[0]] * FEW if together else self.secrets[1:]
        many = None
        if crowded:
            wanted = {"ask": "many", "port": self.port, "tokens": self.secrets[:1], "sequences": MANY}
            self.many.ask(wanted)
            sleep(SETTLE)
        few = self.few.ask({"ask": "few", "port": self.port, "tokens": tokens, "length": length})
        if crowded:
            many = self.many.ask({"ask": "end"})
            sleep(SETTLE)
        figures.add(few, many)


@contextmanager
def place(cache: Cache) -> Iterator[Place]:
    with TemporaryDirectory() as folder, ExitStack() as stack:
        made = Place(stack, Path(folder), cache)
        made.ready()
        yield made


def measure(rounds: int, length: float, status: Status) -> list[Figures]:
    """All rounds of all three ways, in turns."""
    cache = exports.ready()
    alone = Figures(f"the {FEW} alone")
    before = Figures(f"beside {MANY:,} ready steps, all of one account")
    after = Figures(f"beside {MANY:,} ready steps, an account each")
    status.update("starting the server")
    with place(cache) as server:
        for at in range(rounds):
            status.update(f"round {at + 1} of {rounds}")
            server.measure(alone, length, crowded=False, together=False)
            server.measure(before, length, crowded=True, together=True)
            server.measure(after, length, crowded=True, together=False)
    return [alone, before, after]


def ratio(of: Figures, to: Figures) -> float:
    """How much larger a p99 is, in the median of the rounds."""
    return float(np.median(np.array(of.p99) / np.array(to.p99)))


def table(measured: Sequence[Figures]) -> Table:
    title = f"steps of {FEW} clients that take one from time to time, in ms"
    drawn = report.drawn(title, "", "median", "p99", "p99 to alone", "steps/s of the large one")
    for one in measured:
        many = f"{np.median(one.many):,.0f}" if one.many else ""
        figures = (f"{np.median(one.median):.2f}", f"{np.median(one.p99):.2f}", f"{ratio(one, measured[0]):.2f}", many)
        drawn.add_row(one.name, *figures)
    return drawn


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if the few wait longer than they may."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round (default: 3)")
    options = parser.parse_args(given)
    console = report.begun()
    with console.status("exporting the models") as status:
        measured = measure(options.rounds, options.seconds, status)
    console.print(table(measured))
    verdict = "met" if ratio(measured[2], measured[0]) <= MOST else "missed"
    console.print(f"at most {MOST:g} times their usual p99 beside the large one: {verdict} with {MODEL}")
    return int(verdict == "missed")


if __name__ == "__main__":
    raise SystemExit(main())
