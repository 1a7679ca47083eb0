"""What bounds the clients of a server is made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from server.durability.null_keeper import NullKeeper
from server.edge.backend import Backend
from server.runtime import turns
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


async def test_between_two_turns_of_long_work_whatever_else_the_server_has_to_do_goes_first() -> None:
    now, calls, done = 0.0, list[Any](), 0

    def work() -> Iterator[None]:
        nonlocal done, now
        while True:
            done += 1
            now += turns.SLICE
            yield

    nothing = cast("Any", None)
    backend = Backend(Settings(), nothing, nothing, NullKeeper())
    backend.turns._later = calls.append
    backend.turns._clock = lambda: now
    backend.turns.line().run(work())
    assert done == 1
    now += turns.REST / 2  # others did something
    calls.pop()()
    assert done == 1
    now += turns.REST
    calls.pop()()
    assert done == 2
