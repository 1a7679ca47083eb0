"""Loads a file as the server would, and reports what came of it; serves nothing."""

from pathlib import Path

import onnx
from onnx import inliner

from stepgraph import loading
from stepgraph.errors import ModelRefused
from stepgraph.file import content, sidecar, soundness
from stepgraph.reading import branches
from stepgraph.report import inspection
from stepgraph.report.report import Report


def examine(path: str | Path) -> Report:
    """The report of a file. Whatever is wrong with the file is in it."""
    file = Path(path)
    graph = _graph(file)
    report = inspection.described(str(path), file.stat().st_size, graph)
    try:
        whole = loading.read(file)
        model = loading.prove(whole, max(inspection.BATCHES), 0.0)
    except ModelRefused as refusal:
        return inspection.refused(report, refusal, graph)
    return inspection.served(report, model, graph, whole.said.fixed)


def _graph(file: Path) -> onnx.ModelProto | None:
    """The graph as the loader sees it, without weights that lie in other files; None if it cannot be read."""
    try:
        model, said = content.outline(file)
    except Exception:  # noqa: BLE001 # whatever a damaged file makes the library do: the loader says what is wrong
        return None
    try:
        soundness.check(model)
        fixed = sidecar.fix(inliner.inline_local_functions(model), said.fixed)
        resolved = branches.resolve(fixed)
        decided = all(node.op_type != "If" for node in resolved.graph.node)
        return resolved if decided else branches.resolve(sidecar.cut(fixed, said.block))
    except Exception:  # noqa: BLE001 # then it is shown as it stands
        return None if soundness.unreadable(model) else model
