"""Loads a file as the server would, and reports the result."""

from pathlib import Path

import onnx
from onnx import inliner

from stepgraph import loading
from stepgraph.errors import ModelRefused
from stepgraph.file import sidecar, soundness
from stepgraph.file.content import Outline
from stepgraph.reading import branches
from stepgraph.report import inspection
from stepgraph.report.report import Report


def examine(path: str | Path) -> Report:
    """The report of a file; its faults are part of the report."""
    file, graph = Path(path), None
    size = file.stat().st_size
    try:
        outline = loading.outline(file)
        graph = _graph(outline)
        report = inspection.described(str(path), size, graph)
        model = loading.prove(loading.complete(outline, file.parent), max(inspection.BATCHES), 0.0)
    except ModelRefused as refusal:
        return inspection.refused(inspection.described(str(path), size, graph), refusal, graph)
    return inspection.served(report, model, graph, outline.said.fixed)


def _graph(outline: Outline) -> onnx.ModelProto | None:
    """The graph that the loader sees, without weights from other files; None if it cannot be read."""
    model, said = outline.model, outline.said
    try:
        soundness.check(model)
        fixed = sidecar.fix(inliner.inline_local_functions(model), said.fixed)
        resolved = branches.resolve(fixed)
        decided = all(node.op_type != "If" for node in resolved.graph.node)
        return resolved if decided else branches.resolve(sidecar.cut(fixed, said.block))
    except Exception:  # noqa: BLE001 # then the graph is shown unchanged
        return None if soundness.unreadable(model) else model
