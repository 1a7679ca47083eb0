"""The table of the docs: every operator of the standard, and what its rule says."""

from collections import defaultdict
from collections.abc import Iterator

import onnx.defs

from stepgraph.rules.families import RULES

FIRST, LAST = 7, 28
NO_RULE = "unknown: what it does is tried by running only"
_HEAD = f"""# How each operator is read

What the server shows of a file by reading it holds for every number of steps and for every value: each step of each
sequence is computed from itself and from the states of the cells. For that it follows the axes of batch and of time
through the graph by a rule for each operator. These are the rules of the operators of ONNX, versions {FIRST} to {LAST}
of its default domain. "Mixes" is said of a node that computes over the axis of steps (or of sequences); over any other
axis the same operator is local. What reaches n steps back, and none ahead, becomes a state of the sequence: a ring of
the last elements of the tensor that is looked back at. Where a file takes the last n steps of a sequence (`x[:, -n:]`)
and the first steps have fewer, they are given fewer, as in the file: such sequences run one by one, and what runs over
those steps, cells too, runs anew at each step. The first step of a sequence, where later ones are compared with it
(`x - x[:, :1]`), is held as a state. Where a file drops the first steps (`x[:, 5:]`, a convolution without padding),
these have no answer, and the states of cells wait for the first that has. What depends on the number of the step alone
(a range along time, a sum of ones, the front of a table) is counted as a state.

This page is made by `python -m stepgraph.rules.listing > docs/reading.md`.

| operator | since version | rule |
|---|---|---|
"""


_OTHERS = """
Of other domains (`ai.onnx.ml`, as scikit-learn's exporters write them; `com.microsoft`, onnxruntime's own), besides
those of `com.microsoft` that do what the standard's of that name do:

| operator | rule |
|---|---|
"""


def page() -> str:
    others = sorted((f"{entry.domain}.{name}", entry.says) for name, entry in RULES.items() if entry.domain)
    table = "".join(f"| {name} | {since} | {says} |\n" for name, since, says in _lines())
    return _HEAD + table + _OTHERS + "".join(f"| {name} | {says} |\n" for name, says in others)


def _lines() -> Iterator[tuple[str, str, str]]:
    versions = defaultdict[str, set[int]](set)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= LAST:
            versions[schema.name].add(schema.since_version)
    for name, since in sorted(versions.items()):
        first = max((version for version in since if version <= FIRST), default=FIRST)
        known = sorted(version for version in since if version >= first)
        yield (
            name,
            ", ".join(map(str, known)),
            entry.says if (entry := RULES.get(name)) and not entry.domain else NO_RULE,
        )


if __name__ == "__main__":
    print(page(), end="")
