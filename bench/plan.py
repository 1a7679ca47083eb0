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
    "connections",
    "multiplexed",
    "streams",
    "transports",
    "protocols",
    "chunks",
    "fleets",
    "survival",
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
    for count in CONCURRENCY:
        yield apart(hidden, count)
    for count in CONCURRENCY[1:]:
        yield shared(hidden, count)
    streams = Scenario(hidden, 64)
    yield compared("streams", "64 sequences, a stream each on one connection", streams, (*ECHOES, "tidegate"))
    yield from transports(hidden)
    yield from protocols(hidden)
    yield from chunks(hidden)
    yield from fleets(hidden)
    yield from survival(hidden)
    engines = tuple(Local("engine", hidden, 64, traces) for traces in (False, True))
    yield Comparison("traces", f"hidden {hidden}: the engine alone, without and with traces", engines)


def apart(hidden: int, count: int) -> Comparison:
    """Plan single steps, a connection for each sequence."""
    plain = connected(hidden, count)
    title = f"{count} sequences, a connection each" if count > 1 else "1 sequence"
    everyone = compared("connections", title, plain, (*ECHOES, "afternoon", "least", "tidegate", "secure"))
    return beside_bare(traced(everyone, plain), count)


def connected(hidden: int, count: int) -> Scenario:
    """Single steps, a connection for each sequence."""
    return Scenario(hidden, count, "connections" if count > 1 else "streams")


def shared(hidden: int, count: int) -> Comparison:
    """Plan single steps of sequences that share a stream, as those of one client do, beside a stream for each."""
    streams, one_stream, bundled = (Scenario(hidden, count, layout) for layout in ("streams", "multiplexed", "bundled"))
    title = f"{count} sequences on one stream"
    everyone = compared("multiplexed", title, one_stream, (*ECHOES, "afternoon", "least", "tidegate", "secure"))
    more = Wire("echo", streams), Wire("afternoon", streams), Wire("least", bundled), Wire("tidegate", bundled)
    everyone = replace(everyone, contestants=(*everyone.contestants, *more))
    return beside_bare(traced(everyone, one_stream), count)


def beside_bare(comparison: Comparison, batch: int) -> Comparison:
    hidden = next(c.scenario.hidden for c in comparison.contestants if isinstance(c, Wire))
    return replace(comparison, contestants=(*comparison.contestants, Local("loop", hidden, batch)))


def transports(hidden: int) -> Iterator[Comparison]:
    for title, scenario in (
        ("1 sequence", Scenario(hidden, 1)),
        ("64 sequences, a connection each", Scenario(hidden, 64, "connections")),
        ("64 sequences on one stream", Scenario(hidden, 64, "multiplexed")),
        ("64 sequences on one stream, bundled", Scenario(hidden, 64, "bundled")),
    ):
        yield compared("transports", title, scenario, ("grpcio", "tidegate"))


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
    for layout, title in (("connections", "a connection each"), ("bundled", "one stream")):
        scenario = Scenario(hidden, 64, cast("Layout", layout))
        contestants = tuple(Wire(server, scenario) for server in ("forgetful", "tidegate", "diligent"))
        yield Comparison("survival", f"hidden {hidden}: checkpoints, 64 sequences, {title}", contestants)


def compared(section: str, title: str, scenario: Scenario, servers: Sequence[Server]) -> Comparison:
    contestants = tuple(Wire(server, scenario) for server in servers)
    return Comparison(section, f"hidden {scenario.hidden}: {title}", contestants)


def traced(comparison: Comparison, plain: Scenario) -> Comparison:
    with_traces = Wire("tidegate", replace(plain, traces=True))
    return replace(comparison, contestants=(*comparison.contestants, with_traces))


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
    contestants = (contestant for comparison in comparisons for contestant in comparison.contestants)
    return sorted({contestant.server for contestant in contestants if isinstance(contestant, Wire)})
