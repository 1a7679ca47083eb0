"""A model.toml for a file at hand: each table that it may have, with names of that file. Pure.

As it stands it changes nothing of a file that is served; what would is a comment.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf

import onnx

from stepgraph.file.sidecar import key
from stepgraph.graphs.graph import Graph
from stepgraph.model import LoadedModel
from stepgraph.reading import randomness
from stepgraph.remedy import is_number, pairs
from stepgraph.rewriting.ports import Facts, Port
from tidegate.columns import Column, count, plain_names

_Infos = dict[str, onnx.ValueInfoProto]
_LARGE = 256  # units, from which on weights of 8 bits are surely quicker
_WIDTH = 69  # of a line on the page
_UNSURE = "## an example: keep only the lines that are true of the network"
_MOST_NAMES, _LONGEST = 12, 24  # columns that are named, and characters of a name


def lines(model: onnx.ModelProto) -> tuple[str, ...]:
    """For a file that is refused; only its owner knows which of the lines are true."""
    inputs, outputs = Graph(model).inputs, {info.name: info for info in model.graph.output}
    free = {name: _free(info) for name, info in inputs.items()}
    states = dict(_pairs(inputs, outputs))
    tables = {
        "[state]  # the input is what that output was a step before": [
            f"{key(name)} = {json.dumps(output)}" for name, output in states.items()
        ],
        "[start]  # what it begins with: one number, or a list": [f"{key(name)} = 0.0" for name in states],
        "[fixed]  # this input always has that value": [
            f"{key(name)} = 0" for name, info in inputs.items() if is_number(info)
        ],
        "[block]  # its last free axis has that size in each step": [
            f"{key(name)} = 512" for name in inputs if free[name] > 1
        ],
        "[window]  # its state begins anew after so many steps": [f"steps = {_window(inputs)}", 'answer = "last"'],
        "[random]  # it may draw random numbers": ["allow = true"] if randomness.draws(model) else [],
        "[outputs]  # clients are not sent these": [f"leave_out = [{json.dumps(name)}]" for name in list(outputs)[1:2]],
    }
    data = [name for name in inputs if name not in states] or list(inputs)
    columns = [
        *(line for name in data for line in _columns("inputs", name, _width(inputs[name]))),
        *(line for name in list(outputs)[:1] for line in _columns("outputs", name, _width(outputs[name]))),
    ]
    said = [line for table, entries in tables.items() if entries for line in (table, *entries)]
    return tuple(line for line in (_UNSURE, *said, *columns) if len(line) <= _WIDTH)


def of_served(loaded: LoadedModel, fixed: Mapping[str, object]) -> tuple[str, ...]:
    """For a file that is served: what it is taken for, and, as comments, what else could be said."""
    facts, window = loaded.facts, loaded.facts.window
    states = {pair.given.name: pair.returned.name for pair in facts.carried}
    begun = (*(pair.given for pair in facts.carried), *facts.starts)
    last = ('answer = "last"',) if window and window.last else ()
    said = [
        *_table("[state]", (f"{key(name)} = {json.dumps(output)}" for name, output in states.items())),
        *_table("[start]  # what it begins with", map(_start, begun)),
        *_table("[fixed]", (f"{key(name)} = {json.dumps(value)}" for name, value in fixed.items())),
        *_table("[block]  # so many are one step", (f"{key(p.name)} = {p.block}" for p in facts.inputs if p.block)),
        *_table("[window]", (f"steps = {window.steps}", *last) if window else ()),
        *(() if window else _no_window(facts)),
        *_table("[random]", ["allow = true"] if facts.drawn else ()),
        *_weights(loaded),
        *_left_out(facts.left_out, [port.name for port in facts.outputs]),
    ]
    for side, ports in (("inputs", facts.inputs), ("outputs", facts.outputs)):
        said += [line for port in ports for line in _columns(side, port.name, count(port.row), port)]
    return tuple(line for line in said if len(line) <= _WIDTH)


def _no_window(facts: Facts) -> Iterator[str]:
    yield "# [window]  # its state begins anew after so many steps"
    yield f"# steps = {facts.made_for if facts.made_for > 1 else 128}"
    if facts.made_for > 1 and any(port.time is None for port in facts.outputs):
        yield '# answer = "last"'


def _weights(loaded: LoadedModel) -> Iterator[str]:
    asked = loaded.facts.weights
    if asked or any(cell.hidden_size >= _LARGE for cell in loaded.graph.layers):
        mark = "" if asked else "# "
        yield f"{mark}[weights]" + ("" if asked else "  # which is quicker; this page then says how far it leads")
        yield f"{mark}precision = {json.dumps(asked.name if asked else 'int8')}"
        if asked:
            yield f"within = {asked.within:g}"


def _left_out(names: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    if names or len(others) > 1:
        mark = "" if names else "# "
        yield f"{mark}[outputs]  # clients are not sent these"
        yield from (f"{mark}{line}" for line in _list("leave_out", names or others[-1:]))


def _start(port: Port) -> str:
    numbers = [str(float(str(number))) for number in port.begun.reshape(-1)]
    alike = len(set(numbers)) == 1
    return f"{key(port.name)} = " + (numbers[0] if alike else f"[{', '.join(numbers)}]")


def _table(head: str, entries: Iterable[str]) -> tuple[str, ...]:
    listed = tuple(entries)
    return (head, *listed) if listed else ()


# What the numbers of a row are ----------------------------------------------------------------------------------------


def _columns(side: str, name: str, width: int, port: Port | None = None) -> Iterator[str]:
    """Its table: names and units, and what else can be said. None where names are longer than a line has room for."""
    told = port.legend.columns if port else ()
    listed = width <= _MOST_NAMES or bool(told)  # of a wider row the first and the last will do
    columns = told or ([Column(n) for n in plain_names(name, width)] if listed else _ends(name, width))
    named = [key(column.name) for column in columns]
    if not width or len(key(name)) > _LONGEST or any(len(each) > _LONGEST for each in (*named[:2], *named[-1:])):
        return
    yield f"[{side}.{key(name)}]  # what its numbers are"
    if listed and len(columns) <= _MOST_NAMES and all(len(each) <= _LONGEST for each in named):
        yield from _list("features", [column.name for column in columns])
        yield from _list("units", [column.unit for column in columns])
    yield from _outputs(columns if listed else (), port) if side == "outputs" else _inputs(columns, port)


def _ends(name: str, width: int) -> list[Column]:
    return [Column(f"{name}.{index}") for index in (0, 1, width - 1)]


def _outputs(columns: Sequence[Column], port: Port | None) -> Iterator[str]:
    said = port.legend.classes if port else ()
    sample = _list("classes", said or [f"class {i}" for i in range(len(columns))]) if len(columns) > 1 else ()
    yield from sample if said else (f"# {line}" for line in sample)


def _inputs(columns: Sequence[Column], port: Port | None) -> Iterator[str]:
    """Each key with what is said under it; as a comment where nothing is."""
    first, second, last = columns[0], columns[min(1, len(columns) - 1)], columns[-1]
    told = {
        "missing": [column.name for column in columns if column.missing],
        "range": {c.name: [c.lowest, c.highest] for c in columns if (c.lowest, c.highest) != (-inf, inf)},
        "categories": {column.name: list(column.categories) for column in columns if column.categories},
        "calendar": {column.name: column.calendar for column in columns if column.calendar},
        "source": {column.name: column.source for column in columns if column.source},
        "ahead": {column.name: column.ahead for column in columns if column.ahead},
        "timestamp": list(port.legend.timestamp) if port else [],
        "time_format": port.legend.time_format if port else "",
        "time_step": port.legend.time_step if port else "",
        "series": list(port.legend.series) if port else [],
    }
    samples: dict[str, tuple[object, str]] = {
        "missing": ([first.name], "may be NaN"),
        "range": ({first.name: [-1000.0, 1000.0]}, "others are refused"),
        "categories": ({second.name: ["", "low", "high"]}, "by its number"),
        "calendar": ({last.name: "hour"}, "of the row's time"),
        "source": ({first.name: "Column of a table"}, ""),
        "ahead": ({last.name: 24}, "so many steps later in a table"),
        "timestamp": ("Date", "a table's column with the time"),
        "time_format": ("%d.%m.%Y %H:%M", "ISO 8601 if it is left out"),
        "time_step": ("3600 seconds", "of which `ahead` are counted; rows if it is left out"),
        "series": ("Sensor", "a table's column that tells series apart: a sequence for each"),
    }
    for name, (sample, why) in samples.items():
        if told[name]:
            yield from _said(name, told[name])
        elif name != "missing" or port is None or port.dtype.kind == "f":
            yield from (f"# {line}" + f"  # {why}" * bool(why) for line in _said(name, sample))


def _said(name: str, value: object) -> Iterator[str]:
    """What a key says, a line for each column that it names."""
    if isinstance(value, dict):
        for column, each in value.items():
            yield from _said(f"{name}.{key(column)}", each)
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        yield from _list(name, value)
    elif isinstance(value, list):
        yield f"{name} = [{', '.join(map(repr, value))}]"
    else:
        yield f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _list(name: str, texts: Sequence[str]) -> Iterator[str]:
    """A list of texts, in as many lines as it takes."""
    quoted = [json.dumps(text, ensure_ascii=False) for text in texts]
    if len(whole := f"{name} = [{', '.join(quoted)}]") <= _WIDTH - 2:
        yield whole
        return
    yield f"{name} = ["
    yield from (f"{each}," for each in quoted)
    yield "]"


def _width(info: onnx.ValueInfoProto) -> int:
    """The size of its last axis; 0 where it is free."""
    dims = info.type.tensor_type.shape.dim
    return dims[-1].dim_value if len(dims) > 1 else 0


# What a refused file shows -------------------------------------------------------------------------------------------


def _pairs(inputs: _Infos, outputs: _Infos) -> Iterator[tuple[str, str]]:
    """Inputs and outputs that are named alike, or else that may have one shape, where another input holds the data."""
    alike = pairs(inputs, outputs)
    shapes = [(i, o) for i in inputs for o in outputs if len(inputs) > 1 and _may_be_alike(inputs[i], outputs[o])]
    yield from alike or shapes[-1:]


def _may_be_alike(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    axes = [info.type.tensor_type.shape.dim for info in (one, other)]
    sizes = ((a.dim_value, b.dim_value) for a, b in zip(*axes, strict=False))
    return len(axes[0]) == len(axes[1]) > 1 and all(a == b or not (a and b) for a, b in sizes)


def _window(inputs: _Infos) -> int:
    """The longest axis but the last that an input's file fixes, which may be time; a common size if there is none."""
    sizes = (dim.dim_value for info in inputs.values() for dim in info.type.tensor_type.shape.dim[:-1])
    return max((size for size in sizes if size > 1), default=128)


def _free(info: onnx.ValueInfoProto) -> int:
    return sum(not dim.HasField("dim_value") for dim in info.type.tensor_type.shape.dim)
