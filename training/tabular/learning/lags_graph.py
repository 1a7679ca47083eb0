"""The lags of an exported network, which torch's exporter cannot write: a Scan that keeps the last values of a number.

As `lags.lagged` does. Legend: L lags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from training.tabular.learning.nodes import Nodes, values

if TYPE_CHECKING:
    from training.tabular.learning.front import Encoding


def lagged(nodes: Nodes, encoding: Encoding, standard: str) -> list[str]:
    """The numbers, the lags of each that has some, and the levels."""
    numbers = [nodes.pick(standard, [place], f"number{place}") for place in range(len(encoding.numbers))]
    lags, levels = [], []
    for index, place in enumerate(encoding.lagged):
        earlier(nodes, encoding, numbers[place], f"lags{place}")
        lags.append(f"lags{place}")
        if encoding.least:
            levels.append(level(nodes, numbers[place], lags[-1], encoding.lags, encoding.least[index], f"level{place}"))
            numbers[place], lags[-1] = (share(nodes, name, levels[-1]) for name in (numbers[place], lags[-1]))
    return [nodes.add("Concat", numbers, "numbers.shared", axis=2), *lags, *levels]


def level(nodes: Nodes, now: str, before: str, lags: int, least: float, name: str) -> str:
    """The mean size of a number and of its lags."""
    sizes = nodes.add("Abs", [nodes.add("Concat", [now, before], f"{name}.all", axis=2)], f"{name}.sizes")
    shares = nodes.constant(f"{name}.shares", np.full((lags + 1, 1), 1 / (lags + 1)))
    mean = nodes.add("MatMul", [sizes, shares], f"{name}.mean")  # a ReduceMean's last bit depends on the batch
    return nodes.add("Max", [mean, nodes.constant(f"{name}.least", least)], name)


def share(nodes: Nodes, name: str, of: str) -> str:
    """How far it is above or below the level, in units of it."""
    divided = nodes.add("Div", [name, of], f"{name}.divided")
    return nodes.add("Sub", [divided, nodes.constant(f"{name}.one", 1.0)], f"{name}.share")


def earlier(nodes: Nodes, encoding: Encoding, source: str, name: str) -> None:
    """The values 1 to L steps before; at the first row all are its own.

    The state is the last L values, the newest first; L + 1 where two rows may be of one step.
    """
    count, kept, body = encoding.lags, encoding.lags + bool(encoding.clock), Nodes(f"{name}.")
    before = moved(body, count, name) if encoding.clock else "past"
    fresh = body.add("Less", ["begun", body.constant(f"{name}.half", 0.5)], f"{name}.fresh")
    body.add("Where", [fresh, "now", before], "lags_now")
    said = {"from": 0, "to": kept - 1, "along": 1}
    cut = [body.constant(f"{name}.{key}", [value], np.int64) for key, value in said.items()]
    body.add("Concat", ["now", body.add("Slice", ["lags_now", *cut], f"{name}.kept")], "past_next", axis=1)
    nought = body.add("Mul", ["begun", body.constant(f"{name}.zero", 0.0)], f"{name}.nought")
    body.add("Add", [nought, body.constant(f"{name}.one", 1.0)], "begun_next")
    clock = ["elapsed"] if encoding.clock else []
    graph = helper.make_graph(
        body.nodes, f"{name}_body",
        [*values(("past",), kept), *values(("begun", "now"), 1), *values(("wait",) if clock else (), 1)],
        [*values(("past_next",), kept), *values(("begun_next",), 1), *values(("lags_now",), count)], body.constants,
    )  # fmt: skip
    states = [nodes.zeros("x", kept, f"{name}.start"), nodes.zeros("x", 1, f"{name}.none")]
    nodes.scan(f"{name}.scan", graph, states, [source, *clock], [name])


def moved(body: Nodes, count: int, name: str) -> str:
    """The lags in the state, so many steps later as the row comes: the steps of a gap have the last value."""
    up = body.add("Add", ["wait", body.constant(f"{name}.nearest", 0.5)], f"{name}.up")
    order = body.constant(f"{name}.order", np.arange(1, count + 1))
    back = body.add("Sub", [order, body.add("Floor", [up], f"{name}.steps")], f"{name}.back")
    place = body.add("Max", [back, body.constant(f"{name}.first", 0.0)], f"{name}.place")
    whole = body.add("Cast", [place], f"{name}.whole", to=TensorProto.INT64)
    return body.add("GatherElements", ["past", whole], f"{name}.before", axis=1)
