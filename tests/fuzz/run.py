"""One target in a process of its own, and what it came to."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.running_server import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """`fault` is the end of what libFuzzer says if an input broke a promise, else empty."""

    target: str
    cases: int
    branches: int  # of the code that was reached
    memory: int  # MiB
    fault: str


def run(target: str, folder: Path, *options: str) -> Outcome:
    """`options` are libFuzzer's, for example -runs=1000 or -max_total_time=60."""
    command = [sys.executable, "-m", "tests.fuzz.one", target, str(folder / target / "corpus"), *options]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    last = re.search(r"#(\d+)\s+DONE\s+cov: (\d+)", done.stderr)
    memory = re.findall(r"rss: (\d+)Mb", done.stderr)
    cases, branches = (int(last[1]), int(last[2])) if last else (0, 0)
    fault = "" if last and not done.returncode else done.stderr[-3_000:]
    return Outcome(target, cases, branches, int(memory[-1]) if memory else 0, fault)
