"""The ids of sequences: their route in front, and never the same twice."""

from __future__ import annotations

import re

import pytest

from server.durability.sequence import fit_route, new_ids


@pytest.mark.parametrize("given", ["0", "tide", "0a1b2c3d", "z" * 32])
def test_a_route_that_ids_can_begin_with_is_taken_as_it_is(given: str) -> None:
    assert fit_route(given) == given


@pytest.mark.parametrize("given", ["", "z" * 33, "Tide", "a-b", "a b", "a\n", "ä", "٣", "a,b", "oip"])
def test_any_other_gives_way_to_a_new_one(given: str) -> None:
    made = {fit_route(given) for _ in range(100)}
    assert len(made) == 100
    assert given not in made
    assert all(fit_route(route) == route for route in made)


def test_ids_begin_with_their_route_and_are_never_the_same() -> None:
    ids = [*new_ids(100, "tide"), *new_ids(100, "tide"), *new_ids(100, "gate")]
    assert len(set(ids)) == 300
    assert [id_.partition("-")[0] for id_ in ids] == ["tide"] * 200 + ["gate"] * 100


def test_ids_do_not_tell_how_many_others_there_are_and_none_can_be_worked_out_from_another() -> None:
    ids = [new_ids(2, "tide") for _ in range(100)]
    assert all(re.fullmatch("tide-[0-9a-f]{16}-[01]", id_) for pair in ids for id_ in pair)
    assert len({first.split("-")[1] for first, _ in ids}) == 100
