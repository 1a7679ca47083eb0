"""The small file beside a model that says what its graph alone cannot: `model.toml`.

[state]               # an input that is state, and the output that it becomes at the next step
buffer = "buffer_out"

[start]               # what such an input begins with, instead of zeros: one number for all, or a list
buffer = 0.5

[fixed]               # an input that has the same value at every step of every sequence
sample_rate = 16000

[block]               # so much of this input's time axis is one step: samples of a signal, say
audio = 160

[outputs]
leave_out = ["label"] # outputs that clients are not sent

[window]              # the network was trained on so many steps at a time: its state begins anew after each such window
steps = 128
answer = "last"       # only the last step of each window is answered; "every" step is, if this is left out

[random]              # it may draw random numbers: each sequence has a seed of its own, in its state
allow = true

[weights]             # they are kept in "int8", which is quicker from some 128 units on; "float16" or "bfloat16"
precision = "int8"
within = 0.02         # refused if an answer is farther from the file's than this part of its range; 0.1 if left out

[inputs.x]            # what its numbers are, in the keys of `tidegate.columns`; the same for [outputs.y]
features = ["temp", "wind"]
units = ["degC", ""]
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from stepgraph.errors import ModelRefused
from stepgraph.file.precision import NAMES, Precision
from stepgraph.file.window import Window
from stepgraph.graphs.nodes import copied

FILE = "model.toml"
_MOST = 65_536  # bytes
_LARGEST = 2**24  # samples in a block: minutes of sound; steps of a window, counted in single precision


@dataclass(frozen=True)
class Sidecar:
    """What the file says; empty if there is none."""

    state: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    block: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    window: Window | None = None
    random: bool = False  # whether it may draw random numbers
    weights: Precision | None = None
    start: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_TABLES = ("state", "start", "fixed", "block", "window", "random", "weights", "inputs", "outputs")


def parse(content: bytes) -> Sidecar:
    """What the bytes of a model.toml say."""
    if len(content) > _MOST:
        raise ModelRefused(f"{FILE} has {len(content)} bytes; at most {_MOST} are read")
    try:
        said = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(f"{FILE} cannot be read: {error}") from error
    if said.keys() - set(_TABLES) or not all(isinstance(table, dict) for table in said.values()):
        expected = ", ".join(f"[{name}]" for name in _TABLES)
        raise ModelRefused(f"{FILE} holds {', '.join(sorted(said))}; expected the tables {expected}")
    for name, output in said.get("state", {}).items():
        if not isinstance(output, str):
            raise ModelRefused(f"{FILE} says that '{name}' becomes {output!r:.60}; expected the name of an output")
    for name, size in said.get("block", {}).items():
        if not _is_count(size):
            raise ModelRefused(
                f"{FILE} says that {size!r:.60} of '{name}' are one step; expected a whole number above 0, at most "
                f"{_LARGEST}"
            )
    return Sidecar(
        said.get("state", {}),
        said.get("fixed", {}),
        said.get("block", {}),
        _left_out(said.get("outputs", {})),
        _window(said["window"]) if "window" in said else None,
        _random(said.get("random", {"allow": False})),
        _weights(said["weights"]) if "weights" in said else None,
        said.get("start", {}),
        _tables("inputs", said.get("inputs", {})),
        _tables("outputs", said.get("outputs", {})),
    )


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= _LARGEST


def _random(table: Mapping[str, Any]) -> bool:
    if table.keys() != {"allow"} or not isinstance(table["allow"], bool):
        raise ModelRefused(f"{FILE} says {dict(table)!r:.80} of random numbers; expected allow = true")
    return table["allow"]


def _weights(table: Mapping[str, Any]) -> Precision:
    name, within = table.get("precision"), table.get("within", Precision.within)
    bound = isinstance(within, int | float) and not isinstance(within, bool) and 0 < within <= 1
    if table.keys() - {"precision", "within"} or name not in NAMES or not bound:
        raise ModelRefused(
            f"{FILE} says {dict(table)!r:.80} of the weights; expected precision, one of {', '.join(NAMES)}, and "
            "perhaps within, the part of an output's range, above 0 and at most 1, that its answers may be off by"
        )
    return Precision(name, float(within))


def _window(table: Mapping[str, Any]) -> Window:
    steps, answer = table.get("steps"), table.get("answer", "every")
    if table.keys() - {"steps", "answer"} or not _is_count(steps) or answer not in ("every", "last"):
        raise ModelRefused(
            f"{FILE} says {dict(table)!r:.80} of the window; expected steps, a whole number above 0, at most "
            f'{_LARGEST}, and perhaps answer = "every" or "last"'
        )
    return Window(int(steps), answer == "last")  # type: ignore[arg-type] # it is a number


def _tables(side: str, given: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is said of each input or output by its name; `leave_out` among outputs is a list of others."""
    tables = {name: table for name, table in given.items() if side == "inputs" or name != "leave_out"}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ModelRefused(
                f"{FILE} says {table!r:.60} of '{name}' under [{side}]; expected a table [{side}.{name}]"
                + (", or leave_out, a list of outputs' names" if side == "outputs" else "")
            )
    return tables


