"""Ctrl-C at any moment: no traceback, and the exit status that a shell expects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidegate.fake_server import FakeServer

ROOT = Path(__file__).parents[3]

# Python imports this by itself, before anything else: it strikes while a module is imported, or the interpreter ends.
STRIKE = """
import atexit, importlib.abc, os, signal, sys

def strike():
    os.kill(os.getpid(), signal.SIGINT)

class Import(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["STRIKE_AT"]:
            os.environ["STRIKE_AT"] = ""
            try:
                strike()
            except KeyboardInterrupt:
                raise ImportError("an import that makes something else of whatever is raised in it")

class Finaliser:
    def __del__(self):
        strike()

sys.meta_path.insert(0, Import())
if os.environ["STRIKE_AT"] == "the end":
    atexit.register(strike)
if os.environ["STRIKE_AT"] == "a finaliser":
    class Connecting(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "tidegate.cli.arguments":  # nearly the last import; then something is finalised while it runs
                import tidegate.cli.pages
                tidegate.cli.pages.table = lambda *_: (Finaliser(), [""])[1]
    sys.meta_path.insert(0, Connecting())
"""


def stopped_at(moment: str, tmp_path: Path, *command: str) -> tuple[int, str]:
    (tmp_path / "sitecustomize.py").write_text(STRIKE)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "STRIKE_AT": moment}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=240
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "moment", ["tidegate.cli.running", "numpy", "google.protobuf", "grpc", "tidegate.client", "the end", "a finaliser"]
)
def test_an_interrupt_of_the_command_is_quiet_at_any_moment(server: FakeServer, tmp_path: Path, moment: str) -> None:
    command = ["-m", "tidegate.cli.command", "--server", server.address, "models"]
    assert stopped_at(moment, tmp_path, *command) == (130, "")


@pytest.mark.parametrize("moment", ["demo.demonstration", "numpy", "rich.progress", "grpc", "training.errors"])
def test_an_interrupt_of_the_demonstration_is_quiet_while_it_is_imported(tmp_path: Path, moment: str) -> None:
    command = ["-m", "demo", "--folder", str(tmp_path)]
    assert stopped_at(moment, tmp_path, *command) == (130, "demo: stopped\n")


def test_an_interrupt_that_is_ignored_stays_so(server: FakeServer, tmp_path: Path) -> None:
    command = f"trap '' INT; {sys.executable} -m tidegate.cli.command --server {server.address} models"
    (tmp_path / "sitecustomize.py").write_text(STRIKE)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "STRIKE_AT": "grpc"}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"toy" in done.stdout
