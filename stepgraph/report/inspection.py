"""Makes the report from a graph and the loaded model or the refusal. Pure: loads nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import onnx

from stepgraph.cells import operators
from stepgraph.cells.activations import Activation
from stepgraph.cells.cell import Cell
from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar
from stepgraph.graphs.graph import Graph
from stepgraph.graphs.nodes import subgraphs
from stepgraph.model import LoadedModel
from stepgraph.reading.guess import dims_of
from stepgraph.report import example, ladder, remarks, state_homes
from stepgraph.report.ladder import Rung
from stepgraph.report.report import CellFact, CostFact, PortFact, Report, TraceFact
from stepgraph.rewriting.ports import Port

BATCHES = (1, 16, 64)  # whose cost is reported


def described(file: str, size: int, model: onnx.ModelProto | None) -> Report:
    """The report before the file is loaded; `model` is None if it cannot be read."""
    report = Report(file, served=False, bytes=size)
    if model is None:
        return report
    return replace(
        report,
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None),
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part not in ("", "None")),
        description=next((e.value for e in model.metadata_props if e.key == "tidegate.description"), ""),
    )


_FREE = 2  # axes of an input: those of batch and of time
_UNROLLED = (
    "If it holds a plain RNN: torch's newer exporter writes one out for the length of its example; export it with "
    "torch.onnx.export(..., dynamo=False), which keeps the operator."
)


def refused(report: Report, refusal: ModelRefused, model: onnx.ModelProto | None) -> Report:
    known = _known(model)
    rungs = tuple(_sized(rung, known) for rung in _rungs(model))
    boxes = [(rung.name, rung.box) for rung in rungs if rung.box]
    return replace(
        report,
        reason=str(refusal),
        advice=_advice(model, [name for name, _ in boxes], refusal.node),
        node=refusal.node,
        example=refusal.remedy or (example.lines(model) if model else ()),
        ladder=rungs,
        cells=tuple(
            CellFact(i, name, box.kind, box.input_size, box.hidden_size, (), box.special)
            for i, (name, box) in enumerate(boxes)
        ),
    )


def _advice(model: onnx.ModelProto | None, cells: Sequence[str], refused: str | None) -> str | None:
    if model is None or any(map(subgraphs, model.graph.node)):
        return None
    if cells:
        fixed = all(sum(isinstance(dim, str) for dim in dims_of(info)) < _FREE for info in model.graph.input)
        return _UNROLLED if fixed and refused not in cells and _by_newer_torch(model) else None
    stateless = "If nothing in it remembers, it needs no sequences: any server for ONNX files will do for it."
    return f"{_UNROLLED} {stateless}" if _by_newer_torch(model) else stateless


def _by_newer_torch(model: onnx.ModelProto) -> bool:
    """Whether torch's newer exporter wrote a file: the older one calls nodes by their modules."""
    return model.producer_name == "pytorch" and not any(node.name.startswith("/") for node in model.graph.node)


def served(report: Report, loaded: LoadedModel, model: onnx.ModelProto | None, fixed: Mapping[str, object]) -> Report:
    """The report of a file that will be served; `fixed` are the inputs that model.toml makes constant."""
    facts, graph, engine = loaded.facts, loaded.graph, loaded.engine
    states = state_homes.states(loaded)
    cells = tuple(_cell(i, cell) for i, cell in enumerate(graph.layers))
    hidden = (state.returned for state in states if state.returned and state.layer is not None)
    return replace(
        report,
        served=True,
        sha256=loaded.sha256,
        ladder=tuple(_sized(rung, cells) for rung in _rungs(model, hidden)),
        cells=cells,
        one_step=facts.one_step,
        inputs=tuple(_port(loaded, "inputs", port) for port in facts.inputs),
        outputs=tuple(_port(loaded, "outputs", port) for port in facts.outputs),
        remarks=(*_remarks(loaded, fixed), *dict.fromkeys(state.unseen for state in states if state.unseen)),
        states=states,
        example=example.of_served(loaded, fixed),
        traces=tuple(_trace(loaded, i, cell) for i, cell in enumerate(graph.layers)),
        proof=loaded.proof,
        state_bytes=loaded.state_bytes,
        costs=tuple(
            CostFact(batch, engine.seconds(batch) * 1e6, engine.seconds(batch) * 1e6 / batch)
            for batch in BATCHES
            if batch <= engine.largest
        ),
    )


def _known(model: onnx.ModelProto | None) -> Sequence[CellFact]:
    """The cells of a file that was not loaded, as far as they can be found, with sizes."""
    try:
        return [_cell(i, found.cell) for i, found in enumerate(operators.find(Graph(model)))] if model else ()
    except Exception:  # noqa: BLE001 # then the drawing has what the nodes say
        return ()


def _sized(rung: Rung, cells: Sequence[CellFact]) -> Rung:
    """The rung of a cell with the sizes that were found when it was loaded."""
    found = next((cell for cell in cells if rung.box and cell.node == rung.name), None)
    if found is None or rung.box is None:
        return rung
    return replace(rung, box=replace(rung.box, input_size=found.input_size, hidden_size=found.hidden_size))


def _cell(layer: int, cell: Cell) -> CellFact:
    special = [] if cell.clip is None else [f"clip {cell.clip:.6g}"]
    given = {
        "peepholes": bool(cell.peepholes),
        "input_forget": cell.input_forget,
        "linear_before_reset": cell.linear_before_reset,
        "8 bits": cell.quantised,
    }
    special += [name for name, is_set in given.items() if is_set]
    functions = tuple(map(_activation, cell.activations))
    return CellFact(layer, cell.node, cell.kind, cell.input_size, cell.hidden_size, functions, tuple(special))


def _activation(function: Activation) -> str:
    given = {"alpha": function.alpha, "beta": function.beta}
    parameters = ", ".join(f"{name} {value:.6g}" for name, value in given.items() if value is not None)
    return f"{function.name} ({parameters})" if parameters else function.name


def _port(loaded: LoadedModel, side: str, port: Port) -> PortFact:
    every_step = port.time is not None or loaded.facts.one_step or side == "outputs"
    return PortFact(port.name, port.dtype.name, port.row, every_step, port.legend)


def _remarks(loaded: LoadedModel, fixed: Mapping[str, object]) -> Iterator[str]:
    for name, value in fixed.items():
        yield f"input '{name}' is fixed to {value} by {sidecar.FILE}: clients do not send it"
    yield from remarks.remarks(loaded)


def _trace(loaded: LoadedModel, layer: int, cell: Cell) -> TraceFact:
    shown = tuple(columns.name for columns in loaded.graph.trace if columns.layer == layer)
    return TraceFact(layer, shown, tuple(gate for gate in cell.gates if gate not in shown))


def _rungs(model: onnx.ModelProto | None, left_out: Iterable[str] = ()) -> tuple[Rung, ...]:
    try:
        return ladder.read(model, frozenset(left_out)) if model else ()
    except Exception:  # noqa: BLE001 # a graph with cycles or holes has no ladder, and is refused in other words
        return ()
