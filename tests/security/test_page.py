"""What docs/secure.md shows, done in an empty folder."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import tidegate
from tests.security.test_tls import command

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.running_server import RunningServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "secure.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_certificates_of_the_page_are_served_and_trusted(
    start: Callable[..., RunningServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, serve, ask, make_client = blocks("sh")[:4]
    checked = "openssl verify -CAfile ca.pem client.pem server.pem"
    subprocess.run(["sh", "-ec", f"{make}\n{make_client}\n{checked}"], cwd=tmp_path, check=True, capture_output=True)
    given = re.sub(r"(\w+\.(pem|key))", rf"{tmp_path}/\1", serve).split()[3:]
    server = start(ROOT / "models", *given).ready()
    monkeypatch.chdir(tmp_path)
    exec(blocks("py")[0].replace("50051", server.address.split(":")[1]), {"tidegate": tidegate})  # noqa: S102 - our page
    assert "recall" in capsys.readouterr().out
    for line in ask.splitlines():
        variables = dict(re.findall(r"(TIDEGATE_\w+)=(\S+)", line))
        port = server.address.split(":")[1]
        arguments = line.split("tidegate ")[-1].replace("ca.pem", str(tmp_path / "ca.pem")).split()
        environment = {"TIDEGATE_SERVER": f"localhost:{port}"} | {
            name: value.replace("50051", port).replace("ca.pem", str(tmp_path / "ca.pem"))
            for name, value in variables.items()
        }
        done = command("tidegate.cli", *arguments, environment=environment)
        assert "recall" in done.stdout, done.stderr
