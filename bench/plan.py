"""What is compared with what. Pure values; the rig carries a plan out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from bench.scenario import HIDDEN_SIZES, Layout, Scenario

# Tidegate as it is installed, its checkpoints in SQLite; one that writes them every 64 steps; one that writes none; one
# over grpcio's transport; one with TLS. `compiled`: the echo in C++, where it can be built. `least`: a batched LSTM on
# our HTTP/2 and nothing else.
Server = Literal["echo", "compiled", "afternoon", "least", "tidegate", "diligent", "forgetful", "grpcio", "secure"]
IN_BOTH: tuple[Server, ...] = ("tidegate", "diligent", "forgetful")  # another checkout starts these too
ECHOES: tuple[Server, ...] = ("echo", "compiled")  # these are told what to answer
OURS: tuple[Server, ...] = (*IN_BOTH, "grpcio", "secure")

SECTIONS = (
    "single",
    "multiplexed",
    "connections",
    "least",
    "transports",
    "tls",
    "protocols",
    "chunks",
    "fleets",
    "survival",
    "bare",
    "traces",
)
CONCURRENCY = (1, 16, 48, 64, 256)
FLEET = 1000
CHUNK = 100


@dataclass(frozen=True)
class Wire:
    """A server that is asked over the wire."""

    server: Server
    scenario: Scenario
    # Whether it runs from the other checkout, of `--beside`.
    before: bool = False


@dataclass(frozen=True)
class Local:
    """A loop in one process: onnxruntime's session on the step graph, or Tidegate's engine around it."""

    loop: Literal["loop", "engine"]
    hidden: int
    batch: int
    traces: bool = False
    before: bool = False


Contestant: TypeAlias = Wire | Local


@dataclass(frozen=True)
class Comparison:
    """Contestants that are measured in turns, so that their ratios mean something. The first is the reference."""

    section: str
    title: str
    contestants: tuple[Contestant, ...]


def full(hidden_sizes: Sequence[int] = HIDDEN_SIZES, sections: Sequence[str] = SECTIONS) -> list[Comparison]:
    """Plan everything, or some sections and sizes of it."""
    everything = [c for hidden in hidden_sizes for c in of_size(hidden) if c.section in sections]
    return sorted(everything, key=lambda c: SECTIONS.index(c.section))


def of_size(hidden: int) -> Iterator[Comparison]:
    """Plan everything for one hidden size."""
    yield from single(hidden)
    for count in CONCURRENCY[1:]:
        yield shared(hidden, count)
    apart = Scenario(hidden, 64, "connections")
    yield compared("connections", "64 sequences, a connection each", apart, (*ECHOES, "afternoon", "tidegate"))
    yield from ways("least", hidden, ("least", "tidegate"))
    yield from ways("transports", hidden, ("grpcio", "tidegate"))
    yield from ways("tls", hidden, ("tidegate", "secure"))
    yield from protocols(hidden)
    yield from chunks(hidden)
    yield from fleets(hidden)
    yield from survival(hidden)
    bare = tuple(Local("loop", hidden, batch) for batch in (1, 16, 64))
    yield Comparison("bare", f"hidden {hidden}: onnxruntime alone", bare)
    engines = tuple(Local("engine", hidden, 64, traces) for traces in (False, True))
    yield Comparison("traces", f"hidden {hidden}: the engine alone, without and with traces", engines)


def single(hidden: int) -> Iterator[Comparison]:
    """Plan single steps, a stream for each sequence."""
    for count in CONCURRENCY:
        plain = Scenario(hidden, count)
        title = "1 sequence" if count == 1 else f"{count} sequences"
        comparison = compared("single", title, plain, (*ECHOES, "afternoon", "least", "tidegate"))
        yield traced(comparison, plain)


def shared(hidden: int, count: int) -> Comparison:
    """Plan single steps of sequences that share a stream, as those of one client do, beside a stream for each."""
    apart, one_stream, bundled = (Scenario(hidden, count, layout) for layout in ("streams", "multiplexed", "bundled"))
    contestants = (
        Wire("echo", apart),
        Wire("afternoon", apart),
        Wire("afternoon", one_stream),
        Wire("tidegate", one_stream),
        Wire("tidegate", bundled),
    )
    return Comparison("multiplexed", f"hidden {hidden}: {count} sequences on one stream", contestants)


def ways(section: str, hidden: int, servers: Sequence[Server]) -> Iterator[Comparison]:
    """Plan Tidegate beside the least that can be done, over each of its transports, or in clear and with TLS."""
    for title, scenario in (
        ("1 sequence", Scenario(hidden, 1)),
        ("16 sequences, a connection each", Scenario(hidden, 16, "connections")),
        ("64 sequences, a connection each", Scenario(hidden, 64, "connections")),
        ("64 sequences on one stream", Scenario(hidden, 64, "multiplexed")),
        ("64 sequences on one stream, bundled", Scenario(hidden, 64, "bundled")),
    ):
        yield compared(section, title, scenario, servers)


def protocols(hidden: int) -> Iterator[Comparison]:
    """Plan Tidegate in its own words, and in those of the Open Inference Protocol."""
    for title, count, layout in (
        ("1 sequence", 1, "streams"),
        ("64 sequences, a stream each", 64, "streams"),
        ("64 sequences on one stream", 64, "multiplexed"),
    ):
        ours = Scenario(hidden, count, cast("Layout", layout))
        contestants = Wire("tidegate", ours), Wire("tidegate", replace(ours, protocol="inference"))
        yield Comparison("protocols", f"hidden {hidden}: {title}", contestants)


def chunks(hidden: int) -> Iterator[Comparison]:
    """Plan many steps of a sequence in one message, beside the loop that it could be at best."""
    for count in (1, 16):
        plain = Scenario(hidden, count, steps=CHUNK)
        title = f"hidden {hidden}: chunks of {CHUNK}, {count} sequence{'s' * (count > 1)}"
        contestants = (Local("loop", hidden, count), Wire("afternoon", plain), Wire("tidegate", plain))
        yield traced(Comparison("chunks", title, contestants), plain)


def fleets(hidden: int) -> Iterator[Comparison]:
    """Plan one step of many sequences in one message, beside the loop that it could be at best."""
    plain = Scenario(hidden, FLEET, "fleet")
    contestants = (Local("loop", hidden, 64), Wire("tidegate", plain))
    yield traced(Comparison("fleets", f"hidden {hidden}: a fleet of {FLEET:,}", contestants), plain)


def survival(hidden: int) -> Iterator[Comparison]:
    """Plan what it costs that sequences outlive their server."""
    for layout, title in (("streams", "a stream each"), ("bundled", "one stream")):
        scenario = Scenario(hidden, 64, cast("Layout", layout))
        contestants = tuple(Wire(server, scenario) for server in ("forgetful", "tidegate", "diligent"))
        yield Comparison(
            "survival", f"hidden {hidden}: 64 sequences, {title}, without and with checkpoints", contestants
        )


def compared(section: str, title: str, scenario: Scenario, servers: Sequence[Server]) -> Comparison:
    """Put servers side by side in one scenario."""
    contestants = tuple(Wire(server, scenario) for server in servers)
    return Comparison(section, f"hidden {scenario.hidden}: {title}", contestants)


def traced(comparison: Comparison, plain: Scenario) -> Comparison:
    """Add Tidegate with every trace to a comparison."""
    with_traces = Scenario(plain.hidden, plain.sequences, plain.layout, plain.steps, traces=True)
    return Comparison(comparison.section, comparison.title, (*comparison.contestants, Wire("tidegate", with_traces)))


def without(comparisons: Sequence[Comparison], servers: Sequence[str]) -> list[Comparison]:
    """Leave servers out, and what cannot be compared then."""
    kept = []
    for comparison in comparisons:
        rest = tuple(c for c in comparison.contestants if not (isinstance(c, Wire) and c.server in servers))
        if rest:
            kept.append(Comparison(comparison.section, comparison.title, rest))
    return kept


def beside(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Put next to everything of ours the same of another checkout, and leave out what has nothing of ours."""
    doubled = []
    for comparison in comparisons:
        both = [one for c in comparison.contestants for one in ((c, replace(c, before=True)) if is_ours(c) else (c,))]
        if len(both) > len(comparison.contestants):
            doubled.append(Comparison(comparison.section, comparison.title, tuple(both)))
    return doubled


def is_ours(contestant: Contestant) -> bool:
    """Whether another checkout may do it differently."""
    return contestant.server in IN_BOTH if isinstance(contestant, Wire) else contestant.loop == "engine"


def servers(comparisons: Sequence[Comparison]) -> list[Server]:
    """Name the servers that a plan needs."""
    contestants = (contestant for comparison in comparisons for contestant in comparison.contestants)
    return sorted({contestant.server for contestant in contestants if isinstance(contestant, Wire)})
