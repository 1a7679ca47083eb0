"""What clients connect to."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from server.edge.transports import GrpcTransport, Http2Transport
from server.operations.connections import transport
from server.runtime.loop_turn import ENDLESS
from server.settings import Settings

if TYPE_CHECKING:
    import pytest


async def test_where_there_is_no_epoll_grpcios_transport_serves_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(transport(Settings(), False, None, ENDLESS), Http2Transport)
    assert not caplog.records
    monkeypatch.delattr(select, "epoll")
    assert isinstance(transport(Settings(), False, None, ENDLESS), GrpcTransport)
    assert "needs Linux's epoll" in caplog.text