def _left_out(table: Mapping[str, Any]) -> tuple[str, ...]:
    names = table.get("leave_out", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelRefused(f"{FILE} says {names!r:.80} of leave_out; expected a list of outputs' names")
    return tuple(names)


def lines(said: Sidecar) -> tuple[str, ...]:
    """The lines of a model.toml that says this of states, fixed inputs, blocks and outputs."""
    tables: dict[str, Mapping[str, Any]] = {
        "[state]": said.state,
        "[fixed]": said.fixed,
        "[block]": said.block,
        "[outputs]": {"leave_out": list(said.left_out)} if said.left_out else {},
    }
    return tuple(
        line
        for table, entries in tables.items()
        if entries
        for line in (table, *(f"{key(name)} = {json.dumps(value)}" for name, value in entries.items()))
    )


def key(name: str) -> str:
    """A name as TOML writes it."""
    bare = name.replace("_", "").replace("-", "").isalnum() and name.isascii()
    return name if bare else json.dumps(name, ensure_ascii=False)


def fix(model: onnx.ModelProto, fixed: Mapping[str, Any]) -> onnx.ModelProto:
    """A copy in which inputs have become constants; the model itself if none has."""
    if not fixed:
        return model
    copy = copied(model)
    infos = {info.name: info for info in copy.graph.input}
    for name, value in fixed.items():
        if name not in infos:
            raise ModelRefused(f"{FILE} fixes '{name}', which is no input of the model; it has {', '.join(infos)}")
        copy.graph.initializer.append(_constant(infos[name], value))
        copy.graph.input.remove(infos[name])
    return copy


def cut(model: onnx.ModelProto, block: Mapping[str, int]) -> onnx.ModelProto:
    """A copy that takes one block at a time: the last free axis of the inputs in `block` has that size and no other."""
    copy = copied(model)
    for info in copy.graph.input:
        free = [dim for dim in info.type.tensor_type.shape.dim if not dim.HasField("dim_value")]
        if free and info.name in block:
            free[-1].dim_value = block[info.name]
    return copy


def _constant(info: onnx.ValueInfoProto, value: object) -> onnx.TensorProto:
    kind = info.type.tensor_type
    shape = [d.dim_value or 1 for d in kind.shape.dim]
    try:
        array = np.asarray(value, helper.tensor_dtype_to_np_dtype(kind.elem_type))
        array = np.broadcast_to(array, shape) if array.ndim < len(shape) else array.reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelRefused(
            f"{FILE} fixes '{info.name}' to {value!r:.60}, which does not fit its shape {shape}"
        ) from error
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(shape), info.name)
