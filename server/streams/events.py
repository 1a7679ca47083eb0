"""What a stream tells its client. The edge turns these into messages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from server.errors import TidegateError
from server.runtime.state_value import Part
from stepgraph.rewriting.columns import Columns


@dataclass(frozen=True, slots=True)
class Opened:
    """Sequences are open under the handles from `handle` on."""

    handle: int
    ids: Sequence[str]
    model: str
    version: int
    columns: tuple[Columns, ...]
    token: str = ""  # resumes them; empty if they are not kept
    steps: Sequence[int] = ()  # the step that each takes next; empty: all of them 0


@dataclass(frozen=True, eq=False)
class Form:
    """How the answers of sequences are written."""

    names: tuple[str, ...]  # of the outputs
    values: bool  # as numbers instead of bytes
    bundle: bool  # several answers may share a message


def _own(array: np.ndarray) -> np.ndarray:
    whole = array.base
    return array if whole is None or getattr(whole, "nbytes", 0) < 2 * array.nbytes else array.copy()


@dataclass(slots=True, eq=False)
class Answered:
    """Steps of one sequence: `outputs` [N, ...row] in the order of the form's names, `trace` [traced, columns] or None.

    `size` is what the answer was counted as in the stream's window, in bytes; `checkpointed` how many steps are safe.
    """

    handle: int
    first_step: int
    form: Form
    outputs: Sequence[np.ndarray]
    trace: np.ndarray | None
    size: int
    checkpointed: int = 0

    def kept(self) -> Self:
        """For an answer that will wait: its rows do not keep the arrays of a whole batch."""
        self.outputs, self.trace = list(map(_own, self.outputs)), None if self.trace is None else _own(self.trace)
        return self


@dataclass(slots=True, eq=False)
class FleetAnswered:
    """One step of each of many sequences; rows in the order of `handles` [N] and `steps` [N]. Else as Answered."""

    handles: np.ndarray
    steps: np.ndarray
    form: Form
    outputs: Sequence[np.ndarray]
    trace: np.ndarray | None
    size: int
    checkpointed: np.ndarray  # [N]

    def kept(self) -> Self:
        """As Answered."""
        self.outputs, self.trace = list(map(_own, self.outputs)), None if self.trace is None else _own(self.trace)
        return self


class SeveralAnswered(FleetAnswered):
    """Likewise, of steps that came as requests of their own: each has an answer of its own."""

    __slots__ = ()

    def parts(self, rows: int) -> Iterator["SeveralAnswered"]:
        """The same, so many answers at a time."""
        size = self.size // len(self.handles)
        for at in range(0, len(self.handles), rows):
            some = slice(at, at + rows)
            trace, handles = None if self.trace is None else self.trace[some], self.handles[some]
            outputs, steps, safe = [x[some] for x in self.outputs], self.steps[some], self.checkpointed[some]
            yield SeveralAnswered(handles, steps, self.form, outputs, trace, size * len(handles), safe)

    def apart(self) -> Iterator[Answered]:
        """Those answers."""
        size, rows = self.size // len(self.handles), zip(self.handles.tolist(), self.steps.tolist(), strict=True)
        for at, (handle, step) in enumerate(rows):
            outputs = [x[at : at + 1] for x in self.outputs]
            trace = None if self.trace is None else self.trace[at : at + 1]
            yield Answered(handle, step, self.form, outputs, trace, size, self.checkpointed.item(at))


@dataclass(frozen=True, slots=True)
class Closed:
    """Sequences were closed after so many steps each."""

    handle: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """A request was refused, or failed. `expected` has a step for each handle, or is empty; of many both are arrays."""

    error: TidegateError
    handles: Sequence[int] | np.ndarray = ()
    first_step: int = 0
    expected: Sequence[int] | np.ndarray = ()
    request: str = ""  # its kind, as the contract names it; "": it could not be parsed

    def __post_init__(self) -> None:
        """Drops the traceback, which refers to the request and would be kept until the client reads."""
        self.error.__traceback__ = self.error.__cause__ = self.error.__context__ = None


@dataclass(frozen=True, slots=True, eq=False)
class Checkpointed:
    """New checkpoints, after so many steps, of sequences that no answer is under way for. [N] each."""

    handles: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True, slots=True)
class Released:
    """Sequences that their client did not close have left this stream; `error` says why."""

    handles: tuple[int, ...]
    error: TidegateError


@dataclass(frozen=True, slots=True)
class StateRead:
    """The state of a sequence after `step` steps."""

    handle: int
    model: str
    version: int
    step: int
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Rewound:
    """A sequence went back, and takes this step next."""

    handle: int
    step: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A sequence goes on with another version of its model, from this step on."""

    handle: int
    version: int
    step: int
    columns: tuple[Columns, ...]


Event = Opened | Answered | FleetAnswered | Closed | Failed | Checkpointed | Released | StateRead | Rewound | Moved
