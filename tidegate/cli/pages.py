"""Models as text for a person: a table of all, a page about one; and as JSON for a program. Pure."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from math import isinf
from typing import Any

from tidegate.columns.words import notes, words
from tidegate.drawing.glyphs import Style
from tidegate.drawing.names import layers_in_short, printable
from tidegate.model import Model, StateSpec, TensorSpec

_RED, _GREEN, _YELLOW = 203, 78, 221
_STATUS_COLOURS = {"ready": _GREEN, "refused": _RED, "loading": _YELLOW}
_HEADER = ("MODEL", "VERSION", "STATUS", "LAYERS", "INPUTS", "OUTPUTS")
_DESCRIPTION, _PROVENANCE = "tidegate.description", "tidegate.provenance"
# Metadata that the page shows elsewhere: names and units stand with the inputs and outputs.
_SHOWN = {_DESCRIPTION, _PROVENANCE, "tidegate.inputs", "tidegate.outputs"}
_PAGE_WIDTH = 100  # wider lines are hard to read


# The table.


def table(models: Sequence[Model], style: Style) -> list[str]:
    models = [_printable(model) for model in models]
    rows = [_cells(model) for model in models]
    widths = [max(len(row[at]) for row in (_HEADER, *rows)) for at in range(len(_HEADER))]
    lines = [style.dim("  ".join(_aligned(_HEADER, widths)).rstrip())]
    for model, row in zip(models, rows, strict=True):
        cells = _aligned(row, widths)
        cells[2] = style.paint(cells[2], _STATUS_COLOURS.get(model.status, _YELLOW))
        lines.append("  ".join(cells).rstrip())
        if model.reason:
            lines.append(style.paint(f"  {model.reason}", _RED))
    return lines


def _cells(model: Model) -> tuple[str, ...]:
    return (
        model.name,
        str(model.version),
        model.status,
        layers_in_short(model.layers),
        ", ".join(_tensor(spec) for spec in model.inputs),
        ", ".join(_tensor(spec) for spec in model.outputs),
    )


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} [{', '.join(map(str, spec.shape))}]" if spec.shape else spec.name


# The page.


def page(model: Model, style: Style, width: int = _PAGE_WIDTH) -> list[str]:
    """Everything that the server says about one model; text is wrapped at `width`, or earlier."""
    model, width = _printable(model), min(width, _PAGE_WIDTH)
    lines = [f"{style.bold(model.name)} version {model.version}, {_status(model, style)}"]
    if model.reason:
        lines.append(style.paint(model.reason, _RED))
    lines += textwrap.wrap(model.metadata.get(_DESCRIPTION, ""), width)
    if model.inputs:
        lines += ["", style.bold("inputs"), *_tensors(model.inputs)]
        lines += ["", style.bold("outputs"), *_tensors(model.outputs)]
        lines += ["", style.bold("layers"), *_ladder(model, style)]
        lines += [line for state in model.states if state.unseen for line in ["", *_unseen(state, width)]]
        lines += [line for remark in model.remarks for line in ["", *textwrap.wrap(remark, width)]]
        lines += ["", *_facts(model)]
    if _PROVENANCE in model.metadata:
        lines += ["", style.bold("provenance"), *_paragraph(model.metadata[_PROVENANCE], width)]
    others = {key: value for key, value in model.metadata.items() if key not in _SHOWN}
    if others:
        lines += ["", style.bold("metadata"), *(f"  {key}: {value}" for key, value in sorted(others.items()))]
    return lines


def _paragraph(text: str, width: int) -> Iterator[str]:
    """A text, or a line for each entry of a JSON object; long lines are wrapped."""
    try:
        pending = json.loads(text)
    except ValueError:
        pending = text
    lines = [f"{key}: {_flat(value)}" for key, value in pending.items()] if isinstance(pending, dict) else [text]
    for line in lines:
        yield from textwrap.wrap(line, width, initial_indent="  ", subsequent_indent="      ")


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items() if entry not in ("", None))
    return value if isinstance(value, str) else json.dumps(value)


def _status(model: Model, style: Style) -> str:
    return style.paint(model.status, _STATUS_COLOURS.get(model.status, _YELLOW))


def _tensors(specs: Sequence[TensorSpec]) -> Iterator[str]:
    for spec in specs:
        yield f"  {_tensor(spec)}  {spec.dtype.name}"
        names = max((len(column.name) for column in spec.columns), default=0)
        units = max((len(column.unit) for column in spec.columns), default=0)
        for column in spec.columns:
            yield f"    {column.name.ljust(names)}  {column.unit.ljust(units)}  {words(column)}".rstrip()
        yield from (f"    {note}" for note in notes(spec.legend))


def _ladder(model: Model, style: Style) -> Iterator[str]:
    rail, rung = ("│", "├─") if style.unicode else ("|", "+-")
    arrow = "→" if style.unicode else "->"
    kinds = [f"{layer.kind} {layer.input_size} {arrow} {layer.hidden_size}" for layer in model.layers]
    width = max((len(kind) for kind in kinds), default=0)
    yield f"    {', '.join(spec.name for spec in model.inputs)}"
    for layer, kind in zip(model.layers, kinds, strict=True):
        gates = f"gates {', '.join(layer.gates)}" if layer.gates else "no gates"
        gates += ", in 8 bits" if layer.quantised else ""
        yield f"    {rail}"
        yield f"  {layer.index} {rung} {kind.ljust(width)}  {gates}  {style.dim(layer.node)}"
    yield f"    {rail}"
    yield f"    {', '.join(spec.name for spec in model.outputs)}"


def _unseen(state: StateSpec, width: int) -> list[str]:
    return textwrap.wrap(f"{state.name} [{', '.join(map(str, state.shape))}]: {state.unseen}", width)


def _facts(model: Model) -> Iterator[str]:
    proof = model.proof
    yield f"state   {model.state_bytes:,} bytes for each sequence"
    if model.window:
        answered = "only the last of them is answered" if model.window.last else "each of them is answered"
        yield f"window  begins anew every {model.window.steps} steps, {answered}"
    margin = f"within {proof.max_error:.2g} ({proof.tolerance:.2g} is allowed)"
    yield f"proof   {proof.steps} steps agree with the file {margin}"
    read = f"that was tried only: {proof.unread}" if proof.unread else "reading shows it for every length and value"
    yield f"        {read}"
    if proof.rounding is not None:
        yield f"        without the file's rounding to 8 bits; within {proof.rounding:.2g} with it"
    if proof.narrowed:
        apart = f"within {proof.narrowed.error:.2g} with weights in {proof.narrowed.weights}"
        yield f"        before its weights were made narrower; {apart}, {100 * proof.narrowed.share:.2g} % of the range"
    yield f"sha256  {model.sha256}"


def _printable(value: Any) -> Any:  # noqa: ANN401 - of whatever type is given
    """The same with every text in it printable."""
    match value:
        case str():
            return printable(value)
        case tuple():
            return tuple(map(_printable, value))
        case dict():
            return {_printable(key): _printable(entry) for key, entry in value.items()}
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(value, **{field.name: _printable(getattr(value, field.name)) for field in fields(value)})


# For a program.


def as_json(value: Model | Sequence[Model]) -> str:
    return json.dumps(_record(value) if isinstance(value, Model) else [_record(model) for model in value], indent=2)


def _record(model: Model) -> dict[str, Any]:
    record = asdict(model)
    for spec in (*record["inputs"], *record["outputs"]):
        spec["dtype"] = spec["dtype"].name
        for column in spec["columns"]:  # JSON has no infinity
            column |= {side: None for side in ("lowest", "highest") if isinf(column[side])}
    return record
