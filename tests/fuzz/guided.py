"""What is fuzzed, changed so that libFuzzer sees what it does. That takes seconds: once for all targets."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import atheris

with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["server", "tidegate"]):  # it names each module
    from tests.fuzz.targets import LONGEST, TARGETS

__all__ = ["LONGEST", "TARGETS"]
