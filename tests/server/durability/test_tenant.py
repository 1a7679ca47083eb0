"""The ids of sequences: their route in front, and never the same twice."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from server.durability.sequence import fit_route, new_ids


@pytest.mark.parametrize("given", ["0", "tide", "0a1b2c3d", "z" * 32])
def test_a_route_that_ids_can_begin_with_is_taken_as_it_is(given: str) -> None:
    assert fit_route(given) == given


@pytest.mark.parametrize("given", ["", "z" * 33, "Tide", "a-b", "a b", "a\n", "ä", "٣", "a,b"])
def test_any_other_gives_way_to_a_new_one(given: str) -> None:
    made = {fit_route(given) for _ in range(100)}
    assert len(made) == 100
    assert given not in made
    assert all(fit_route(route) == route for route in made)


def test_ids_begin_with_their_route_and_are_never_the_same() -> None:
    ids = [*new_ids(100, "tide"), *new_ids(100, "tide"), *new_ids(100, "gate")]
    assert len(set(ids)) == 300
    assert [id_.partition("-")[0] for id_ in ids] == ["tide"] * 200 + ["gate"] * 100


def test_no_other_process_makes_the_same_ids() -> None:
    code = "from server.durability.sequence import new_ids; print(*new_ids(3, 'tide'))"
    made = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(2)]
    ids = [id_ for done in made for id_ in done.stdout.split()]
    assert len(set(ids)) == 6
    assert all(re.fullmatch("tide-[0-9a-f]{12}-[0-2]", id_) for id_ in ids)
