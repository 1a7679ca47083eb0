"""A model as a ladder of layers, for people: inputs, the operators around the cells condensed, the cells, outputs.

Pure onnx. Reads any graph, also one that is refused; does not know what is served, nor where states live: it is told.
"""

import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx
from onnx import helper

from server import cells
from server.recurrence import label

KINDS = frozenset({*cells.STATES, "DynamicQuantizeLSTM"})
_UNSEEN = frozenset({"Identity", "Dropout"})  # they change nothing
_SAME_SHAPE = frozenset({"Cast", "DequantizeLinear", "Identity"})
_MOVES = frozenset({"Cast", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}) | _UNSEEN

WIDTH = 80
_LEFT, _RAIL, _INNER = 2, 8, 36  # columns: where a box begins, where the line runs, how wide a box is inside
_INDENT = " " * _RAIL
_LOOP_WIDTH = WIDTH - _LEFT - _INNER - 7


@dataclass(frozen=True)
class Line:
    """A line of a page and how it is shown: "" plain, else "title", "good" or "bad"."""

    text: str
    style: Literal["", "title", "good", "bad"] = ""


@dataclass(frozen=True)
class Word:
    """One or a few operators, as a person would say them; `nodes` are their labels."""

    text: str
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    """A recurrent node as the file has it; a size is None where the file does not say it plainly."""

    kind: str
    input_size: int | None
    hidden_size: int | None
    special: tuple[str, ...]  # what differs from the operator's defaults


@dataclass(frozen=True)
class Rung:
    """A step of the ladder. `above` are the indices of the rungs that it reads from."""

    kind: Literal["input", "operators", "cell", "output"]
    name: str
    above: tuple[int, ...]
    words: tuple[Word, ...] = ()
    box: Box | None = None
    declared: str = ""  # the shape and type of an input or output, as the file has it


@dataclass(frozen=True)
class Note:
    """What is written beside a rung; `loop` says that what a cell holds goes round."""

    lines: tuple[str, ...] = ()
    loop: bool = False


def name_of(node: onnx.NodeProto) -> str:
    """How a rung of a cell is called: the node's name, else its first output's."""
    return node.name or next(iter(filter(None, node.output)), node.op_type)


def is_cell(node: onnx.NodeProto) -> bool:
    """Whether a node is drawn as a box."""
    return node.op_type in KINDS


# --------------------------------------------------------------------------------------------------------- reading


def read(model: onnx.ModelProto, left_out: Collection[str] = ()) -> tuple[Rung, ...]:
    """The ladder of a graph, from top to bottom, without the outputs in `left_out`."""
    return _Reader(model.graph, left_out).rungs()


def sources(model: onnx.ModelProto, tensor: str) -> set[str]:
    """The inputs of the graph that a tensor is made of."""
    makers = {name: node for node in model.graph.node for name in node.output if name}
    found, wanted, seen = set[str](), [tensor], set[str]()
    inputs = {info.name for info in model.graph.input}
    while wanted:
        name = wanted.pop()
        if name in inputs:
            found.add(name)
        if name in makers and name not in seen:
            seen.add(name)
            wanted.extend(makers[name].input)
    return found


_Reads = dict[object, set[object]]
_Members = dict[object, list[onnx.NodeProto]]


def _fold(key: object, reads: _Reads, members: _Members) -> object:
    """The one group of operators that reads from a group that only moves numbers about; None if it is no such group."""
    if not all(node.op_type in _MOVES for node in members[key]):
        return None
    readers = [other for other, above in reads.items() if key in above]
    if len(readers) != 1 or readers[0] not in members or is_cell(members[readers[0]][0]):
        return None
    return None if all(node.op_type in _MOVES for node in members[readers[0]]) else readers[0]


