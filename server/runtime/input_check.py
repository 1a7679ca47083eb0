"""Checks the inputs of a message against the ports of a model, before they may touch any state."""

from collections.abc import Mapping, Sequence

import numpy as np

from server.errors import BadInput, Reason
from stepgraph.rewriting.ports import Port
from tidegate.columns import Limits

Named = Sequence[tuple[str, np.ndarray]]


class InputCheck:
    """Checks the inputs of one model."""

    def __init__(self, ports: Sequence[Port]) -> None:
        self._ports = ports
        self._only = ports[0] if len(ports) == 1 else None
        self._limited = [(port, Limits(port.name, port.row, port.dtype, port.legend)) for port in ports]
        self._fits = self._limited[0][1].hold
        self._one_row = (ports[0].row, (1, *ports[0].row))
        self._one_step = (1, 1, *ports[0].row)

    def steps(self, given: Named) -> dict[str, np.ndarray]:
        """The inputs of steps of one sequence by name, each [N, 1, ...row]; a single step may lack the axis N.

        Raises:
            BadInput: a name, type, shape or value that the model does not take, or inputs of unequal length.
        """
        only = self._only
        if only is not None and len(given) == 1:  # nearly every step: one row of one input
            name, x = given[0]
            if x.shape in self._one_row and x.dtype == only.dtype and name in ("", only.name) and self._fits(x):
                return {only.name: x.reshape(self._one_step)}
        return {name: x[:, np.newaxis] for name, x in self._check(given, None).items()}

    def count(self, given: Named) -> int:
        """How many steps these inputs of one sequence are. Their numbers are not looked at. Raises as `steps`."""
        return len(next(iter(self._check(given, None, numbers=False).values())))

    def fleet(self, given: Named, rows: int) -> dict[str, np.ndarray]:
        """The inputs of one step of `rows` sequences by name, each [1, rows, ...row]. Raises as `steps`."""
        return {name: x[np.newaxis] for name, x in self._check(given, rows).items()}

    def singles(self, given: Named, rows: int) -> dict[str, np.ndarray]:
        """Likewise, of steps that came each by itself: [rows, ...row], or [rows, 1, ...row]."""
        apart = len(self._ports[0].row) + 2  # axes
        return self.fleet([(name, x[:, 0] if x.ndim == apart and x.shape[1] == 1 else x) for name, x in given], rows)

    def _check(self, given: Named, rows: int | None, *, numbers: bool = True) -> dict[str, np.ndarray]:
        named = by_name(self._ports, given)
        checked = {port.name: _shaped(port, named[port.name], rows) for port in self._ports}
        if len(checked) > 1:
            _check_lengths(checked)
        if numbers:
            for port, limits in self._limited:
                _check_numbers(checked[port.name], limits)
        return checked


def by_name(ports: Sequence[Port], given: Named) -> Mapping[str, np.ndarray]:
    """The inputs of a model; the only one of a model may come without its name. Raises BadInput: others came."""
    if len(ports) == len(given) == 1 and given[0][0] in ("", ports[0].name):
        return {ports[0].name: given[0][1]}
    named, names = dict(given), {port.name for port in ports}
    if len(named) != len(given) or named.keys() != names:
        got, expected = (", ".join(map(repr, each)) for each in ([name for name, _ in given], sorted(names)))
        raise BadInput(f"inputs are {got or 'none'}; this model takes {expected}", Reason.WRONG_NAME)
    return named


def _shaped(port: Port, x: np.ndarray, rows: int | None) -> np.ndarray:
    if x.dtype != port.dtype:
        raise BadInput(f"input '{port.name}' is {x.dtype}; expected {port.dtype}", Reason.WRONG_TYPE)
    if x.shape == port.row and rows is None:
        x = x[np.newaxis]
    if x.shape[1:] != port.row or x.ndim != len(port.row) + 1 or not len(x) or (rows is not None and len(x) != rows):
        leading = "steps" if rows is None else str(rows)
        expected = f"[{', '.join([leading, *map(str, port.row)])}]{', with at least one step' * (not x.size)}"
        raise BadInput(f"input '{port.name}' has shape {list(x.shape)}; expected {expected}", Reason.WRONG_SHAPE)
    return x


def _check_numbers(x: np.ndarray, limits: Limits) -> None:
    if not limits.hold(x):
        fault = limits.fault(x)
        raise BadInput(fault.sentence, Reason.OUT_OF_RANGE if fault.finite else Reason.NOT_FINITE)


def _check_lengths(inputs: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(x) for name, x in inputs.items()}
    if len(set(lengths.values())) > 1:
        raise BadInput(f"inputs have different numbers of rows: {lengths}", Reason.WRONG_SHAPE)
