"""`python -m server check FILE`: says in one page what a model file holds and whether it will be served, and why not.

Loads the file as the server would, and looks at what came of it; serves nothing. First the report as a value, then the
page or JSON. Exit status: 0 it will be served, 1 it is refused, 2 there is no such file.
"""

import argparse
import json
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import onnx
from onnx import inliner

from server import branches, ladder, sidecar
from server.activations import Activation
from server.cells import Cell
from server.errors import ModelRefused
from server.ladder import WIDTH, Line, Note, Rung, shortened
from server.loader import load
from server.model import LoadedModel
from server.probe import Port
from server.repository import FILE

BATCHES = (1, 16, 64)  # whose cost is reported
_LABELS = 10  # columns of the page for what a paragraph is about
_TO_ASCII = str.maketrans("─│┌┐└┘├┤┬┴╮╯◀▼", "-|++++++++++<v")


# ---------------------------------------------------------------------------------------------------------- report


@dataclass(frozen=True)
class PortFact:
    """An input or output as a client sees it.

    `row` is its shape for one step; `every_step` is False where it is one value for the whole sequence.
    """

    name: str
    dtype: str
    row: tuple[int, ...]
    every_step: bool
    features: tuple[str, ...]
    units: tuple[str, ...]


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
    output `returned`; or "reset": thrown away after each step. `layer` is None if it is no cell's.
    """

    layer: int | None
    name: str
    row: tuple[int, ...]
    home: str
    given: str | None
    returned: str | None
    start: str  # "zeros" or "values of the file"


@dataclass(frozen=True)
class TraceFact:
    """What a trace shows of a layer, and which of its gates it cannot show."""

    layer: int
    shown: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class ProofFact:
    """The proof's result, as `proof.Proof` has it."""

    max_error: float
    tolerance: float
    steps: int


@dataclass(frozen=True)
class CostFact:
    """What a step of a batch takes, in microseconds."""

    batch: int
    step_us: float
    row_us: float


@dataclass(frozen=True)
class Report:
    """What was found in a file. Of a refused one, what could still be read."""

    file: str
    served: bool
    # why not
    reason: str | None = None
    advice: str | None = None
    nodes: tuple[str, ...] = ()  # labels of those that the reason names
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
    proof: ProofFact | None = None
    state_bytes: int | None = None
    costs: tuple[CostFact, ...] = ()


def check(path: Path) -> Report:
    """The report of a file. Whatever is wrong with the file is in it."""
    model = _read(path)
    report = _of_file(path, model)
    try:
        loaded = load(path, max(BATCHES), 0.0)
    except ModelRefused as refusal:
        return _refused(report, str(refusal), model)
    return _served(report, loaded, model)


def _read(path: Path) -> onnx.ModelProto | None:
    """The graph as the loader sees it, without weights that lie in other files; None if it cannot be read."""
    try:
        model = inliner.inline_local_functions(onnx.load(path, load_external_data=False))
    except Exception:  # noqa: BLE001 # whatever a damaged file makes the library do: the loader says what is wrong
        return None
    if not all(isinstance(text, str) for text in _texts(model)):
        return None  # a damaged file
    try:
        return branches.resolve(sidecar.fix(model, sidecar.read(path).fixed))
    except Exception:  # noqa: BLE001 # then it is shown as it stands
        return model


def _texts(model: onnx.ModelProto) -> Iterator[object]:
    """All names that a report may hold."""
    yield from (model.producer_name, model.producer_version)
    yield from (text for entry in model.metadata_props for text in (entry.key, entry.value))
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from (tensor.name for tensor in graph.initializer)
        for info in (*graph.input, *graph.output):
            yield from (info.name, *(d.dim_param for d in info.type.tensor_type.shape.dim))
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (a.name for a in node.attribute)
            graphs.extend(inner for a in node.attribute for inner in (a.g, *a.graphs) if inner.node)


def _rungs(model: onnx.ModelProto | None, left_out: Iterable[str] = ()) -> tuple[Rung, ...]:
    try:
        return ladder.read(model, frozenset(left_out)) if model else ()
    except Exception:  # noqa: BLE001 # a graph with cycles or holes has no ladder, and is refused in other words
        return ()


