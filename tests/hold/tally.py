"""What a hold has counted, and the table that it comes to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from bench.attacks.crowds import CROWDS
from bench.attacks.floods import FLOODS
from bench.attacks.messages import MESSAGES

ATTACKS = len(CROWDS | FLOODS | MESSAGES)
FLAT = 0.05  # of its memory may a server grow from the second third of the run to the last
SLACK = 8.0  # MiB, and so much more


@dataclass
class Tally:
    """Counts of all clients and servers of one hold."""

    # what was done
    kills: int = 0
    starts: list[float] = field(default_factory=list)  # seconds from each kill to the next server that serves
    clients: int = 0
    cuts: int = 0
    fuzzed: int = 0
    attacks: int = 0
    # what was compared
    sequences: int = 0
    steps: int = 0
    predicted: int = 0
    states: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    replayed: int = 0
    late: list[float] = field(default_factory=list)  # seconds of clients that had to wait until nobody was killed
    # what went wrong
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    faults: list[str] = field(default_factory=list)
    # the server that is never killed
    memory: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    worst: float = 0.0
    notes: list[str] = field(default_factory=list)  # for the log
    # the machine
    load: list[float] = field(default_factory=list)  # processes that run or want to

    def count(self, kind: str) -> None:
        """One more of this kind of traffic."""
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def fault(self, what: str) -> None:
        """A client's complaint, which says by its words what kind it is."""
        self.faults.append(what)
        if "another answer the second time" in what or "differs" in what:
            self.changed += 1
        elif "an answer to step" in what:
            self.doubled += 1
        else:
            self.lost += 1

    def waited(self, took: list[float]) -> None:
        """What steps of the bystander took, in ms."""
        self.waits = [*self.waits, *took][-100_000:]
        self.worst = max([self.worst, *took])

    @property
    def thirds(self) -> tuple[float, float]:
        """The median memory of the second third of the run and of the last, in MiB."""
        third = len(self.memory) // 3
        if not third:
            return 0.0, 0.0
        return median(self.memory[third : 2 * third]), median(self.memory[2 * third :])

    @property
    def long_enough(self) -> bool:
        """Whether each third of the run has seen every attack."""
        return self.attacks >= 3 * ATTACKS

    @property
    def flat(self) -> bool:
        """Whether the memory has stopped growing; a run that is too short to say is not blamed."""
        second, last = self.thirds
        return not self.long_enough or last <= second * (1 + FLAT) + SLACK

    @property
    def well(self) -> bool:
        """Whether every promise held."""
        return not self.faults and self.flat and self.steps > 0


def line(tally: Tally) -> str:
    """Where a run is."""
    return (
        f"{tally.kills} kills, {tally.sequences:,} sequences, {tally.steps:,} steps compared, {tally.fuzzed:,} fuzzed, "
        f"{tally.attacks} attacks, {tally.lost} lost, {tally.doubled} doubled, {tally.changed} changed, "
        f"{tally.memory[-1] if tally.memory else 0:.0f} MiB, load {os.getloadavg()[0]:.1f}"
    )


def table(tally: Tally, minutes: float) -> Table:
    """What a run came to."""
    drawn = Table(title=f"held for {minutes:.0f} minutes", title_justify="left", box=None, pad_edge=False)
    drawn.add_column("")
    drawn.add_column("", justify="right")
    for name, value in rows(tally):
        drawn.add_row(name, value)
    return drawn


def markdown(tally: Tally, minutes: float) -> str:
    """The same for the docs."""
    head = [f"| held for {minutes:.0f} minutes | |", "|---|---|"]
    return "\n".join([*head, *(f"| {name} | {value} |" for name, value in rows(tally))]) + "\n"


def rows(tally: Tally) -> list[tuple[str, str]]:
    """The rows of the table."""
    second, last = tally.thirds
    return [
        ("servers killed (`kill -9`)", f"{tally.kills:,}"),
        (
            "from a kill to the next server that serves, median and longest",
            _spread(tally.starts, "s", max(tally.starts, default=0)),
        ),
        ("clients, and connections that they opened", f"{tally.clients:,}; {tally.cuts:,}"),
        ("sequences compared", f"{tally.sequences:,}"),
        ("steps compared, to the bit", f"{tally.steps:,}"),
        ("steps of predictions compared", f"{tally.predicted:,}"),
        ("states compared", f"{tally.states:,}"),
        *((kind, f"{count:,}") for kind, count in sorted(tally.kinds.items())),
        ("resumed sequences", f"{tally.resumed:,}"),
        ("steps sent again after a loss", f"{tally.replayed:,}"),
        ("clients that had their last answers only once nobody was killed for a while", f"{len(tally.late)}"),
        ("fuzzed messages", f"{tally.fuzzed:,}"),
        ("floods and attacks", f"{tally.attacks:,}"),
        ("lost", str(tally.lost)),
        ("doubled", str(tally.doubled)),
        ("changed", str(tally.changed)),
        ("memory of the server that lived through it, second third and last", f"{second:.0f} MiB, {last:.0f} MiB"),
        ("memory flat", ("yes" if tally.flat else "NO") if tally.long_enough else "too short a run to say"),
        ("a bystander's step at that server, median and longest", _spread(tally.waits, "ms", tally.worst)),
        (f"processes that ran or wanted to, on {os.cpu_count()} processors, median", _spread(tally.load, "", None)),
    ]


def _spread(values: list[float], unit: str, longest: float | None) -> str:
    middle = f"{median(values) if values else 0:.1f} {unit}".strip()
    return middle if longest is None else f"{middle}, {longest:,.1f} {unit}"
