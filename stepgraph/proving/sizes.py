"""How many steps and sequences a file is fixed to. Pure."""

import onnx

from stepgraph.rewriting.ports import Facts


def steps(fixed: onnx.ModelProto, facts: Facts) -> int:
    """The steps that a file's axis of time is fixed to; 0 if it is free or if there is none."""
    dims = _dims(fixed)
    return next(filter(None, (dims[p.name][p.time] // max(1, p.block) for p in facts.inputs if p.time is not None)), 0)


def batch(fixed: onnx.ModelProto, facts: Facts) -> int:
    """The sequences that a file is fixed to; 2 where it is not, or 1 if sequences run alone."""
    dims = _dims(fixed)
    batches = (dims[p.name][p.batch] for p in facts.inputs if p.batch is not None)
    return next(filter(None, batches), 1 if facts.alone else 2)


def _dims(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in model.graph.input}