def _of_file(path: Path, model: onnx.ModelProto | None) -> Report:
    report = Report(str(path), served=False, bytes=path.stat().st_size)
    if model is None:
        return report
    return replace(
        report,
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        description=next((e.value for e in model.metadata_props if e.key == "tidegate.description"), ""),
    )


def _refused(report: Report, reason: str, model: onnx.ModelProto | None) -> Report:
    rungs = _rungs(model)
    labels = list(dict.fromkeys(node for rung in rungs for word in rung.words for node in word.nodes))
    boxes = [(rung.name, rung.box) for rung in rungs if rung.box]
    return replace(
        report,
        reason=reason,
        advice=_advice(model, bool(boxes)),
        nodes=tuple(node for node in labels if node in reason),
        ladder=rungs,
        cells=tuple(
            CellFact(i, name, box.kind, box.input_size, box.hidden_size, (), box.special)
            for i, (name, box) in enumerate(boxes)
        ),
    )


def _advice(model: onnx.ModelProto | None, cells: bool) -> str | None:
    """What to do about it, where the reason alone does not say."""
    if model is None:
        return "Is it complete, and is it an ONNX file? Export or copy it once more."
    if not cells and not any(a.HasField("g") for node in model.graph.node for a in node.attribute):
        return "If nothing in it remembers, it needs no sequences: any server for ONNX files will do for it."
    return None


def _served(report: Report, loaded: LoadedModel, model: onnx.ModelProto | None) -> Report:
    facts, graph, engine = loaded.facts, loaded.graph, loaded.engine
    states = tuple(_states(loaded, model))
    return replace(
        report,
        served=True,
        sha256=loaded.sha256,
        ladder=_rungs(model, (state.returned for state in states if state.returned and state.layer is not None)),
        cells=tuple(_cell(i, cell) for i, cell in enumerate(graph.layers)),
        one_step=facts.one_step,
        inputs=tuple(_port(loaded, "inputs", port) for port in facts.inputs),
        outputs=tuple(_port(loaded, "outputs", port) for port in facts.outputs),
        remarks=tuple(_remarks(loaded, sidecar.read(Path(report.file)).fixed)),
        states=states,
        traces=tuple(_trace(loaded, i, cell) for i, cell in enumerate(graph.layers)),
        proof=ProofFact(loaded.proof.max_error, loaded.proof.tolerance, loaded.proof.steps),
        state_bytes=loaded.state_bytes,
        costs=tuple(
            CostFact(batch, engine.seconds(batch) * 1e6, engine.seconds(batch) * 1e6 / batch) for batch in BATCHES
        ),
    )


def _cell(layer: int, cell: Cell) -> CellFact:
    special = [] if cell.clip is None else [f"clip {cell.clip:.6g}"]
    given = {
        "peepholes": bool(cell.peepholes),
        "input_forget": cell.input_forget,
        "linear_before_reset": cell.linear_before_reset,
    }
    special += [name for name, is_set in given.items() if is_set]
    functions = tuple(map(_activation, cell.activations))
    return CellFact(layer, _text(cell.node), cell.kind, cell.input_size, cell.hidden_size, functions, tuple(special))


def _text(name: str | bytes) -> str:
    """A name; protobuf hands out bytes where a damaged file holds no UTF-8."""
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _activation(function: Activation) -> str:
    given = {"alpha": function.alpha, "beta": function.beta}
    parameters = ", ".join(f"{name} {value:.6g}" for name, value in given.items() if value is not None)
    return f"{function.name} ({parameters})" if parameters else function.name


def _port(loaded: LoadedModel, side: str, port: Port) -> PortFact:
    every_step = port.time is not None or loaded.facts.one_step or side == "outputs"
    features, units = loaded.legend(side, port.name)
    return PortFact(_text(port.name), port.dtype.name, port.row, every_step, tuple(features), tuple(units))


