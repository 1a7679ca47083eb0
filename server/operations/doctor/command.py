"""`python -m server doctor`: takes the settings of the server, and says of each thing whether it is as it should be.

Exit status: 0 nothing is at fault, 1 something is, 2 a setting is wrong.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Literal

from server.operations.check import print_lines
from server.operations.doctor import machine, network, storage
from server.operations.doctor.finding import FAULT, OK, WARNING, Finding
from server.options import Parser, add_options, settle
from server.settings import Settings
from stepgraph.report.drawing import Line
from tidegate.admin.words import counted

_STYLES: dict[str, Literal["", "good", "bad"]] = {OK: "good", WARNING: "", FAULT: "bad"}


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    parser = Parser(
        prog="python -m server doctor",
        usage="%(prog)s [--json] [--quick] [OPTION VALUE of the server]...",
        description="Looks at all that a server with these settings needs, and says what to mend.",
        epilog="Exit status: 0 nothing is at fault, 1 something is, 2 a setting is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--quick", action="store_true", help="load no model file; say what the cache knows of it")
    add_options(parser, [f.name for f in fields(Settings)])
    given = parser.parse_args(list(arguments))
    settings = settle(parser, vars(given), environment)
    found = list[Finding]()
    for finding in _findings(settings, environment, given.quick):
        found.append(finding)
        if not given.json:
            print_lines(_lines(finding), environment)
    counts = {level: sum(one.level == level for one in found) for level in (OK, WARNING, FAULT)}
    if given.json:
        print(json.dumps({**counts, "findings": [asdict(one) for one in found]}, indent=2))
    else:
        print(f"{counts[OK]} ok, {counted(counts[WARNING], WARNING)}, {counted(counts[FAULT], FAULT)}")
    sys.stdout.flush()
    return 1 if counts[FAULT] else 0


def _findings(settings: Settings, environment: Mapping[str, str], quick: bool) -> Iterator[Finding]:
    yield from machine.configuration(settings, environment)
    yield from machine.resources(settings)
    yield from network.ports(settings)
    yield from network.certificates(settings)
    yield from network.tokens(settings)
    yield from storage.folders(settings)
    yield from storage.store(settings)
    yield from storage.models(settings, quick)


def _lines(finding: Finding) -> list[Line]:
    lines = [Line(f"{finding.level:8} {finding.subject:12} {finding.text}", _STYLES[finding.level])]
    return [*lines, Line(f"{'':21} -> {finding.mend}")] if finding.mend else lines
