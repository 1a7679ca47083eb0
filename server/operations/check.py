"""`python -m server check FILE`: a page that says what a model file holds, and whether and why not it will be served.

Has the file examined in the sandbox, with the limits that the server has, and writes the report as a page or as JSON.
Exit status: 0 it will be served, 1 it is refused, 2 there is no such file or the check itself failed, 130 stopped.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from server.options import Parser, add_options, settle
from server.repository import folder
from server.repository.folder import FILE, PLACE
from stepgraph.checking import examined
from stepgraph.isolation.sandbox import Limits, Sandbox
from stepgraph.report import page
from stepgraph.report.drawing import Line
from stepgraph.report.report import Report

_LIMITS = ("load_seconds", "load_memory_mib")
_TO_ASCII = str.maketrans("─│┌┐└┘├┤┬┴╮╯◀▼", "-|++++++++++<v")


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    parser = Parser(
        prog="python -m server check",
        description="Says what a model file holds, and whether it will be served.",
        epilog="Exit status: 0 it will be served, 1 it (or one of several) is refused, 2 there is no such file "
        "or the check itself failed, 130 it was stopped.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=f"an ONNX file, or a folder of NAME/VERSION/{FILE}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    add_options(parser, (*_LIMITS, "strict"))
    options = parser.parse_args(list(arguments))
    limits = settle(parser, vars(options), environment)
    try:
        files = _files(options.file)
    except OSError as error:
        parser.exit(2, f"{parser.prog}: {options.file}: {error.strerror or error}\n")
    if not files:
        parser.exit(2, f"{parser.prog}: there is no VERSION/{FILE} or {PLACE} in {options.file}\n")
    try:
        with Sandbox(Limits(limits.load_seconds, limits.load_memory_mib)) as sandbox:
            reports = (examined(path, sandbox, strict=limits.strict) for path in files)
            return _report(reports, len(files) > 1, options.json, environment)
    except BrokenPipeError:  # the reader, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 # a fault of this program is no refusal of the file
        print(f"the check itself failed with {type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _files(path: Path) -> list[Path]:
    """The file itself, or the models of a folder: of one version, of one name, or of a repository."""
    if not path.is_dir():
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # it may be a pipe without a writer
        return [path]
    if (path / FILE).exists():
        return [path / FILE]
    versions = sorted(found for found in path.glob(f"*/{FILE}") if folder.is_version(found.parent.name))
    if versions:
        return versions
    found = folder.look(path)
    for stray in found.strays:
        print(f"{stray.path} is passed over: {stray.reason}", file=sys.stderr)
    return sorted(model.path for model in found.models.values())


def _report(each: Iterable[Report], several: bool, as_json: bool, environment: Mapping[str, str]) -> int:
    """Reports of one file as a page, of several in a line each."""
    reports = list[Report]()
    for report in each:
        reports.append(report)
        if not as_json:
            print_lines([_summary(report)] if several else page.lines(report), environment)
    served = sum(report.served for report in reports)
    if as_json:
        models = [asdict(report) for report in reports]
        print(json.dumps({"served": served, "models": models} if several else models[0], indent=2), flush=True)
    elif several:
        print(f"{served} of {len(reports)} will be served", flush=True)
    return 0 if served == len(reports) else 1


def _summary(report: Report) -> Line:
    name = str(Path(report.file).parent)
    if not report.served:
        return Line(f"refused  {name}: {report.reason}", "bad")
    kinds = ", ".join(f"{cell.kind} {cell.input_size} -> {cell.hidden_size}" for cell in report.cells)
    return Line(f"served   {name}: {kinds}")


def print_lines(lines: Iterable[Line], environment: Mapping[str, str]) -> None:
    """Writes lines as the terminal or file behind stdout can show them."""
    encoding = sys.stdout.encoding or "ascii"
    draws = "─◀".encode(encoding, "replace").decode(encoding) == "─◀"
    colours = {"good": "1;32", "bad": "31"} if sys.stdout.isatty() and not environment.get("NO_COLOR") else {}
    for line in lines:
        text = page.printable(line.text)
        text = (text if draws else text.translate(_TO_ASCII)).encode(encoding, "replace").decode(encoding)
        print(f"\x1b[{colours[line.style]}m{text}\x1b[0m" if line.style in colours else text)
    sys.stdout.flush()
