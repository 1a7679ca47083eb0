"""nghttp2's load generator: unary calls in clear and over TLS. `make test-clients` needs h2load."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.running_server import RunningServer
from tests.security.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("h2load") is None, reason="apt-get install nghttp2-client")

CALLS = 5_000
HEADERS = ["-H", "content-type: application/grpc", "-H", "te: trailers"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_call_of_many_connections_is_answered(tmp_path: Path, scheme: str) -> None:
    given = Authority(tmp_path / "tls").options() if scheme == "https" else []
    body, models = tmp_path / "body", tmp_path / "models"
    body.write_bytes(bytes(5))  # an empty message
    models.mkdir()
    with RunningServer(models, "--transport", "http2", *given) as server:
        url = f"{scheme}://{server.ready().address}/grpc.health.v1.Health/Check"
        load = ["h2load", "-n", str(CALLS), "-c", "20", "-m", "10", *HEADERS, "-d", str(body), url]
        done = subprocess.run(load, capture_output=True, text=True, timeout=120, check=True)
    assert f"{CALLS} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert f"({CALLS * 7}) data" in done.stdout, "each got its message"
