"""`python -m server check FILE`: says in one page what a model file holds and whether it will be served, and why not.

Loads the file as the server would, and looks at what came of it; serves nothing. First the report as a value, then the
page or JSON. Exit status: 0 it will be served, 1 it is refused, 2 there is no such file.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx
from onnx import inliner

from server import branches, inspection, names, page, sidecar
from server.drawing import Line
from server.errors import ModelRefused
from server.loader import load
from server.report import Report
from server.repository import FILE

_TO_ASCII = str.maketrans("─│┌┐└┘├┤┬┴╮╯◀▼", "-|++++++++++<v")


def check(path: Path) -> Report:
    """The report of a file. Whatever is wrong with the file is in it."""
    model = _read(path)
    report = inspection.described(str(path), path.stat().st_size, model)
    try:
        loaded = load(path, max(inspection.BATCHES), 0.0)
    except ModelRefused as refusal:
        return inspection.refused(report, refusal, model)
    return inspection.served(report, loaded, model, sidecar.read(path).fixed)


def _read(path: Path) -> onnx.ModelProto | None:
    """The graph as the loader sees it, without weights that lie in other files; None if it cannot be read."""
    try:
        model = onnx.load(path, load_external_data=False)
        if names.unreadable(model) is not None:
            return None
        model = inliner.inline_local_functions(model)
    except Exception:  # noqa: BLE001 # whatever a damaged file makes the library do: the loader says what is wrong
        return None
    try:
        said = sidecar.read(path)
        fixed = sidecar.fix(model, said.fixed)
        resolved = branches.resolve(fixed)
        decided = all(node.op_type != "If" for node in resolved.graph.node)
        return resolved if decided else branches.resolve(sidecar.cut(fixed, said.block))
    except Exception:  # noqa: BLE001 # then it is shown as it stands
        return model


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server check",
        description="Says what a model file holds, and whether it will be served.",
        epilog="Exit status: 0 it will be served, 1 it (or one of several) is refused, 2 there is no such file.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=f"an ONNX file, or a folder of NAME/VERSION/{FILE}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    options = parser.parse_args(list(arguments))
    try:
        files = _files(options.file)
    except OSError as error:
        parser.error(f"{options.file}: {error.strerror or error}")
    if not files:
        parser.error(f"there is no VERSION/{FILE} or NAME/VERSION/{FILE} in the folder {options.file}")
    try:
        return _one(files[0], options.json, environment) if len(files) == 1 else _several(files, options.json)
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 # a fault of ours: in a sentence, and not the file's refusal
        print(f"the check itself failed with {type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _files(path: Path) -> list[Path]:
    """The file itself, or the models of a folder: of one version, of one name, or of a repository."""
    if not path.is_dir():
        path.open("rb").close()
        return [path]
    patterns = (FILE, f"*/{FILE}", f"*/*/{FILE}")
    return next((found for found in (sorted(path.glob(pattern)) for pattern in patterns) if found), [])


def _one(path: Path, as_json: bool, environment: Mapping[str, str]) -> int:
    report = check(path)
    if as_json:
        print(json.dumps(asdict(report), indent=2), flush=True)
    else:
        _print(page.lines(report), environment)
    return 0 if report.served else 1


def _several(paths: Sequence[Path], as_json: bool) -> int:
    reports = []
    for path in paths:
        reports.append(check(path))
        if not as_json:
            _print([_summary(reports[-1])], os.environ)
    served = sum(report.served for report in reports)
    if as_json:
        print(json.dumps({"served": served, "models": [asdict(report) for report in reports]}, indent=2), flush=True)
    else:
        print(f"{served} of {len(reports)} will be served", flush=True)
    return 0 if served == len(reports) else 1


def _summary(report: Report) -> Line:
    name = str(Path(report.file).parent)
    if not report.served:
        return Line(f"refused  {name}: {report.reason}", "bad")
    kinds = ", ".join(f"{cell.kind} {cell.input_size} -> {cell.hidden_size}" for cell in report.cells)
    return Line(f"served   {name}: {kinds}")


def _print(lines: Iterable[Line], environment: Mapping[str, str]) -> None:
    """Writes lines as the terminal or file behind stdout can show them."""
    encoding = sys.stdout.encoding or "ascii"
    colours = {"good": "1;32", "bad": "31"} if sys.stdout.isatty() and not environment.get("NO_COLOR") else {}
    for line in lines:
        text = page.printable(line.text)
        if not _encodes("─◀", encoding):
            text = text.translate(_TO_ASCII)
        text = text.encode(encoding, "replace").decode(encoding)
        print(f"\x1b[{colours[line.style]}m{text}\x1b[0m" if line.style in colours else text)
    sys.stdout.flush()


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
