"""What is loaded by which import, in fresh interpreters."""

import subprocess
import sys
from pathlib import Path

import pytest

import tidegate

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def loaded(statement: str) -> set[str]:
    return set(run(f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})").split())


@pytest.mark.parametrize("module", ["tidegate", "tidegate.errors", "tidegate.answers"])
def test_answers_and_errors_need_numpy_alone(module: str) -> None:
    assert not loaded(f"import {module}") & {"grpc", "google", "asyncio", "socket", "threading"} - loaded(
        "import numpy"
    )


@pytest.mark.parametrize("module", ["wire", "inputs", "state", "trace", "model", "messages", "protocol.conversation"])
def test_what_reads_and_writes_messages_loads_no_grpc(module: str) -> None:
    assert "grpc" not in loaded(f"import tidegate.{module}")


def test_every_name_of_the_client_is_there_when_it_is_asked_for() -> None:
    code = """
import sys, tidegate
assert "grpc" not in sys.modules
names = dir(tidegate)
for name in tidegate.__all__:
    assert name in names and getattr(tidegate, name).__name__ == ("Client" if name == "connect" else name), name
from tidegate import *
assert Client is tidegate.client.Client and "grpc" in sys.modules
"""
    run(code)


@pytest.mark.parametrize("module", ["aio", "client", "inputs", "model", "sequence", "state", "trace", "wire"])
def test_a_module_of_the_client_is_found_without_an_import_of_its_own(module: str) -> None:
    assert run(f"import tidegate\nprint(tidegate.{module}.__name__)").strip() == f"tidegate.{module}"


def test_a_name_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="'tidegate' has no attribute 'Konnekt'"):
        _ = tidegate.Konnekt
