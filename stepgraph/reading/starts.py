"""What a new sequence begins with in states that the file takes in: zeros, or what model.toml says. Pure numpy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.rewriting.ports import Facts, Port


def put(port: Port, start: Mapping[str, Any]) -> Port:
    """The port of a state with the numbers that it begins with, if they are said and fit."""
    row = _row(port, start[port.name]) if port.name in start else None
    return port if row is None else replace(port, start=tuple(row.ravel().tolist()))


def check(facts: Facts, start: Mapping[str, Any]) -> None:
    """Raises ModelRefused: model.toml says under [start] what does not fit, or of no state that the file takes in."""
    ports = {port.name: port for port in (*(carried.given for carried in facts.carried), *facts.starts)}
    for name, value in start.items():
        if name not in ports:
            known = f"it takes in {', '.join(ports)}" if ports else "the file itself has all that its states begin with"
            raise ModelRefused(
                f"{sidecar.FILE} says under [start] what '{name}' begins with, and no state is taken in "
                f"by that name; {known}"
            )
        if _row(ports[name], value) is None:
            raise ModelRefused(
                f"{sidecar.FILE} says under [start] that '{name}' begins with {value!r:.60}; expected one finite "
                f"number, or numbers in its shape {list(ports[name].row)}, of {ports[name].dtype}"
            )


def _row(port: Port, value: object) -> np.ndarray | None:
    """The value in the shape of a row and in its type; None if it does not fit."""
    try:
        given = np.asarray(value, np.float64)
        if given.ndim and given.size == np.prod(port.row):
            given = given.reshape(port.row)
        row = np.broadcast_to(given, port.row).astype(port.dtype) if given.ndim in (0, len(port.row)) else None
    except (TypeError, ValueError, OverflowError):
        return None
    if row is None or not np.isfinite(row).all():
        return None
    return row if port.dtype.kind == "f" or (row == given).all() else None
