"""Draws what was measured: a table for each section, and the verdict. In a pipe it is plain text."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from rich.console import Console
from rich.table import Table

from bench.outcome import Measure, Outcome, client, latency, messages, processor, steps
from bench.plan import Contestant, Wire
from bench.processes.machine import describe
from bench.scenario import Scenario
from bench.verdict import Verdict

# As wide as a report is in a pipe, where no terminal says how wide it may be.
WIDTH = 140


def console() -> Console:
    """Write to a terminal as wide as it is, to a pipe without colours and unwrapped."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=WIDTH)


def begun() -> Console:
    """Likewise, once it says what the figures are measured on."""
    opened = console()
    opened.print(machine(describe()))
    return opened


def label(contestant: Contestant) -> str:
    if isinstance(contestant, Wire):
        return ", ".join([contestant.server + " before" * contestant.before, *how(contestant.scenario)])
    traces = ", traces" * contestant.traces
    loop = "onnxruntime" if contestant.loop == "loop" else "engine" + " before" * contestant.before
    return f"{loop}, batch {contestant.batch}{traces}"


def how(scenario: Scenario) -> Iterator[str]:
    """Say in what a row differs from others of its comparison."""
    if scenario.layout == "streams" and scenario.sequences > 1:
        yield "a stream each"
    if scenario.layout in ("multiplexed", "bundled"):
        yield "one stream"
    if scenario.layout == "bundled":
        yield "bundled"
    if scenario.traces:
        yield "traces"
    if scenario.protocol == "inference":
        yield "Open Inference Protocol"


def machine(description: dict[str, str]) -> str:
    """Write on one line what the figures were measured on."""
    return ", ".join(f"{key} {value}" for key, value in description.items())


def drawn(title: str, first: str, *others: str) -> Table:
    """An empty table with these headings; below all but the first stand numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def sections(outcomes: Sequence[Outcome]) -> list[Table]:
    return [section(name, list(group)) for name, group in groupby(outcomes, lambda o: o.comparison.section)]


def section(name: str, outcomes: Sequence[Outcome]) -> Table:
    """Draw the table of one section.

    Ratios are to the first contestant of each comparison. `us`: processor time a step; `others`: processors that
    everything else on the machine uses meanwhile.
    """
    headings = ("messages/s", "steps/s", "ratio", "median ms", "p99 ms", "server us", "client us", "others")
    table = drawn(name, "", *headings)
    for outcome in outcomes:
        table.add_row(outcome.comparison.title, style="dim")
        for contestant in outcome.comparison.contestants:
            table.add_row(f"  {label(contestant)}", *cells(outcome, contestant))
    return table


def cells(outcome: Outcome, contestant: Contestant) -> list[str]:
    """Write the figures of one contestant, medians of all rounds."""

    def median(measure: Measure) -> float:
        return outcome.median(contestant, measure)

    reference = outcome.comparison.contestants[0]
    ratio = "1" if contestant == reference else f"{outcome.ratio(contestant, reference, steps):.2f}"
    rates = [f"{median(messages):,.0f}", f"{median(steps):,.0f}", ratio, f"{median(latency) * 1e3:.3f}"]
    server, others = f"{median(processor) * 1e6:.1f}", f"{median(lambda f: f.others):.2f}"
    if not isinstance(contestant, Wire):
        return [*rates, "", server, "", others]
    return [*rates, f"{median(lambda f: f.p99) * 1e3:.3f}", server, f"{median(client) * 1e6:.1f}", others]


def beside(outcomes: Sequence[Outcome]) -> Table:
    """Draw what became faster or slower: this checkout over the other, with the lowest and highest of the rounds."""
    table = drawn("this / before", "", "steps/s", "rounds", "median latency", "rounds")
    for outcome in outcomes:
        for contestant in outcome.comparison.contestants:
            before = replace(contestant, before=True)
            if contestant != before and outcome.has(before):
                title = f"{outcome.comparison.title}: {label(contestant)}"
                both = [cell for measure in (steps, latency) for cell in spread(outcome, contestant, before, measure)]
                table.add_row(title, *both)
    return table


def spread(outcome: Outcome, over: Contestant, under: Contestant, measure: Measure) -> tuple[str, str]:
    """Write the median of the rounds' ratios, and the lowest and the highest."""
    pairs = zip(outcome.of(over), outcome.of(under), strict=True)
    ratios = [measure(a) / measure(b) for a, b in pairs]
    return f"{outcome.ratio(over, under, measure):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}"


def verdict(verdicts: Sequence[Verdict]) -> Table:
    """Draw the limits, how they were met, and how far from the limit."""
    table = drawn("verdict", "", "limit", "measured", "margin", "")
    for one in verdicts:
        table.add_row(one.limit.sentence, f"{one.limit.kind} {one.limit.bound:g}", *judged(one))
    return table


def judged(one: Verdict) -> tuple[str, str, str]:
    """Write what was measured of one limit."""
    if one.ratio is None or one.margin is None:
        return "", "", "[dim]not measured[/]"
    return f"{one.ratio:.2f}", f"{one.margin:+.0%}", "[green]met[/]" if one.met else "[bold red]missed[/]"
