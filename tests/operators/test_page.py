"""What docs/operate.md tells operators to type, word for word, in its order, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

import pytest

import tidegate
from server.repository import rules
from tests.operators.test_admin import ROWS, parked, the_rest
from tests.running_server import ROOT, RunningServer
from tests.torch_models import Spec, write

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
_BY_NAME = 'tidegate() {{ {python} -m tidegate.cli "$@"; }}\npython() {{ {python} "$@"; }}\nset -e -o pipefail\n'


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        write(Spec(hidden=4, seed=version), tmp_path / "models" / "weather" / str(version) / "model.onnx")
    return tmp_path / "models"


def test_every_command_of_the_page_does_what_it_says(models: Path, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'server.sqlite'}"
    (tmp_path / "old.sqlite").touch()
    with RunningServer(models, "--poll-seconds", "0.1", "--store", store) as server:
        address = server.ready().address
        id_, token, _ = parked(address, "ann", 5, "weather")
        (code,) = blocks("py")
        with redirect_stdout(StringIO()) as printed, chdir(tmp_path):
            exec(code.replace("localhost:50051", address), {"tidegate": tidegate})  # noqa: S102 - our own page
        assert printed.getvalue() == f"{id_} 3 5 ann\n"
        commands = _BY_NAME.format(python=sys.executable) + "\n".join(blocks("bash"))
        done = subprocess.run(
            ["bash", "-c", commands],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "TIDEGATE_SERVER": address, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f'"id": "{id_}"') == 3
        assert len(the_rest(address, id_, token, 5, version=2)) == len(ROWS) - 5
        said = rules.parsed((models / "weather" / "versions.toml").read_text(encoding="utf-8"))
    assert said.move == {3: 2, 1: 2}
    assert said.alias == {"stable": 2}


def test_the_file_of_rules_that_the_page_shows_is_one() -> None:
    (text,) = blocks("toml")
    assert rules.parsed(text).move == {3: 2, rules.REST: 2}
