"""Routes as values: which one an id has, and what a header can carry."""

import pytest

from tidegate.protocol.opening import Claim, Order
from tidegate.protocol.route import new_route, route_of
from tidegate.trace import NOTHING


@pytest.mark.parametrize(
    ("sequence_id", "route"),
    [("tide-5be07a9c41d2-17", "tide"), ("0a1b2c3d-x", "0a1b2c3d"), ("a--b", "a"), ("whole", "whole"), ("a-b-c", "a")],
)
def test_the_route_of_an_id_is_what_stands_before_its_first_hyphen(sequence_id: str, route: str) -> None:
    assert route_of(sequence_id) == route


@pytest.mark.parametrize("sequence_id", ["", "-17", "Tide-17", "ä-17", "a\n-17", "a b", "z" * 33])
def test_an_id_that_a_server_would_not_have_made_leads_anywhere(sequence_id: str) -> None:
    first, second = route_of(sequence_id), route_of(sequence_id)
    assert first != second
    assert route_of(f"{first}-17") == first


def test_a_connection_for_new_sequences_has_a_new_route_and_one_for_a_resume_that_of_the_first_id() -> None:
    assert len({new_route() for _ in range(100)}) == 100
    order = Order("toy", 0, 1, NOTHING)
    assert order.route() != order.route()
    assert Claim(("tide-1", "gate-2"), "secret", (0, 0), NOTHING).route() == "tide"
