"""A state as a value: one row of a step graph's states, as parts by layer and name. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from server.errors import WrongState

if TYPE_CHECKING:
    from server.runtime.served_model import ServedModel
    from stepgraph.rewriting.stepgraph import StepGraph

LATEST = 2**52  # the last step at which a sequence can begin: a store may count in doubles, exact up to 2^53


@dataclass(frozen=True, eq=False)
class Part:
    """One array [H] of a state. `layer` is None for a state of the file's interface, which has its input's name."""

    layer: int | None
    name: str
    value: np.ndarray


def apart(graph: StepGraph, row: np.ndarray) -> list[Part]:
    """The parts of one row [W]."""
    return [Part(columns.layer, columns.name, row[columns.span].copy()) for columns in graph.state]


def together(graph: StepGraph, parts: Iterable[Part]) -> np.ndarray:
    """The row [W] that these parts make.

    Raises:
        WrongState: one is missing, unknown, given twice, or of another type or size; or it holds NaN or Inf.
    """
    given: dict[tuple[int | None, str], np.ndarray] = {}
    known = {(columns.layer, columns.name): columns for columns in graph.state}
    for part in parts:
        key = part.layer, part.name
        if key not in known:
            raise WrongState(f"the state has {_label(*key)}; this model keeps {_list(known)}")
        if key in given:
            raise WrongState(f"the state has {_label(*key)} twice")
        given[key] = part.value
    missing = [key for key in known if key not in given]
    if missing:
        raise WrongState(f"the state lacks {_list(missing)}")
    row = np.empty_like(graph.initial)
    for key, columns in known.items():
        value = given[key]
        if value.dtype != row.dtype or value.size != columns.size:
            raise WrongState(
                f"{_label(*key)} is {value.dtype} of {value.size} elements; expected {row.dtype} of {columns.size}"
            )
        if not np.isfinite(value).all():
            raise WrongState(f"{_label(*key)} holds a number that is not finite")
        row[columns.span] = value.ravel()
    return row


def alike(one: StepGraph, other: StepGraph) -> bool:
    """Whether a row of one is a row of the other: the same names, types and sizes in the same places."""
    return one.state == other.state and one.dtype == other.dtype


def fitting(sources: Iterable[ServedModel], target: ServedModel, *, inputs: bool = False) -> ServedModel:
    """The target. Raises WrongState: sequences of a source cannot go on with it, because it keeps another state.

    `inputs`: or takes other inputs, where clients do not know that they go on with it.
    """
    for source in sources:
        if not alike(source.graph, target.graph):
            raise WrongState(
                f"version {target.version} of '{target.name}' keeps another state than version {source.version}, so a "
                "sequence cannot go on with it"
            )
        if inputs and _taken(source.graph) != _taken(target.graph):
            raise WrongState(f"version {target.version} of '{target.name}' takes other inputs than {source.version}")
    return target


def _taken(graph: StepGraph) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    return [(port.name, port.dtype, tuple(port.row)) for port in graph.inputs]


def _label(layer: int | None, name: str) -> str:
    return f"'{name}'" if layer is None else f"'{name}' of layer {layer}"


def _list(keys: Iterable[tuple[int | None, str]]) -> str:
    return ", ".join(_label(*key) for key in keys) or "nothing"
