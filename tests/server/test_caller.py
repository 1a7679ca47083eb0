from __future__ import annotations

import pytest

from server.caller import Caller, Right, account_of
from server.errors import PermissionDenied, Reason


def test_a_name_is_another_owner_at_each_address() -> None:
    owners = {Caller(address).named(who).owner for address in ("ipv4:10.0.0.1", "ipv4:10.0.0.2") for who in ("", "ann")}
    assert len(owners) == 4


def test_an_address_has_all_of_its_owners() -> None:
    caller = Caller("ipv6:[2001:db8::1]")
    assert {account_of(caller.named(who).owner) for who in ("", "ann", "ann of the mill")} == {caller.address}


def test_who_has_a_token_is_counted_by_it_wherever_it_comes_from() -> None:
    callers = [Caller(address, token="mill").named("ann") for address in ("ipv4:10.0.0.1", "ipv4:10.0.0.2")]
    assert {account_of(caller.owner) for caller in callers} == {callers[0].account} == {"token:mill"}


def test_a_name_that_was_stored_before_is_an_address_of_its_own() -> None:
    assert account_of("ann") == "ann"


def test_a_right_is_for_the_models_that_the_token_names() -> None:
    caller = Caller(token="mill", rights=frozenset({Right.PREDICT}), models=("weather*", "tide"))
    assert [caller.may(Right.PREDICT, model) for model in ("weather", "weather-2", "tide", "tides")] == [1, 1, 1, 0]
    assert [caller.sees(model) for model in ("weather", "tides")] == [True, False]
    assert not caller.may(Right.OBSERVE, "weather")
    for right, model in ((Right.PREDICT, "tides"), (Right.ADMINISTER, "tide"), (Right.OBSERVE, "")):
        with pytest.raises(PermissionDenied, match="token 'mill' may not") as refused:
            caller.require(right, model)
        assert refused.value.reason is Reason.PERMISSION_DENIED


def test_the_right_to_a_model_holds_for_its_aliases() -> None:
    caller = Caller(models=("weather",))
    assert caller.may(Right.PREDICT, "weather@stable")
    assert not caller.may(Right.PREDICT, "weather2@weather")


def test_who_may_administer_may_observe() -> None:
    assert Caller(rights=frozenset({Right.ADMINISTER})).may(Right.OBSERVE, "weather")
    assert not Caller(rights=frozenset({Right.OBSERVE})).may(Right.ADMINISTER)