class _Reader:
    """Follows the data, not the shapes and the states, from the inputs to the outputs."""

    def __init__(self, graph: onnx.GraphProto, left_out: Collection[str]) -> None:
        self._constants = _Constants(graph)
        self._infos = {info.name: info for info in (*graph.input, *graph.output)}
        self._inputs = [i.name for i in graph.input if i.name not in self._constants.shapes]
        self._outputs = [o.name for o in graph.output if o.name not in left_out]
        data = set(self._inputs)
        nodes = []
        for node in graph.node:
            if node.op_type not in ("Shape", "Size") and data.intersection(_reads(node)):
                nodes.append(node)
                data.update(filter(None, node.output))
        self._data = data
        self._nodes = self._used(nodes)
        self._up = self._anchors_above()
        self._down = self._anchors_below()

    def rungs(self) -> tuple[Rung, ...]:
        """Groups what lies between the same anchors, and puts the groups one under the other."""
        keys = [self._key(node) for node in self._nodes]
        reads, members = self._grouped(keys)
        folded = {key: into for key in members if (into := _fold(key, reads, members))}
        if folded:
            reads, members = self._grouped([folded.get(key, key) for key in keys])
        return self._in_order(reads, members)

    def _grouped(self, keys: Sequence[object]) -> tuple[_Reads, _Members]:
        """What each group reads from, and its nodes; `keys` are the groups of the nodes."""
        members: _Members = defaultdict(list)
        home: dict[str, object] = {name: ("input", name) for name in self._inputs if name in self._down}
        for node, key in zip(self._nodes, keys, strict=True):
            members[key].append(node)
            home.update(dict.fromkeys(filter(None, node.output), key))
        reads: _Reads = {("input", name): set() for name in self._inputs if name in self._down}
        for key, nodes in members.items():
            reads[key] = {home[name] for node in nodes for name in self._reads(node)} - {key}
        for name in self._outputs:
            reads["output", name] = {home[name]} if name in home else set()
        return reads, members

    def _in_order(self, reads: _Reads, members: _Members) -> tuple[Rung, ...]:
        """Whatever goes on from the last rung comes next, so that a chain stays together."""
        place: dict[object, int] = {}
        rungs: list[Rung] = []
        last: object = None
        while len(place) < len(reads):
            ready = [key for key, above in reads.items() if key not in place and above <= place.keys()]
            last = next((key for key in ready if last in reads[key]), ready[0])
            place[last] = len(rungs)
            above = tuple(sorted(place[key] for key in reads[last]))
            rungs.append(self._rung(last, above, members.get(last, [])))
        return tuple(rungs)

    def _rung(self, key: object, above: tuple[int, ...], nodes: list[onnx.NodeProto]) -> Rung:
        match key:
            case ("input" | "output" as kind, str(name)):
                return Rung(kind, name, above, declared=_declared(self._infos[name]))
        if is_cell(nodes[0]):
            word = Word(nodes[0].op_type, (label(nodes[0]),))
            return Rung("cell", name_of(nodes[0]), above, (word,), self._constants.box(nodes[0]))
        return Rung("operators", name_of(nodes[0]), above, tuple(self._words(nodes)))

    def _key(self, node: onnx.NodeProto) -> object:
        if is_cell(node):
            return ("cell", name_of(node))
        return (self._up[name_of(node)], frozenset().union(*(self._down.get(o, frozenset()) for o in node.output)))

    def _reads(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in _reads(node) if name in self._data]

    def _used(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        needed = set(self._outputs)
        kept = []
        for node in reversed(nodes):
            if is_cell(node) or needed.intersection(node.output):
                needed.update(self._reads(node))
                kept.append(node)
        return kept[::-1]

    def _anchors_above(self) -> dict[str, frozenset[str]]:
        """The inputs and cells that each tensor and each node depends on."""
        up = {name: frozenset({name}) for name in self._inputs}
        for node in self._nodes:
            above = frozenset[str]().union(*(up[name] for name in self._reads(node)))
            above |= {name_of(node)} if is_cell(node) else frozenset()
            up.update(dict.fromkeys((*filter(None, node.output), name_of(node)), above))
        return up

    def _anchors_below(self) -> dict[str, frozenset[str]]:
        """The cells and outputs that each tensor leads to."""
        down = {name: frozenset({name}) for name in self._outputs}
        for node in reversed(self._nodes):
            below = frozenset[str]().union(*(down.get(name, frozenset()) for name in node.output))
            below |= {name_of(node)} if is_cell(node) else frozenset()
            for name in self._reads(node):
                down[name] = down.get(name, frozenset()) | below
        return down

    def _words(self, nodes: Sequence[onnx.NodeProto]) -> Iterator[Word]:
        """The operators in order; a product and the bias after it are one word."""
        said = set[int]()
        for i, node in enumerate(nodes):
            bias = self._bias(node, nodes)
            if i in said or node.op_type in _UNSEEN:
                continue
            if bias is not None:
                said.add(bias)
            parts = (node, *([nodes[bias]] if bias is not None else []))
            yield Word(self._constants.say(node, bias is not None), tuple(map(label, parts)))

    def _bias(self, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> int | None:
        """The index of the Add that puts a constant on top of a product, if nothing else reads the product."""
        if node.op_type != "MatMul":
            return None
        readers = [i for i, other in enumerate(nodes) if node.output[0] in other.input]
        if len(readers) != 1 or nodes[readers[0]].op_type != "Add":
            return None
        return readers[0] if len(self._reads(nodes[readers[0]])) == 1 else None


class _Constants:
    """The shapes of weights, and how operators that have some are called."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.shapes[node.output[0]] = next((list(a.t.dims) for a in node.attribute if a.name == "value"), [])
            elif node.input and node.input[0] in self.shapes and node.op_type in _SAME_SHAPE:
                self.shapes[node.output[0]] = self.shapes[node.input[0]]
            elif node.input and node.input[0] in self.shapes and node.op_type == "Transpose":
                self.shapes[node.output[0]] = self.shapes[node.input[0]][::-1]

    def say(self, node: onnx.NodeProto, biased: bool) -> str:
        """An operator in a person's words, with its sizes where it has weights."""
        shapes = [self.shapes.get(name) for name in node.input]
        match node.op_type, shapes:
            case "MatMul", [_, [wide, high]]:
                return f"Linear {wide}->{high} ({'MatMul+Add' if biased else 'MatMul'})"
            case "Gemm", [_, [a, b], *_]:
                flipped = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
                return f"Linear {b}->{a} (Gemm)" if flipped else f"Linear {a}->{b} (Gemm)"
            case "Gather", [[words, wide], None]:
                return f"Embedding {words}->{wide} (Gather)"
            case "Conv", [_, [filters, channels, *kernel], *_]:
                return f"Conv {channels}->{filters} (kernel {'x'.join(map(str, kernel))})"
        inner = [n.op_type for a in node.attribute for g in (a.g, *a.graphs) for n in g.node if n.op_type != "Constant"]
        domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
        return domain + node.op_type + (f" (of {', '.join(dict.fromkeys(inner))})" if inner else "")

    def box(self, node: onnx.NodeProto) -> Box:
        """What the file says of a recurrent node."""
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        w, r = (self.shapes.get(name, []) for name in (*node.input, "", "", "")[1:3])
        quantised = node.op_type not in cells.STATES  # its weights are the other way round
        inputs = w[1 if quantised else 2] if len(w) == 3 else None
        hidden = attributes.get("hidden_size", r[2] if len(r) == 3 and not quantised else None)
        return Box(node.op_type, inputs, hidden if isinstance(hidden, int) else None, (*_special(node, attributes),))


def _declared(info: onnx.ValueInfoProto) -> str:
    """An input's or output's shape and type in the file's own axes."""
    kind = info.type.tensor_type
    if not kind.elem_type:
        return ""
    axes = ", ".join(d.dim_param or str(d.dim_value or "?") for d in kind.shape.dim)
    return f"[{axes}] {helper.tensor_dtype_to_np_dtype(kind.elem_type)}"


def _special(node: onnx.NodeProto, attributes: Mapping[str, object]) -> Iterator[str]:
    direction = attributes.get("direction", b"forward")
    if isinstance(direction, bytes) and direction != b"forward":
        yield direction.decode(errors="replace")
    names = attributes.get("activations", ())
    given = tuple(n.decode(errors="replace") for n in names if isinstance(n, bytes)) if isinstance(names, list) else ()
    default = cells.default_activations(node.op_type) if node.op_type in cells.STATES else ()
    if tuple(n.lower() for n in given[: len(default)]) not in ((), tuple(n.lower() for n in default)):
        yield ", ".join(given)
    clip = attributes.get("clip")
    if isinstance(clip, float):
        yield f"clip {clip:.6g}"
    if len(node.input) > 7 and node.input[7]:
        yield "peepholes"
    for name in ("input_forget", "linear_before_reset", "layout"):
        if attributes.get(name):
            yield name
    if len(node.input) > 4 and node.input[4]:
        yield "sequence_lens"


def _reads(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node takes its data from; a cell's is x alone."""
    if is_cell(node):
        return [name for name in node.input[:1] if name]
    inner = [n for a in node.attribute for g in (a.g, *a.graphs) for n in g.node]
    return [name for name in (*node.input, *(name for n in inner for name in _reads(n))) if name]


# --------------------------------------------------------------------------------------------------------- drawing


def draw(rungs: Sequence[Rung], notes: Mapping[str, Note], marked: Mapping[str, str]) -> list[Line]:
    """The ladder in lines of 80 columns.

    `notes` are what to write beside inputs, outputs and cells, by name; `marked` what to say of a node, by its label.
    """
    page = _Page(rungs, notes, marked)
    for i in range(len(rungs)):
        page.add(i)
    return page.lines


@dataclass
class _Page:
    rungs: Sequence[Rung]
    notes: Mapping[str, Note]
    marked: Mapping[str, str]
    lines: list[Line] = field(default_factory=list)

    def add(self, i: int) -> None:
        rung = self.rungs[i]
        self._join(i, rung)
        if rung.kind == "operators":
            self._operators(rung)
        elif rung.kind == "cell":
            self._cell(rung, ends=not self._goes_on(i))
        else:
            self._port(rung)

    def _goes_on(self, i: int) -> bool:
        return i + 1 < len(self.rungs) and i in self.rungs[i + 1].above

    def _join(self, i: int, rung: Rung) -> None:
        """How the line comes to a rung: straight on, with others, or from somewhere else."""
        straight = i - 1 in rung.above
        others = ", ".join(self._called(self.rungs[k]) for k in rung.above if k != i - 1)
        if not straight and i:
            self._say("")
        if straight and self.rungs[i - 1].kind in ("input", "cell"):
            self._say(f"{_INDENT}│")
        if others:
            self._wrapped(f"{_INDENT}{'├' if straight else '┌'}── {'with' if straight else 'from'} ", others)
        if others and rung.kind == "cell":
            self._say(f"{_INDENT}│")

    def _called(self, rung: Rung) -> str:
        """A rung by its last operator that computes, or by what is above it if all only move numbers about."""
        computing = [word.text for word in rung.words if word.text not in _MOVES]
        if rung.kind == "operators" and not computing and len(rung.above) == 1:
            return self._called(self.rungs[rung.above[0]])
        return computing[-1] if rung.kind == "operators" and computing else shortened(rung.name, 30)

    def _port(self, rung: Rung) -> None:
        if rung.kind == "output" and rung.above:
            self._say(f"{_INDENT}▼")
        note = "  ".join(self.notes.get(rung.name, Note((rung.declared,))).lines)
        self._wrapped(_INDENT, f"{shortened(rung.name, 40)}  {note}".rstrip())

    def _operators(self, rung: Rung) -> None:
        plain: list[str] = []
        for word in (*rung.words, None):
            said = next((self.marked[n] for n in word.nodes if n in self.marked), None) if word else None
            if (said or word is None) and plain:
                self._wrapped(f"{_INDENT}│  ", ", ".join(_counted(plain)))
                plain = []
            if word and said:
                self._wrapped(f"{_INDENT}│  ", f"{word.text}  <-- {said}", "bad")
            elif word:
                plain.append(word.text)

    def _cell(self, rung: Rung, ends: bool) -> None:
        assert rung.box is not None
        said = next((self.marked[n] for word in rung.words for n in word.nodes if n in self.marked), None)
        note = Note((f"<-- {said}",)) if said else self.notes.get(rung.name, Note())
        beside = [part for line in note.lines for part in textwrap.wrap(line, _LOOP_WIDTH)]
        inside = _inside(rung.name, rung.box)
        height = max(len(inside), len(beside), 2)
        inside += [""] * (height - len(inside))
        beside += [""] * (height - len(beside))
        style: Literal["", "bad"] = "bad" if said else ""
        self._say(f"{' ' * _LEFT}┌{_edge('┴' if rung.above else '─')}┐", style)
        for k, (text, right) in enumerate(zip(inside, beside, strict=True)):
            rail = ("│   ", "├──╮" if k == 0 else "│◀─╯" if k == height - 1 else "│  │")[note.loop]
            self._say(f"{' ' * _LEFT}│ {text:{_INNER - 2}} {rail} {right}".rstrip(), style)
        self._say(f"{' ' * _LEFT}└{_edge('─' if ends else '┬')}┘", style)

    def _wrapped(self, head: str, text: str, style: Literal["", "bad"] = "") -> None:
        room = WIDTH - len(head)
        for k, part in enumerate(textwrap.wrap(text, room, break_on_hyphens=False) or [""]):
            rest = head if "│" in head else _INDENT + ("│" if "├" in head or "┌" in head else " ")
            self._say((head if k == 0 else rest.ljust(len(head))) + part, style)

    def _say(self, text: str, style: Literal["", "bad"] = "") -> None:
        self.lines.append(Line(text, style))


def _inside(name: str, box: Box) -> list[str]:
    """What is written in a cell's box."""
    sizes = f"{'?' if box.input_size is None else box.input_size} -> {box.hidden_size or '?'}"
    special = textwrap.wrap(", ".join(box.special), _INNER - 2)
    return [f"{box.kind}  {sizes}", *special, shortened(name, _INNER - 2)]


def _edge(joint: str) -> str:
    before = _RAIL - _LEFT - 1
    return "─" * before + joint + "─" * (_INNER - before - 1)


def _counted(words: Sequence[str]) -> list[str]:
    """The words, with a number where one is said several times in a row."""
    counted: list[tuple[str, int]] = []
    for word in words:
        times = counted.pop()[1] if counted and counted[-1][0] == word else 0
        counted.append((word, times + 1))
    return [word if times == 1 else f"{word} x{times}" for word, times in counted]


def shortened(name: str, room: int) -> str:
    """A long name without its middle."""
    if len(name) <= room:
        return name
    return f"{name[: (room - 3) // 2]}...{name[len(name) - (room - 2) // 2 :]}"
