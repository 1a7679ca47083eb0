"""A file as a toolkit makes it, and beside it what the toolkit itself answers. Knows no toolkit.

NAME.npz holds `input:NAME` and `output:NAME`, each [T, B, ...row]: at step t the answer to the first t + 1 inputs; and,
where the toolkit tells, `trace:LAYER:NAME`, [T, B, H].
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

STEPS, BATCH = 6, 2


@dataclass(frozen=True)
class Recorded:
    """What went into the original network, and what came out of it; [T, B, ...row] each."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    trace: Mapping[tuple[int, str], np.ndarray] = field(default_factory=dict)


def save(path: Path, model: onnx.ModelProto, recorded: Recorded) -> None:
    """Writes NAME.onnx, without what tells of the machine that made it, and NAME.npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clean(model)
    onnx.save(model, path)
    arrays = {f"input:{name}": array for name, array in recorded.inputs.items()}
    arrays |= {f"output:{name}": array for name, array in recorded.outputs.items()}
    arrays |= {f"trace:{layer}:{name}": array for (layer, name), array in recorded.trace.items()}
    np.savez(path.with_suffix(".npz"), **arrays)


def read(path: Path) -> Recorded:
    """What was written beside NAME.onnx."""
    inputs, outputs, trace = {}, {}, {}
    with np.load(path.with_suffix(".npz")) as arrays:
        for key, array in arrays.items():
            match key.split(":", 2):
                case ["trace", layer, name]:
                    trace[int(layer), name] = array
                case [kind, *rest]:
                    (inputs if kind == "input" else outputs)[":".join(rest)] = array
    return Recorded(inputs, outputs, trace)


def clean(model: onnx.ModelProto) -> None:
    """Removes descriptions and properties: they hold stack traces and paths, and nothing that is computed."""
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for graph in (model.graph, *model.functions):
        for node in _nodes(graph):
            node.doc_string = ""
            del node.metadata_props[:]
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        info.doc_string = ""
        del info.metadata_props[:]


def _nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