def _remarks(loaded: LoadedModel, fixed: Mapping[str, object]) -> Iterator[str]:
    for name, value in fixed.items():
        yield f"input '{name}' is fixed to {value} by {sidecar.FILE}: nobody is asked for it"
    for port in loaded.facts.starts:
        yield f"input '{port.name}' starts cells and no output returns it: nobody is asked for it, it begins as zeros"
    for port in loaded.facts.lengths:
        yield f"input '{port.name}' says how long sequences are: nobody is asked for it"


def _states(loaded: LoadedModel, model: onnx.ModelProto | None) -> Iterator[StateFact]:
    """The states of the cells, then those that the interface carries and that are no cell's."""
    facts, graph = loaded.facts, loaded.graph
    kept = {(columns.layer, columns.name): columns for columns in graph.state}
    nodes = {ladder.name_of(node): node for node in model.graph.node} if model else {}
    carried = {c.given.name: c for c in facts.carried}
    of_cells = set[str]()
    for i, cell in enumerate(graph.layers):
        for k, name in enumerate(cell.states):
            row = (cell.hidden_size,)
            columns = kept.get((i, name))
            made_of = _initial(model, nodes.get(cell.node), k) & carried.keys()
            if columns is not None:
                start = "values of the file" if graph.initial[columns.span].any() else "zeros"
                yield StateFact(i, name, row, "server", None, None, start)
            elif made_of:
                of_cells |= made_of
                pair = carried[min(made_of)]
                yield StateFact(i, name, row, "interface", pair.given.name, pair.returned.name, "zeros")
            else:
                yield StateFact(i, name, row, "reset", None, None, _reset_to(loaded, i, k))
    for name, pair in carried.items():
        if name not in of_cells:
            yield StateFact(None, name, pair.given.row, "interface", name, pair.returned.name, "zeros")


def _reset_to(loaded: LoadedModel, layer: int, index: int) -> str:
    row = loaded.facts.initial[layer][index]
    return "zeros" if row is None or not row.any() else "values of the file"


def _initial(model: onnx.ModelProto | None, node: onnx.NodeProto | None, index: int) -> set[str]:
    """The inputs of the file that a cell's state number `index` begins with."""
    if model is None or node is None or len(node.input) <= 5 + index:
        return set()
    return ladder.sources(model, node.input[5 + index])


def _trace(loaded: LoadedModel, layer: int, cell: Cell) -> TraceFact:
    shown = tuple(columns.name for columns in loaded.graph.trace if columns.layer == layer)
    return TraceFact(layer, shown, tuple(gate for gate in cell.gates if gate not in shown))


# ------------------------------------------------------------------------------------------------------------ page


def page(report: Report) -> list[Line]:
    """The report for people, in lines of 80 columns."""
    verdict = "WILL BE SERVED" if report.served else "REFUSED"
    name = shortened(report.file, WIDTH - len(verdict) - 2)
    lines = [
        Line(name.ljust(WIDTH - len(verdict)) + verdict, "good" if report.served else "bad"),
        Line("─" * WIDTH),
    ]
    for about, text, style in _paragraphs(report):
        lines += _paragraph(about, text, style)
    if report.ladder:
        lines += [Line(""), *ladder.draw(report.ladder, _notes(report), _marks(report))]
    return lines


def _paragraphs(report: Report) -> Iterator[tuple[str, str, str]]:
    """What each is about, its text, and its style."""
    if report.reason is not None:
        yield "why", _sentence(report.reason), "bad"
    if report.advice is not None:
        yield "what to do", report.advice, ""
    if report.description:
        yield "about", report.description, ""
    yield "file", _file(report), ""
    yield from (("step" if i == 0 else "", text, "") for i, text in enumerate(_step(report)))
    for about, ports in (("inputs", report.inputs), ("outputs", report.outputs)):
        yield from ((about if i == 0 else "", _port_text(port), "") for i, port in enumerate(ports))
    yield from (("cells" if i == 0 else "", _cell_text(cell), "") for i, cell in enumerate(report.cells))
    yield from (("states" if i == 0 else "", text, "") for i, text in enumerate(_states_text(report)))
    yield from (("trace" if i == 0 else "", _trace_text(trace), "") for i, trace in enumerate(report.traces))
    yield from (("note", remark, "") for remark in report.remarks)
    if report.proof is not None:
        yield "proof", _proof_text(report.proof), ""
    if report.state_bytes is not None:
        yield "memory", f"{_size(report.state_bytes)} of state for each sequence", ""
    if report.costs:
        yield "time", _cost_text(report.costs), ""


