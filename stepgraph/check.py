"""What a model file holds and whether it can be served, found out in a process of its own."""

from dataclasses import replace
from pathlib import Path

from stepgraph.errors import ModelRefused
from stepgraph.isolation.sandbox import Sandbox
from stepgraph.report.report import Report


def check(path: Path, sandbox: Sandbox) -> Report:
    """The report of a file. Whatever is wrong with the file is in it."""
    try:
        return replace(sandbox.ask(Report, "examine", path), file=str(path))
    except ModelRefused as refusal:
        return Report(str(path), served=False, bytes=path.stat().st_size, reason=str(refusal))
