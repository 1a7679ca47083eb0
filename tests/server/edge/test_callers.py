from __future__ import annotations

import pytest

from server.edge.callers import caller_of


class Context:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:50123", "ipv4:10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50123", "ipv6:2001:db8:1:2::"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50123", "ipv6:fe80::"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:50123", "ipv4:10.0.0.1"),
        ("unix:/run/tidegate.sock", "unix:/run/tidegate.sock"),
        ("unix:", "unix:"),
    ],
)
def test_a_caller_is_a_host_without_its_port_and_of_ipv6_the_part_that_is_one_customers(
    peer: str, address: str
) -> None:
    assert caller_of(Context(peer)).address == address
