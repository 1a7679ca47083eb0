"""The server opens no connection but those that clients make to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tidegate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.running_server import RunningServer

LISTEN = "0A"


def sockets(process: int) -> Iterator[tuple[str, str, str, str]]:
    """Protocol, local and remote address and state of each socket of a process."""
    inodes = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            inodes.update(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
        except FileNotFoundError:
            continue  # closed while we looked
    for protocol in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        table = Path(f"/proc/{process}/net/{protocol}")
        for line in table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[9] in inodes:
                yield protocol, fields[1], fields[2], fields[3]


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux' /proc")
def test_a_server_that_works_has_no_socket_but_its_port_s(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    server = start(lstm_only, environment={"CI": None, "ORT_DISABLE_TELEMETRY": None})
    process = server.process.pid
    seen = set()
    while not any("serving 1 model on" in line for line in server.lines):  # all the while that it starts and loads
        seen.update(sockets(process))
        assert server.process.poll() is None, server.log
    server.ready()
    port = f"{int(server.address.rsplit(':', 1)[1]):04X}"
    with tidegate.connect(server.address) as client, client.sequence("lstm") as sequence:
        for _ in range(50):
            sequence.step(np.zeros(3, np.float32))
            seen.update(sockets(process))
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    assert not [v for v in variables if v.startswith((b"CI=", b"ORT_DISABLE_TELEMETRY="))]
    assert {protocol for protocol, *_ in seen} <= {"tcp", "tcp6"}
    assert {local.rsplit(":", 1)[1] for _, local, _, _ in seen} == {port}
    assert any(state == LISTEN for *_, state in seen)
    assert any(state != LISTEN for *_, state in seen)
