"""The first nodes of an exported table network, which torch's exporter cannot write: a Scan for each state.

`front` turns the input x into e and k, as `front.Front` does; it carries the last value of each number that may be
missing, the steps since, and the time of the row before. Legend: B batch, n numbers, m numbers that may be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from training.tabular.learning.front import DAY, LONG, SLIM
from training.tabular.learning.lags_graph import lagged
from training.tabular.learning.nodes import FLOAT, Nodes, values

if TYPE_CHECKING:
    import onnx

    from training.tabular.learning.front import Encoding


def front(nodes: Nodes, encoding: Encoding) -> None:
    """From x to e and k."""
    raw = nodes.pick("x", encoding.numbers, "numbers")
    centred = nodes.add("Sub", [raw, nodes.constant("mean", encoding.mean_n)], "centred")
    parts = [nodes.add("Div", [centred, nodes.constant("deviation", encoding.deviation_n)], "standard")]
    if encoding.clock:
        elapsed(nodes, encoding)
    if encoding.gappy:
        parts = fill(nodes, encoding, parts[0])
    standard = parts[0]
    if encoding.clock:
        parts.append(squashed(nodes, "elapsed"))
    if encoding.waves:
        places, turns, phases = zip(*encoding.waves, strict=True)
        turned = nodes.add("Mul", [nodes.pick("x", places, "angles"), nodes.constant("turn", turns)], "turned")
        parts.append(wave(nodes, nodes.add("Add", [turned, nodes.constant("phase", phases)], "turns")))
    if encoding.lags:
        parts[0], *lags = lagged(nodes, encoding, standard)
        parts += lags
    nodes.add("Concat", parts, "e", axis=2)
    if encoding.categories:
        categories(nodes, encoding)


def wave(nodes: Nodes, turns: str) -> str:
    """A sine of whole turns, as two parabolas."""
    rounded = nodes.add("Add", [turns, nodes.constant("half.turn", 0.5)], "turns.rounded")
    part = nodes.add("Sub", [turns, nodes.add("Floor", [rounded], "turns.whole")], "turns.part")
    bent = nodes.add("Mul", [part, nodes.add("Abs", [part], "turns.size")], "turns.bent")
    straight = nodes.add("Mul", [part, nodes.constant("eight", 8.0)], "arc.straight")
    arc = nodes.add("Sub", [straight, nodes.add("Mul", [bent, nodes.constant("sixteen", 16.0)], "arc.bent")], "arc")
    squared = nodes.add("Mul", [arc, nodes.add("Abs", [arc], "arc.size")], "arc.squared")
    slim = nodes.add("Mul", [squared, nodes.constant("slim", SLIM)], "waves.slim")
    rest = nodes.add("Mul", [arc, nodes.constant("full", 1 - SLIM)], "waves.full")
    return nodes.add("Add", [slim, rest], "waves")


def elapsed(nodes: Nodes, encoding: Encoding) -> None:
    """`elapsed`: steps since the row before, 1 at the first row, of which `begun` tells. The states begin at 0."""
    body = Nodes("elapsed.")
    days = body.add("Sub", ["days", "days_before"], "days_late")
    seconds = body.add("Sub", ["seconds", "seconds_before"], "seconds_late")
    late = body.add("Add", [body.add("Mul", [days, body.constant("day", DAY)], "days_in_seconds"), seconds], "late")
    steps = body.add("Div", [late, body.constant("step", encoding.step_seconds)], "steps")
    least = body.add("Max", [steps, body.constant("none", 0.0)], "least")
    first = body.add("Less", ["begun", body.constant("half", 0.5)], "first")
    body.add("Where", [first, body.constant("one", 1.0), least], "elapsed_now")
    for source, target in (("days", "days_next"), ("seconds", "seconds_next")):
        body.add("Identity", [source], target)
    body.add("Add", [body.add("Mul", ["begun", "none"], "nought"), "one"], "begun_next")
    names = ("days_before", "seconds_before", "begun", "days", "seconds")
    graph = helper.make_graph(
        body.nodes, "elapsed_body", values(names, 1),
        values(("days_next", "seconds_next", "begun_next", "elapsed_now"), 1), body.constants,
    )  # fmt: skip
    states = [nodes.zeros("x", 1, f"elapsed.start{index}") for index in range(3)]
    clock = [nodes.pick("x", [place], f"clock{index}") for index, place in enumerate(encoding.clock)]
    nodes.scan("elapsed.scan", graph, states, clock, ["elapsed"])


def fill(nodes: Nodes, encoding: Encoding, standard: str) -> list[str]:
    """The numbers with their gaps filled, which are filled, and the squashed steps since."""
    width = len(encoding.gappy)
    body = Nodes("fill.")
    gone = body.add("IsNaN", ["now"], "gone")
    body.add("Where", [gone, "last", "now"], "last_next")
    body.add("Cast", [gone], "unseen_now", to=FLOAT)
    waited = body.add("Add", ["since", "wait"] if encoding.clock else ["since", body.constant("one", 1.0)], "waited")
    body.add("Mul", [waited, "unseen_now"], "since_next")
    body.add("Identity", ["last_next"], "filled_now")
    body.add("Identity", ["since_next"], "since_now")
    waiting = values(("wait",), 1) if encoding.clock else []
    graph = helper.make_graph(
        body.nodes, "fill_body", [*values(("last", "since", "now"), width), *waiting],
        values(("last_next", "since_next", "filled_now", "unseen_now", "since_now"), width), body.constants,
    )  # fmt: skip
    states = [nodes.zeros("x", width, f"fill.start{index}") for index in range(2)]
    inputs = [nodes.pick(standard, encoding.gappy, "gappy"), *(["elapsed"] if encoding.clock else [])]
    nodes.scan("fill", graph, states, inputs, ["filled", "unseen", "since"])
    return [placed(nodes, encoding, standard), "unseen", squashed(nodes, "since")]


def squashed(nodes: Nodes, steps: str) -> str:
    """A time of any length as a number from 0 to below 1."""
    more = nodes.add("Add", [steps, nodes.constant(f"{steps}.long", LONG)], f"{steps}.more")
    return nodes.add("Div", [steps, more], f"{steps}.squashed")


def placed(nodes: Nodes, encoding: Encoding, standard: str) -> str:
    """The filled numbers among those that are never missing, in the order of all."""
    steady = [place for place in range(len(encoding.numbers)) if place not in encoding.gappy]
    parts = ["filled"] if not steady else ["filled", nodes.pick(standard, steady, "steady")]
    together = nodes.add("Concat", parts, "together", axis=2)
    order = [[*encoding.gappy, *steady].index(place) for place in range(len(encoding.numbers))]
    return nodes.pick(together, order, "numbers.whole")


def categories(nodes: Nodes, encoding: Encoding) -> None:
    """Whole numbers within each table; 0 for what is missing or outside."""
    found = nodes.pick("x", encoding.categories, "names")
    above = nodes.add("GreaterOrEqual", [found, nodes.constant("zero", 0.0)], "above")
    below = nodes.add("Less", [found, nodes.constant("sizes", encoding.sizes)], "below")
    known = nodes.add("And", [above, below], "known")
    nodes.add("Cast", [nodes.add("Where", [known, found, "zero"], "within")], "k", to=TensorProto.INT64)


def front_of(core: onnx.ModelProto, encoding: Encoding, inputs: int) -> onnx.ModelProto:
    """The exporter's graph of (e, k) -> y, with x as its only input."""
    nodes = Nodes()
    front(nodes, encoding)
    graph = core.graph
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes.nodes, *body])
    graph.initializer.extend(nodes.constants)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("x", FLOAT, ["batch", "time", inputs]))
    return core
