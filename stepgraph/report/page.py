"""A report as a page of 80 columns: paragraphs first, then the ladder."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal

from stepgraph.proving.proof import ROUNDING, Proof
from stepgraph.report import drawing
from stepgraph.report.drawing import WIDTH, Line, Note, shortened
from stepgraph.report.report import CellFact, CostFact, PortFact, Report, StateFact, TraceFact
from tidegate.columns import Column
from tidegate.columns.words import notes, words

_LABELS = 10  # columns for what a paragraph is about


def lines(report: Report) -> list[Line]:
    verdict = "WILL BE SERVED" if report.served else "REFUSED"
    name = shortened(report.file, WIDTH - len(verdict) - 2)
    found = [Line(name.ljust(WIDTH - len(verdict)) + verdict, "good" if report.served else "bad"), Line("─" * WIDTH)]
    for about, texts in _sections(report):
        for i, text in enumerate(texts):
            found += _paragraph(about if i == 0 else "", text, "bad" if about == "why" else "")
    if report.ladder:
        found += [
            Line(""),
            *drawing.draw(report.ladder, _notes(report), {report.node: "refused"} if report.node else {}),
        ]
    return found


def _sections(report: Report) -> Iterator[tuple[str, Iterable[str]]]:
    """The paragraphs of the page, by their titles."""
    yield "why", [] if report.reason is None else [_sentence(report.reason)]
    yield "what to do", filter(None, [report.advice])
    yield "model.toml", () if report.served else report.example
    yield "about", filter(None, [report.description])
    yield "file", [_file(report)]
    yield "step", _step(report)
    yield "inputs", map(_port_text, report.inputs)
    yield "outputs", map(_port_text, report.outputs)
    yield "cells", map(_cell_text, report.cells)
    yield "states", _states_text(report)
    yield "trace", map(_trace_text, report.traces)
    yield from (("note", [remark]) for remark in report.remarks)
    yield "proof", _proof_text(report.proof) if report.proof else ()
    memory = [] if report.state_bytes is None else [f"{_size(report.state_bytes)} of state for each sequence"]
    yield "memory", memory
    yield "time", _cost_text(report.costs)
    yield "model.toml", report.example if report.served else ()


def _file(report: Report) -> str:
    written = [f"ONNX opset {report.opset}"] if report.opset else []
    written += [f"written by {report.producer}"] if report.producer else []
    return ", ".join([_size(report.bytes), *written])


def _step(report: Report) -> Iterator[str]:
    if not report.served:
        return
    given = _and([f"one row of {port.name}" for port in report.inputs if port.every_step])
    yield f"{given} in, one row of {_and([port.name for port in report.outputs])} out"
    whole = "the file takes whole sequences; the server cuts it to one step"
    yield "the file itself takes one step at a time" if report.one_step else whole


def _port_text(port: PortFact) -> str:
    features = list(map(_column_text, port.legend.columns))
    once = "" if port.every_step else ", one for the whole sequence"
    return (
        f"{port.name}  {list(port.row)} {port.dtype}{once}"
        + (f": {', '.join(features)}" if features else "")
        + "".join(f"; {note}" for note in notes(port.legend))
    )


def _column_text(column: Column) -> str:
    """Its name and unit, and what else is said of it."""
    name, more = f"{column.name} [{column.unit}]" if column.unit else column.name, words(column)
    return f"{name} ({more})" if more else name


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
    if state.home == "loop":
        return f"carried by {state.node}, starts from {state.start}"
    if state.home == "ring":
        return f"the last elements that {state.node} looks back at, starts from {state.start}"
    return f"thrown away: every step starts from {state.start}, as in the file"


def _trace_text(trace: TraceFact) -> str:
    unseen = f"; not to be seen: {', '.join(trace.unseen)}" if trace.unseen else ""
    return f"{trace.layer}  {', '.join(trace.shown) or 'nothing'}{unseen}"


def _proof_text(proof: Proof) -> Iterator[str]:
    if proof.unread:
        yield f"not proved for every length and value, as {proof.unread}"
    else:
        yield "proved for every length and value, by reading: each step is computed from itself and the states"
    most = "and more where its own last digits lead as far" if proof.by_rounding else "is accepted"
    text = (
        f"agrees with the original file in all of {proof.steps} steps: largest error {_error(proof.max_error)}, "
        f"at most {proof.tolerance:.0e} {most}"
    )
    if proof.rounding is None:
        yield f"tried: {'before its weights were made narrower, ' if proof.narrowed else ''}{text}"
    else:
        rounded = f"largest error {_error(proof.rounding)}, at most {ROUNDING:g} is accepted"
        yield f"tried: without its rounding to 8 bits, {text}; with it, {rounded}"


def _error(error: float) -> str:
    return f"{error:.1e}" if error else "0"


def _cost_text(costs: Sequence[CostFact]) -> Iterator[str]:
    alone = (f"{_us(cost.step_us)} a step alone" for cost in costs[:1])
    batches = (f"{_us(cost.row_us)} in a batch of {cost.batch}" for cost in costs[1:])
    if costs:
        yield f"{', '.join((*alone, *batches))} (computing only, on this machine)"


def _us(microseconds: float) -> str:
    return f"{microseconds:.{max(0, 2 - int(math.log10(max(1.0, microseconds))))}f} us"


def _notes(report: Report) -> dict[str, Note]:
    notes = {port.name: Note((f"{list(port.row)} {port.dtype}",)) for port in (*report.inputs, *report.outputs)}
    for cell in report.cells:
        states = [state for state in report.states if state.layer == cell.layer]
        if states:
            layer = [f"layer {cell.layer}"] if len(report.cells) > 1 else []
            loop = any(state.home != "reset" for state in states)
            notes[cell.node] = Note((*layer, *_states_beside(states)), loop)
    for state in report.states:
        if state.layer is None and state.given and state.returned:
            notes[state.given] = Note((f"{list(state.row)} state: {state.returned} of the step before",))
            notes[state.returned] = Note((f"{list(state.row)} state: {state.given} of the next step",))
    return notes


def _states_beside(states: Sequence[StateFact]) -> Iterator[str]:
    for home, alike in groupby(states, _beside):
        names = ", ".join(f"{state.name} {list(state.row)}" for state in alike)
        yield from [f"{names}: {home}"] if "->" in home else [names, home]


def _beside(state: StateFact) -> str:
    if state.home == "interface":
        return f"{shortened(str(state.returned), 14)} -> {shortened(str(state.given), 14)}"
    return {"server": "kept by the server", "loop": "carried by a loop"}.get(state.home, "thrown away after each step")


def _paragraph(about: str, text: str, style: Literal["", "bad"]) -> Iterator[Line]:
    room = WIDTH - _LABELS - 1
    parts = textwrap.wrap(printable(text), room, break_on_hyphens=False) or [""]
    for i, part in enumerate(parts):
        yield Line(f"{about if i == 0 else '':{_LABELS}} {part}", style)


def _sentence(text: str) -> str:
    begun = text if "." in text.split(" ", 1)[0] else text[:1].upper() + text[1:]  # a file's name stays as it is
    return begun + ("" if text.endswith((".", "?", "!")) else ".")


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "nothing"


def _size(count: int) -> str:
    power = min(int(math.log(count, 1024)), 3) if count else 0
    return f"{count / 1024**power:.{1 if power else 0}f} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def printable(text: str) -> str:
    """The text without control characters: a name in a file may hold terminal escape sequences."""
    return "".join(c if c.isprintable() else " " for c in text)
