"""A server that keeps no checkpoints: sequences live and end with their stream, and what needs a store says so."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from server.caller import Caller
from server.durability.null_keeper import NullKeeper
from server.errors import OverLimit, Reason
from server.settings import Settings
from server.streams.allowance import Allowance
from server.streams.events import Answered, Closed, Failed, Moved, Opened
from server.streams.stream import Stream
from server.streams.trace import Manner, Selection
from tests.server.world import versions
from tests.shelf import MODEL, Shelf

ROW = np.ones((1, 3), np.float32)
MANNER = Manner(Selection())


def test_sequences_end_with_their_stream_and_what_needs_a_store_says_so(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    settings = Settings(max_sequences=4, spot_us=1e9)
    shelf = Shelf(versions(tmp_path_factory.getbasetemp()), settings)
    told: list[Any] = []

    async def live() -> None:
        shelf.start()
        stream = Stream(shelf, NullKeeper(), 4, Allowance(2**20), told.append, Caller("ipv4:10.0.0.1"), "route")
        stream.open(0, 2, MODEL, 1, MANNER)
        stream.steps(0, 0, [("x", ROW)])
        while not any(isinstance(event, Answered) for event in told):  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)
        stream.rewind(0, 0)
        stream.move(0, 2)
        stream.opening.resume(2, ["route-1"], "token", [3], MANNER)
        stream.open(2, 1, MODEL, 1, MANNER)  # the handle is free again
        stream.close(0, 1)
        stream.abandon()
        shelf.assert_empty()
        shelf.stop()

    asyncio.run(live())
    opened, answered, rewound, moved, resumed, again, closed = told
    assert (type(opened), len(set(opened.ids)), opened.token) == (Opened, 2, "")
    assert isinstance(answered, Answered)
    assert (type(rewound), rewound.error.reason) == (Failed, Reason.CHECKPOINT_GONE)
    assert (type(moved), moved.version) == (Moved, 2)
    assert (type(resumed), resumed.error.reason) == (Failed, Reason.UNKNOWN_SEQUENCE)
    assert (type(again), type(closed)) == (Opened, Closed)


def test_an_owner_and_an_address_have_no_more_than_they_may(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(max_sequences=8, max_per_owner=2, max_per_address=3, spot_us=1e9)
    shelf = Shelf(versions(tmp_path_factory.getbasetemp()), settings)
    keeper = NullKeeper(settings)
    told: list[Any] = []

    async def live() -> None:
        shelf.start()
        stream = Stream(shelf, keeper, 8, 2**20, told.append, Caller("ipv4:10.0.0.1"), "route")
        for _ in range(2):  # what has left gives its place back
            stream.open(0, 2, MODEL, 1, MANNER, None, "ann")
            stream.open(2, 1, MODEL, 1, MANNER, None, "bob")
            for who in ("ann", "bob"):
                with pytest.raises(OverLimit, match="is the limit"):
                    stream.open(3, 1, MODEL, 1, MANNER, None, who)
            stream.close(0, 3)
        stream.abandon()
        shelf.assert_empty()
        shelf.stop()

    asyncio.run(live())
    assert [type(one) for one in told] == 2 * [Opened, Opened, Closed]
