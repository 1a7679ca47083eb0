"""A process that `bench` starts is forked from one that has imported what it needs, where a test asks for `forked`."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from bench.processes import child
from tests.forked import ForkedProcess, Forker

NEEDED = ("bench.attacks.every", "bench.client.inference", "bench.client.loop", "server.operations.lifecycle")


@cache
def _forker() -> Forker:
    return Forker(*NEEDED, "server.stores.sqlite.store", "stepgraph.loading", "uvloop")


def _popen(
    command: Sequence[str],
    stderr: IO[str],
    env: Mapping[str, str],
    cwd: Path | None,
    **_: Any,  # noqa: ANN401 - what is the same for all of them
) -> ForkedProcess:
    """`subprocess.Popen`, as `Child` calls it for `python -m` and a module of this checkout."""
    _, option, program, *arguments = command
    assert (option, cwd) == ("-m", None)
    (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
    process = _forker().start(program, arguments, env, pipes=(theirs_in, theirs_out, stderr.fileno()))
    os.close(theirs_in)
    os.close(theirs_out)
    process.stdin, process.stdout = os.fdopen(ours_in, "w"), os.fdopen(ours_out)
    return process


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"Popen": _popen, "PIPE": subprocess.PIPE, "TimeoutExpired": subprocess.TimeoutExpired}
    monkeypatch.setattr(child, "subprocess", SimpleNamespace(**ours))