def _file(report: Report) -> str:
    parts = [_size(report.bytes)]
    parts += [f"ONNX opset {report.opset}"] if report.opset else []
    parts += [f"written by {report.producer}"] if report.producer else []
    return ", ".join(parts)


def _step(report: Report) -> Iterator[str]:
    if not report.served:
        return
    given = _and([f"one row of {port.name}" for port in report.inputs if port.every_step])
    yield f"{given} in, one row of {_and([port.name for port in report.outputs])} out"
    if report.one_step:
        yield "the file itself takes one step at a time"
    else:
        yield "the file takes whole sequences; the server cuts it to one step"


def _port_text(port: PortFact) -> str:
    units = [*port.units, *[""] * len(port.features)]
    features = [f"{name} [{unit}]" if unit else name for name, unit in zip(port.features, units, strict=False)]
    once = "" if port.every_step else ", one for the whole sequence"
    return f"{port.name}  {list(port.row)} {port.dtype}{once}" + (f": {', '.join(features)}" if features else "")


def _cell_text(cell: CellFact) -> str:
    sizes = f"{'?' if cell.input_size is None else cell.input_size} -> {cell.hidden_size or '?'}"
    functions = f"({', '.join(cell.activations)})" if cell.activations else ""
    more = ", ".join((*cell.special, f"node {cell.node}"))
    return "  ".join(filter(None, (str(cell.layer), f"{cell.kind} {sizes}", functions, more)))


def _states_text(report: Report) -> Iterator[str]:
    for (layer, home), states in groupby(report.states, lambda state: (state.layer, _home(state))):
        which = "" if layer is None else f"{layer}  "
        yield f"{which}{', '.join(f'{s.name} {list(s.row)}' for s in states)}: {home}"


def _home(state: StateFact) -> str:
    if state.home == "server":
        return f"kept by the server, starts from {state.start}"
    if state.home == "interface":
        return f"output {state.returned} goes back into input {state.given}, starts from {state.start}"
    return f"thrown away: every step starts from {state.start}, as in the file"


def _trace_text(trace: TraceFact) -> str:
    unseen = f"; not to be seen: {', '.join(trace.unseen)}" if trace.unseen else ""
    return f"{trace.layer}  {', '.join(trace.shown) or 'nothing'}{unseen}"


def _proof_text(proof: ProofFact) -> str:
    return (
        f"agrees with the original file in all of {proof.steps} steps: largest error "
        f"{f'{proof.max_error:.1e}' if proof.max_error else 0}, at most {proof.tolerance:.0e} is accepted"
    )


def _cost_text(costs: Sequence[CostFact]) -> str:
    alone, *batches = costs
    rest = ", ".join(f"{cost.row_us:.3g} us in a batch of {cost.batch}" for cost in batches)
    return f"{alone.step_us:.3g} us a step alone, {rest} (computing only, on this machine)"


def _notes(report: Report) -> dict[str, Note]:
    """What the ladder says beside inputs, outputs and cells."""
    notes = {port.name: Note((f"{list(port.row)} {port.dtype}",)) for port in (*report.inputs, *report.outputs)}
    for cell in report.cells:
        states = [state for state in report.states if state.layer == cell.layer]
        lines = []
        for home, alike in groupby(states, _beside):
            names = ", ".join(f"{state.name} {list(state.row)}" for state in alike)
            lines += [f"{names}: {home}"] if "->" in home else [names, home]
        if states:
            layer = [f"layer {cell.layer}"] if len(report.cells) > 1 else []
            notes[cell.node] = Note((*layer, *lines), loop=any(state.home != "reset" for state in states))
    for state in report.states:
        if state.layer is None and state.given and state.returned:
            notes[state.given] = Note((f"{list(state.row)} state: {state.returned} of the step before",))
            notes[state.returned] = Note((f"{list(state.row)} state: {state.given} of the next step",))
    return notes


