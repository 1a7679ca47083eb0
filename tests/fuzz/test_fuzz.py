"""The short form of `make fuzz`: some thousands of inputs, guided by what the code does with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("atheris", reason="it has wheels for Linux alone")

from tests.fuzz.run import run

if TYPE_CHECKING:
    from pathlib import Path

CASES = {"connection": 500, "messages": 4_000, "calls": 20_000, "inference": 5_000}


@pytest.mark.parametrize("target", CASES)
def test_any_bytes_are_read_or_refused_and_nobody_elses_numbers_change(tmp_path: Path, target: str) -> None:
    outcome = run(target, tmp_path, f"-runs={CASES[target]}", "-seed=1")
    assert not outcome.fault
    assert outcome.cases >= CASES[target]
    assert outcome.branches > 0
