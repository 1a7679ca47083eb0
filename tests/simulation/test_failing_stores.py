"""What a server does while its store takes no writes, so that it will take them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.errors import StoreFailed
from tests.simulation.world import RETENTION, World

if TYPE_CHECKING:
    from tests.simulation.users import User

ROWS = np.random.default_rng(7).normal(size=(600, 3)).astype(np.float32)


def refuse(*_: object) -> None:
    raise StoreFailed("its memory is full")


def begin(world: World) -> tuple[User, User]:
    """Two users whose sequences are written."""
    for who in range(2):
        world.channels[who].home = 0
        world.open(who, 1)
        world.users[who].tell("chunk", ROWS[:5])
    world.advance(3.0)
    return world.users[0], world.users[1]


def test_a_store_that_takes_no_writes_is_still_emptied_of_what_nobody_came_back_to(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path_factory.getbasetemp(), idle_seconds=10 * RETENTION)
    stays, leaves = begin(world)
    (gone,) = leaves.ids
    world.users.remove(leaves)
    leaves.task.cancel()
    world.loop.run(world.shared(1).close())
    world.advance(3.0)
    with monkeypatch.context() as patched:
        patched.setattr(world.store.memory, "write", refuse)
        stays.tell("chunk", ROWS[5:9])  # there is always something to write
        world.advance(RETENTION + 20.0)
        assert world.store.why_gone(gone) == "SEQUENCE_EXPIRED"
    world.close()
