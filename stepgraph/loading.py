"""Turns a file into a model that is rewritten, proved and warmed up. Slow: to be called away from the event loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import inliner

from stepgraph import interpretation, remedy
from stepgraph.errors import ModelRefused, StepgraphError
from stepgraph.file import content, servable, sidecar, soundness
from stepgraph.file.content import Content
from stepgraph.file.sidecar import Sidecar
from stepgraph.graphs import weights
from stepgraph.graphs.nodes import copied
from stepgraph.model import LoadedModel
from stepgraph.proving.one_step import Interpretation, narrow
from stepgraph.reading import lags, legends, outputs, randomness, starts
from stepgraph.reading.annotation import Misnamed
from stepgraph.running import session


def load(path: Path, max_batch: int, patience: float) -> LoadedModel:
    """Loads a model.onnx and warms it up for batches of up to `max_batch`, or that take `patience` seconds.

    Raises:
        ModelRefused: the file cannot be served; the sentence says why, and where in the graph.
        MemoryError: this process may not have as much memory as the file asks for.
    """
    return prove(read(path), max_batch, patience)


@contextmanager
def _refusing() -> Iterator[None]:
    """Whatever a file makes the libraries do becomes a refusal of the file."""
    try:
        yield
    except Exception as error:
        if _is_starved(error):
            raise MemoryError(str(error)) from error
        if isinstance(error, ModelRefused):
            raise
        if isinstance(error, StepgraphError):
            raise ModelRefused(f"the model does not run: {error}") from error
        if isinstance(error, onnx.checker.ValidationError):
            raise ModelRefused(f"the file breaks a rule of ONNX: {_one_line(error)}. Export the model again") from error
        raise ModelRefused(
            f"the file cannot be read as an ONNX model: {type(error).__name__}: {_one_line(error)}. "
            "Export the model again"
        ) from error


outline = _refusing()(content.outline)
complete = _refusing()(content.complete)
read = _refusing()(content.read)


@_refusing()
def prove(content: Content, max_batch: int, patience: float) -> LoadedModel:
    soundness.check(content.model)
    _check(content.model)
    whole = inliner.inline_local_functions(content.model)
    try:
        found, constant = _interpreted(whole, content.said)
    except Misnamed:
        raise
    except StepgraphError as refused:
        raise remedy.remedied(whole, content.said, refused, lambda said: _interpreted(whole, said)[0]) from None
    if content.said.weights:
        found = narrow(found, content.said.weights)
    starts.check(found.facts, content.said.start)
    if found.facts.misread:
        raise ModelRefused(found.facts.misread)
    engine = found.engine
    engine.warm_up(max_batch, patience)
    engine.keep_bits()
    metadata = {entry.key: entry.value for entry in content.model.metadata_props}
    untold = (*found.facts.untold, *legends.strangers(content.model))
    facts = replace(found.facts, left_out=(*content.said.left_out, *constant), untold=untold)
    return LoadedModel(engine.graph, facts, engine, found.proof, content.prints.whole, metadata)


def _interpreted(whole: onnx.ModelProto, said: Sidecar) -> tuple[Interpretation, tuple[str, ...]]:
    """What a file means with what is said of it, and its outputs that belong to no step."""
    shown = lags.alike(outputs.without(whole, said.left_out))
    servable.check(shown)
    shown = randomness.without(shown, allowed=said.random)
    constant = outputs.of_no_step(shown)
    return interpretation.interpret(sidecar.fix(outputs.without(shown, constant), said.fixed), said), constant


def _check(model: onnx.ModelProto) -> None:
    """What onnx itself has to say against a file, but that it wants outputs to have shapes: onnxruntime does not."""
    copy = copied(model)
    weights.as_inputs(copy)
    for output in copy.graph.output:
        if output.type.WhichOneof("value") in (None, "tensor_type"):
            output.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(copy)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _is_starved(error: BaseException | None) -> bool:
    """Whether memory ran out for an error or for what led to it; one that is raised again may lead to itself."""
    seen = list[BaseException]()
    while error is not None and error not in seen:
        if session.is_starved(error):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
