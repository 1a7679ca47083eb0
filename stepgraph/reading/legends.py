"""What a file's metadata and model.toml say of the numbers of its inputs and outputs, put to its ports. Pure.

The metadata properties `tidegate.inputs` and `tidegate.outputs` are JSON: by the name of an input or output a table of
the keys that `tidegate.columns` reads. model.toml has the same keys and wins, key by key. What makes no sense is passed
over: in the metadata with a note, in model.toml with the sentence of a refusal.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from stepgraph.file import sidecar
from stepgraph.file.sidecar import Sidecar
from stepgraph.rewriting.ports import Facts, Port
from tidegate.columns import Column, Legend, LegendError, read_legend

_Tables = Mapping[str, Any]  # by the name of an input or output


def put(facts: Facts, model: onnx.ModelProto, said: Sidecar) -> Facts:
    """The facts with what is said of each input and output."""
    notes = _Notes()
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    inputs = _told("inputs", facts.inputs, notes.json("inputs", metadata), said.inputs, notes)
    outputs = _told("outputs", facts.outputs, notes.json("outputs", metadata), said.outputs, notes)
    return replace(facts, inputs=inputs, outputs=outputs, untold=tuple(notes.passed), misread=notes.misread)


def strangers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Notes on names in the metadata of a whole file that are none of its inputs or outputs."""
    notes = _Notes()
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    for side, infos in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        names = [info.name for info in infos]
        for name in notes.json(side, metadata).keys() - {*names}:
            notes.strange(side, name, False, f"the file has no {side[:-1]} '{name}'; it has {', '.join(names)}")
    return tuple(each for each in notes.passed if "the file has no" in each)


def draws(facts: Facts) -> bool:
    """Whether what is said of inputs changes which numbers a proof draws for them."""
    columns = (column for port in facts.inputs for column in port.legend.columns)
    return any(replace(column, unit="") != Column(column.name) for column in columns)


def without_doubtful(facts: Facts, said: Sidecar, why: str) -> Facts:
    """The facts where nothing may be missing and no range is said, as a proof with those was refused: `why`."""
    said_by_owner = any({"missing", "range", "categories"} & table.keys() for table in said.inputs.values())
    missing = [column.name for port in facts.inputs for column in port.legend.columns if column.missing]
    fills = f"Those in `missing` ({', '.join(missing)}) the file itself has to fill in. " if missing else ""
    doubt = (
        "with its missing values, categories and ranges the file cannot be served, and without them it can. "
        f"{fills}With them, {why}"
    )
    inputs = tuple(replace(port, legend=_plain(port.legend)) for port in facts.inputs)
    if said_by_owner:
        return replace(facts, inputs=inputs, misread=f"{sidecar.FILE} says what does not hold: {doubt}")
    note = f"what the metadata property tidegate.inputs says of missing numbers and ranges is passed over: {doubt}"
    return replace(facts, inputs=inputs, untold=(*facts.untold, note))


def _plain(legend: Legend) -> Legend:
    columns = (replace(c, missing=False, lowest=float("-inf"), highest=float("inf")) for c in legend.columns)
    return replace(legend, columns=tuple(columns))


@dataclass
class _Notes:
    """What was passed over: sentences about the metadata, and the first one about model.toml."""

    passed: list[str] = field(default_factory=list)
    misread: str = ""

    def json(self, side: str, metadata: Mapping[str, str]) -> _Tables:
        try:
            tables = json.loads(metadata.get(f"tidegate.{side}", "{}"))
        except (ValueError, RecursionError):
            tables = None
        if isinstance(tables, dict):
            return tables
        self.passed.append(f"the metadata property tidegate.{side} is passed over: it is no JSON object of {side}")
        return {}

    def strange(self, side: str, name: str, by_owner: bool, error: str) -> None:
        if by_owner:
            self.misread = self.misread or f"{sidecar.FILE} under [{side}.{name}]: {error}"
        else:
            self.passed.append(f"in the metadata property tidegate.{side} this is passed over: {error}")


def _told(side: str, ports: Sequence[Port], metadata: _Tables, owner: _Tables, notes: _Notes) -> tuple[Port, ...]:
    names = [port.name for port in ports]
    for name in owner.keys() - {*names}:
        notes.strange(side, name, True, f"clients have no {side[:-1]} '{name}'; there are {', '.join(names)}")

    def legend(port: Port) -> Legend:
        own, others = owner.get(port.name, {}), metadata.get(port.name, {})

        def complain(key: str, error: LegendError) -> None:
            notes.strange(side, port.name, key in own, str(error))

        entry: object = {**others, **own} if isinstance(others, Mapping) else own or others
        return read_legend(entry, port.name, port.row, side == "outputs", complain)

    return tuple(_categorical(replace(port, legend=legend(port))) for port in ports)


def _categorical(port: Port) -> Port:
    """The port with what its numbers are below where they are indices of categories."""
    counts = tuple(len(column.categories) for column in port.legend.columns)
    if not any(counts):
        return port
    below = port.below or (0,) * len(counts)
    return replace(port, below=tuple(known or n for known, n in zip(below, counts, strict=True)))
