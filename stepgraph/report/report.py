"""The report of a model file, as a value."""

from dataclasses import dataclass

from stepgraph.proving.proof import Proof
from stepgraph.report.ladder import Rung
from tidegate.columns import Legend


@dataclass(frozen=True)
class PortFact:
    """An input or output as a client sees it.

    `row` is its shape for one step; `every_step` is False where it is one value for the whole sequence.
    """

    name: str
    dtype: str
    row: tuple[int, ...]
    every_step: bool
    legend: Legend


@dataclass(frozen=True)
class CellFact:
    """A recurrent operator; a size is None where a refused file does not say it plainly."""

    layer: int
    node: str
    kind: str
    input_size: int | None
    hidden_size: int | None
    activations: tuple[str, ...]
    special: tuple[str, ...]  # attributes that differ from the operator's defaults


@dataclass(frozen=True)
class StateFact:
    """A state and where it lives.

    `home` is "server": kept by the server; "interface": the file takes it in as input `given` and hands it out as
    output `returned`; "loop": `node`, a `Loop` or `Scan`, carries it; "ring": the last elements that `node` looks back
    at; or "reset": thrown away after each step. `layer` is None for a state of no cell; `unseen` says why it has no
    gates to show, "" if it has.
    """

    layer: int | None
    name: str
    row: tuple[int, ...]
    home: str
    given: str | None
    returned: str | None
    start: str  # "zeros", "values of the file" or what computes it
    node: str | None = None
    unseen: str = ""


@dataclass(frozen=True)
class TraceFact:
    """What a trace shows of a layer, and which of its gates it cannot show."""

    layer: int
    shown: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class CostFact:
    """What a step of a batch takes, in microseconds."""

    batch: int
    step_us: float
    row_us: float


@dataclass(frozen=True)
class Report:
    """What was found in a file; of a refused file, what could be read."""

    file: str
    served: bool
    # why not
    reason: str | None = None
    advice: str | None = None
    node: str | None = None  # the node at fault: its name, or its first output's
    example: tuple[str, ...] = ()  # lines for a model.toml, with the file's own names
    # the file
    bytes: int = 0
    opset: int | None = None
    producer: str = ""
    sha256: str | None = None
    description: str = ""
    ladder: tuple[Rung, ...] = ()
    cells: tuple[CellFact, ...] = ()
    # what only a file that will be served says
    one_step: bool | None = None  # whether the file itself takes one step at a time
    inputs: tuple[PortFact, ...] = ()
    outputs: tuple[PortFact, ...] = ()
    remarks: tuple[str, ...] = ()
    states: tuple[StateFact, ...] = ()
    traces: tuple[TraceFact, ...] = ()
    proof: Proof | None = None
    state_bytes: int | None = None
    costs: tuple[CostFact, ...] = ()
