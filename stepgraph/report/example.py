"""A model.toml for a file at hand: each table that it may have, with names of that file. Pure onnx."""

from collections.abc import Iterator

import onnx

from stepgraph.file.sidecar import key
from stepgraph.graphs.graph import Graph
from stepgraph.reading import randomness
from stepgraph.remedy import pairs

_Infos = dict[str, onnx.ValueInfoProto]


def lines(model: onnx.ModelProto) -> tuple[str, ...]:
    """The lines of the example; only the file's owner knows which are true. Empty if no table applies."""
    inputs, outputs = Graph(model).inputs, {info.name: info for info in model.graph.output}
    free = {name: _free(info) for name, info in inputs.items()}
    tables = {
        "[state]  # the input is what that output was a step before": list(_pairs(inputs, outputs)),
        "[fixed]  # this input always has that value": [
            f"{key(name)} = 0" for name, info in inputs.items() if _is_number(info)
        ],
        "[block]  # its last free axis has that size in each step": [
            f"{key(name)} = 512" for name in inputs if free[name] > 1
        ],
        "[window]  # its state begins anew after so many steps": [f"steps = {_window(inputs)}", 'answer = "last"'],
        "[random]  # it may draw random numbers": ["allow = true"] if randomness.draws(model) else [],
        "[outputs]  # clients are not sent these": [f'leave_out = ["{name}"]' for name in list(outputs)[1:2]],
    }
    return tuple(line for table, said in tables.items() if said for line in (table, *said))


def _pairs(inputs: _Infos, outputs: _Infos) -> Iterator[str]:
    """Inputs and outputs that are named alike, or else that have as many axes."""
    alike = pairs(inputs, outputs)
    ranks = [(i, o) for i in inputs for o in outputs if _rank(inputs[i]) == _rank(outputs[o]) > 1]
    yield from {name: f'{key(name)} = "{output}"' for name, output in alike or ranks[-1:]}.values()


def _window(inputs: _Infos) -> int:
    """The longest axis but the last that an input's file fixes, which may be time; a common size if there is none."""
    sizes = (dim.dim_value for info in inputs.values() for dim in info.type.tensor_type.shape.dim[:-1])
    return max((size for size in sizes if size > 1), default=128)


def _free(info: onnx.ValueInfoProto) -> int:
    return sum(not dim.HasField("dim_value") for dim in info.type.tensor_type.shape.dim)


def _is_number(info: onnx.ValueInfoProto) -> bool:
    return all(dim.dim_value == 1 for dim in info.type.tensor_type.shape.dim)


def _rank(info: onnx.ValueInfoProto) -> int:
    return len(info.type.tensor_type.shape.dim)
