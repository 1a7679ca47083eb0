from __future__ import annotations

from server.caller import Caller, address_of


def test_a_name_is_another_owner_at_each_address() -> None:
    owners = {Caller(address).named(who).owner for address in ("ipv4:10.0.0.1", "ipv4:10.0.0.2") for who in ("", "ann")}
    assert len(owners) == 4


def test_every_owner_of_an_address_is_found_to_be_of_it() -> None:
    caller = Caller("ipv6:[2001:db8::1]")
    assert {address_of(caller.named(who).owner) for who in ("", "ann", "ann of the mill")} == {caller.address}


def test_a_name_that_was_stored_before_is_an_address_of_its_own() -> None:
    assert address_of("ann") == "ann"