def _beside(state: StateFact) -> str:
    if state.home == "interface":
        return f"{shortened(str(state.returned), 14)} -> {shortened(str(state.given), 14)}"
    return "kept by the server" if state.home == "server" else "thrown away after each step"


def _marks(report: Report) -> dict[str, str]:
    return dict.fromkeys(report.nodes, "refused")


def _paragraph(about: str, text: str, style: str) -> Iterator[Line]:
    room = WIDTH - _LABELS - 1
    parts = textwrap.wrap(_printable(text), room, break_on_hyphens=False) or [""]
    for i, part in enumerate(parts):
        yield Line(f"{about if i == 0 else '':{_LABELS}} {part}", "bad" if style == "bad" else "")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "nothing"


def _size(count: int) -> str:
    power = min(int(math.log(count, 1024)), 3) if count else 0
    return f"{count / 1024**power:.{1 if power else 0}f} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


# --------------------------------------------------------------------------------------------------------- command


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server check",
        description="Says what a model file holds, and whether it will be served.",
        epilog="Exit status: 0 it will be served, 1 it (or one of several) is refused, 2 there is no such file.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=f"an ONNX file, or a folder of NAME/VERSION/{FILE}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    options = parser.parse_args(list(arguments))
    try:
        files = _files(options.file)
    except OSError as error:
        parser.error(f"{options.file}: {error.strerror or error}")
    if not files:
        parser.error(f"there is no VERSION/{FILE} or NAME/VERSION/{FILE} in the folder {options.file}")
    try:
        return _one(files[0], options.json, environment) if len(files) == 1 else _several(files, options.json)
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 # a fault of ours: in a sentence, and not the file's refusal
        print(f"the check itself failed with {type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _files(path: Path) -> list[Path]:
    """The file itself, or the models of a folder: of one version, of one name, or of a repository."""
    if not path.is_dir():
        path.open("rb").close()
        return [path]
    patterns = (FILE, f"*/{FILE}", f"*/*/{FILE}")
    return next((found for found in (sorted(path.glob(pattern)) for pattern in patterns) if found), [])


def _one(path: Path, as_json: bool, environment: Mapping[str, str]) -> int:
    report = check(path)
    if as_json:
        print(json.dumps(asdict(report), indent=2), flush=True)
    else:
        _print(page(report), environment)
    return 0 if report.served else 1


def _several(paths: Sequence[Path], as_json: bool) -> int:
    reports = []
    for path in paths:
        reports.append(check(path))
        if not as_json:
            _print([_summary(reports[-1])], os.environ)
    served = sum(report.served for report in reports)
    if as_json:
        print(json.dumps({"served": served, "models": [asdict(report) for report in reports]}, indent=2), flush=True)
    else:
        print(f"{served} of {len(reports)} will be served", flush=True)
    return 0 if served == len(reports) else 1


def _summary(report: Report) -> Line:
    name = str(Path(report.file).parent)
    if not report.served:
        return Line(f"refused  {name}: {report.reason}", "bad")
    kinds = ", ".join(f"{cell.kind} {cell.input_size} -> {cell.hidden_size}" for cell in report.cells)
    return Line(f"served   {name}: {kinds}")


def _print(lines: Iterable[Line], environment: Mapping[str, str]) -> None:
    """Writes lines as the terminal or file behind stdout can show them."""
    encoding = sys.stdout.encoding or "ascii"
    colours = {"good": "1;32", "bad": "31"} if sys.stdout.isatty() and not environment.get("NO_COLOR") else {}
    for line in lines:
        text = _printable(line.text)
        if not _encodes("─◀", encoding):
            text = text.translate(_TO_ASCII)
        text = text.encode(encoding, "replace").decode(encoding)
        print(f"\x1b[{colours[line.style]}m{text}\x1b[0m" if line.style in colours else text)
    sys.stdout.flush()


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """A file's names may hold anything, also what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
