"""What a sequence has to answer: a plain list, made one step after the other, by itself, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from server.streams.trace import Selection, TracePlan, plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepgraph.model import LoadedModel


class Truth:
    """One sequence that begins after `start` steps with a state [W], or with the model's initial one."""

    def __init__(
        self, versions: Mapping[int, LoadedModel], version: int, start: int = 0, state: np.ndarray | None = None
    ) -> None:
        self._versions = versions
        self._plans = {number: _whole(loaded) for number, loaded in versions.items()}
        self.start = start
        self.rows: list[np.ndarray] = []
        self.version_at: list[int] = []  # of each step
        self.version = version  # of the next one
        self.states = [versions[version].graph.initial if state is None else state]
        self.outputs: list[bytes] = []
        self.traces: list[bytes] = []

    @property
    def end(self) -> int:
        """The number of the next step."""
        return self.start + len(self.rows)

    def take(self, row: np.ndarray) -> None:
        """One more step."""
        loaded = self._versions[self.version]
        result = loaded.engine.run({"x": row[None, None]}, self.states[-1][None], trace=True)
        trace = self._plans[self.version].cut(result.trace[0], np.zeros(1))
        self.rows.append(row)
        self.version_at.append(self.version)
        self.states.append(result.state[0].copy())
        self.outputs.append(result.outputs["y"][0, 0].tobytes())
        self.traces.append(trace[0].tobytes())

    def cut(self, step: int) -> None:
        """Back to a step, with the version that it has now."""
        at = step - self.start
        for each in (self.rows, self.version_at, self.outputs, self.traces):
            del each[at:]
        del self.states[at + 1 :]

    def copy(self) -> Truth:
        """The same, for somebody else to go on with."""
        other = Truth(self._versions, self.version, self.start, self.states[0])
        other.rows, other.version_at, other.states = list(self.rows), list(self.version_at), list(self.states)
        other.outputs, other.traces = list(self.outputs), list(self.traces)
        return other

    def fork(self) -> Truth:
        """Another one that begins where this one stands."""
        return Truth(self._versions, self.version, self.end, self.states[-1])


def _whole(loaded: LoadedModel) -> TracePlan:
    return plan(Selection(), loaded.graph)
