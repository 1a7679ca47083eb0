"""What a model file holds and whether it can be served, found out in a process of its own."""

from dataclasses import dataclass, replace
from pathlib import Path

from stepgraph.errors import ModelRefused
from stepgraph.isolation.sandbox import Limits, Sandbox
from stepgraph.report import page
from stepgraph.report.report import Report

_LIMITS = Limits(seconds=60, memory_mib=4096)


@dataclass(frozen=True)
class Checked:
    """A report and, as text, its page of 80 columns."""

    report: Report

    def __str__(self) -> str:
        return "\n".join(page.printable(line.text) for line in page.lines(self.report))


def check(path: str | Path) -> Checked:
    """What a file holds; `print` shows it as a page. Whatever is wrong with the file is in it.

    Raises:
        OSError: there is no such file.
    """
    with Sandbox(_LIMITS) as sandbox:
        return Checked(examined(Path(path), sandbox))


def examined(path: Path, sandbox: Sandbox, *, strict: bool = False) -> Report:
    """The report of a file from a sandbox that is open already; `strict` refuses what was tried and is not proved."""
    size = path.stat().st_size
    try:
        report = replace(sandbox.ask(Report, "examine", path), file=str(path))
        objection = report.proof.objection if strict and report.proof else ""
        return replace(report, served=False, reason=objection) if objection else report
    except ModelRefused as refusal:
        return Report(str(path), served=False, bytes=size, reason=str(refusal))
