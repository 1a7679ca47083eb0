"""Triton's `perf_analyzer`, unchanged, in sequence mode: `make test-clients` needs pip, and apt for a library of it.

It is the binary in the wheel of tritonclient 2.51.0, which runs where newer ones want a newer glibc.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.running_server import ROOT, RunningServer
from tests.zoo import repository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.zoo import Zoo

WHEELS = "tritonclient==2.51.0", "nvidia-cuda-runtime-cu12"


@pytest.fixture(scope="module")
def perf_analyzer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The binary, and the environment in which it finds its libraries."""
    folder = tmp_path_factory.mktemp("perf-analyzer")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *WHEELS]
    subprocess.run(pip, check=True, timeout=300)
    subprocess.run(["apt-get", "download", "libb64-0d"], cwd=folder, check=True, timeout=300, capture_output=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    (binary,) = folder.rglob("perf_analyzer")
    binary.chmod(0o755)
    found = {str(path.parent) for name in ("libb64.so.*", "libcudart.so.*") for path in folder.rglob(name)}
    return binary, os.environ | {"LD_LIBRARY_PATH": ":".join(sorted(found))}


@pytest.fixture(scope="module", params=["http2", "grpc"])
def address(request: pytest.FixtureRequest, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = repository(zoo, tmp_path_factory.mktemp("models"), "lstm", "gru")
    (models / "recall").symlink_to(ROOT / "models" / "recall")
    with RunningServer(models, "--transport", request.param) as server:
        yield server.ready().address


@pytest.mark.parametrize("model", ["recall", "lstm"])
@pytest.mark.parametrize("how", [("--streaming",), ("--async",), ("--streaming", "--sequence-id-range", "1:9")])
def test_perf_analyzer_completes_in_sequence_mode(
    perf_analyzer: tuple[Path, dict[str, str]], address: str, model: str, how: tuple[str, ...]
) -> None:
    binary, environment = perf_analyzer
    command = [str(binary), "-m", model, "-u", address, "-i", "grpc", "--concurrency-range", "4", "--sequence-length"]
    command += ["10", "--measurement-interval", "500", "--max-trials", "4", "--stability-percentage", "999", *how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    requests, inferences = (
        int(re.search(rf"{what} count: (\d+)", done.stdout).group(1)) for what in ("Request", "Inference")
    )
    assert requests > 0
    assert abs(inferences - requests) <= 0.05 * requests + 8  # the windows of both begin and end at about the same time
    assert "Sequence count" in done.stdout
