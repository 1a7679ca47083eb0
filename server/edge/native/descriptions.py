"""Descriptions of the versions of models, as the contract's messages. Translates; decides nothing."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from weakref import WeakKeyDictionary

from server.edge.pieces import Joined
from server.repository.entry import Entry, State
from stepgraph.cells.cell import Cell
from stepgraph.model import LoadedModel
from stepgraph.report import remarks, state_homes
from stepgraph.report.report import StateFact
from stepgraph.rewriting.columns import Columns
from stepgraph.rewriting.ports import Port
from tidegate import wire
from tidegate.columns import Column
from tidegate.v1 import model_pb2, tidegate_pb2

_HOMES = {
    "server": model_pb2.STATE_HOME_SERVER,
    "interface": model_pb2.STATE_HOME_INTERFACE,
    "loop": model_pb2.STATE_HOME_LOOP,
    "ring": model_pb2.STATE_HOME_RING,
    "reset": model_pb2.STATE_HOME_RESET,
}


def columns(given: Sequence[Columns]) -> list[model_pb2.TraceColumns]:
    return [model_pb2.TraceColumns(layer=c.layer, name=c.name, offset=c.offset, size=c.size) for c in given]


STATUSES = {
    State.LOADING: model_pb2.MODEL_STATUS_LOADING,
    State.READY: model_pb2.MODEL_STATUS_READY,
    State.REFUSED: model_pb2.MODEL_STATUS_REFUSED,
}


class Descriptions:
    """The descriptions of all versions: each is made once, and kept as bytes until the version changes."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Entry, bytes] = WeakKeyDictionary()
        self._list = Joined()

    def one(self, entry: Entry) -> bytes:
        kept = self._kept.get(entry)
        if kept is None:
            kept = self._kept[entry] = tidegate_pb2.DescribeModelResponse(model=_model(entry)).SerializeToString()
        return kept

    async def all(self, entries: Sequence[Entry]) -> bytes:
        """The contract's ListModelsResponse, which is one DescribeModelResponse after the other."""
        described = []
        for entry in entries:
            if entry not in self._kept:  # it takes a fraction of a millisecond
                await asyncio.sleep(0)
            described.append(self.one(entry))
        return self._list.of(described)


def _model(entry: Entry) -> model_pb2.Model:
    message = model_pb2.Model(name=entry.found.name, version=entry.found.version, status=STATUSES[entry.state])
    if entry.served is not None:
        _describe(message, entry.served.loaded)
    elif entry.refusal is not None:
        message.reason = str(entry.refusal)
    return message


def _describe(message: model_pb2.Model, loaded: LoadedModel) -> None:
    graph, proof = loaded.graph, loaded.proof
    message.inputs.extend(map(_spec, graph.inputs))
    message.outputs.extend(map(_spec, graph.outputs))
    message.layers.extend(_layer(index, cell, graph.gates_of(index)) for index, cell in enumerate(graph.layers))
    message.trace.extend(columns(graph.trace))
    message.states.extend(_state(fact) for fact in state_homes.states(loaded))
    message.state_bytes = loaded.state_bytes
    message.sha256 = loaded.sha256
    message.proof.CopyFrom(model_pb2.Proof(**asdict(proof)))
    message.metadata.update(loaded.metadata)
    message.remarks.extend(remarks.remarks(loaded))
    if loaded.facts.window:
        message.window.CopyFrom(model_pb2.Window(**asdict(loaded.facts.window)))


def _spec(port: Port) -> model_pb2.TensorSpec:
    legend = port.legend
    message = model_pb2.TensorSpec(
        name=port.name,
        type=wire.data_type_of(port.dtype),
        shape=port.row,
        features=[column.name for column in legend.columns],
        units=[column.unit for column in legend.columns if any(each.unit for each in legend.columns)],
        classes=legend.classes,
        timestamp=legend.timestamp,
        time_format=legend.time_format,
        time_step=legend.time_step,
        series=legend.series,
    )
    if any(column != Column(column.name, column.unit) for column in legend.columns):
        message.columns.extend(map(_column, legend.columns))
    return message


def _column(column: Column) -> model_pb2.Column:
    return model_pb2.Column(
        missing=column.missing,
        categories=column.categories,
        lowest=column.lowest if isfinite(column.lowest) else None,
        highest=column.highest if isfinite(column.highest) else None,
        calendar=column.calendar,
        source=column.source,
        ahead=column.ahead,
    )


def _layer(index: int, cell: Cell, gates: Sequence[str]) -> model_pb2.Layer:
    known = model_pb2.CellKind.DESCRIPTOR.values_by_name.get(f"CELL_KIND_{cell.kind.upper()}")
    return model_pb2.Layer(
        index=index,
        kind=known.name if known else None,
        cell=cell.kind,
        node=cell.node,
        input_size=cell.input_size or 0,
        hidden_size=cell.hidden_size,
        gates=gates,
        activations=[activation.name for activation in cell.activations],
        quantised=cell.quantised,
    )


def _state(fact: StateFact) -> model_pb2.StateSpec:
    return model_pb2.StateSpec(
        layer=-1 if fact.layer is None else fact.layer,
        name=fact.name,
        shape=fact.row,
        home=_HOMES[fact.home],
        loop=fact.node or "",
        unseen=fact.unseen,
    )
