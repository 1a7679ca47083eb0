"""One target in a process of its own, and what it came to.

It is the fork of a process that has what is fuzzed, ready to guide libFuzzer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tests.forked import Forker

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


@cache
def _forker() -> Forker:
    return Forker("tests.fuzz.guided")


def run(target: str, folder: Path, *options: str) -> Outcome:
    """`options` are libFuzzer's, for example -runs=1000 or -max_total_time=60."""
    done = _forker().run("tests.fuzz.one", [target, str(folder / target / "corpus"), *options])
    said = done.stderr.decode(errors="replace")
    last = re.search(r"#(\d+)\s+DONE\s+cov: (\d+)", said)
    memory = re.findall(r"rss: (\d+)Mb", said)
    cases, branches = (int(last[1]), int(last[2])) if last else (0, 0)
    fault = "" if last and not done.returncode else said[-3_000:]
    return Outcome(target, cases, branches, int(memory[-1]) if memory else 0, fault)
