from __future__ import annotations

import logging
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from server.access import authority, token_secret
from server.access.authority import Authority, Credentials
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import EVERY_RIGHT, PUBLIC_RIGHTS, Caller, Right
from server.errors import Reason, TidegateError, Unauthenticated
from server.meter import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = token_secret.make()
MILL = Token("mill", PUBLIC_RIGHTS, ("weather*",), (token_secret.digest(SECRET),), limits=Limits(open=5))
SHOWN = Credentials("ipv4:10.0.0.1", secret=SECRET)


class World:
    """An authority over a file, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_000.0
        self.file = TokenFile(folder / "tokens.json")
        self.put(MILL)
        self.authority = Authority(self.file, lambda: self.now, lambda: self.now)

    def put(self, *tokens: Token) -> None:
        with self.file.change() as kept:
            kept.clear()
            kept |= {token.name: token for token in tokens}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_token_says_who_comes_and_what_it_may(world: World) -> None:
    caller = world.authority.caller(SHOWN)
    assert (caller.account, caller.rights, caller.models) == ("token:mill", PUBLIC_RIGHTS, ("weather*",))
    assert caller.meter.limits.open == 5


def test_where_tokens_are_set_nobody_may_do_anything_without_one_not_even_on_this_machine(world: World) -> None:
    with pytest.raises(Unauthenticated, match="asks for a token") as refused:
        world.authority.caller(Credentials("unix:", here=True))
    assert (refused.value.reason, refused.value.delay) == (Reason.UNAUTHENTICATED, 0)


def test_without_a_file_of_tokens_everybody_may_predict_and_who_is_on_this_machine_may_do_everything() -> None:
    public = Authority()
    assert public.caller(Credentials("ipv4:10.0.0.1", secret=SECRET)).rights == PUBLIC_RIGHTS
    assert public.caller(Credentials("unix:", here=True)).rights == EVERY_RIGHT


def test_who_guesses_is_answered_later_each_time_and_who_knows_is_not(world: World) -> None:
    def delay(shown: Credentials) -> float:
        with pytest.raises(Unauthenticated) as refused:
            world.authority.caller(shown)
        return refused.value.delay

    assert [delay(replace(SHOWN, secret=token_secret.make())) for _ in range(6)] == [0, 0, 0, 0.05, 0.1, 0.2]
    assert delay(Credentials("ipv4:10.0.0.2", secret="tg_x")) == 0
    assert world.authority.caller(SHOWN).token == "mill"


def test_how_long_a_wrong_token_is_compared_tells_nothing_of_those_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each the digest is made, looked up, and compared in constant time where its first digits are those of one."""
    done = list[str]()

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (done.append(name), call(*given))[1]

    monkeypatch.setattr(token_secret, "digest", noted("digest", token_secret.digest))
    monkeypatch.setattr(authority, "compare_digest", noted("compare", authority.compare_digest))
    kept = MILL.digests[0]
    near = kept[:-1] + ("0" if kept[-1] != "0" else "1")  # as if somebody had found a secret with such a digest
    for wrong in ("mill", SECRET[:-1], token_secret.make(), f"{SECRET} "):
        with pytest.raises(Unauthenticated):
            world.authority.caller(replace(SHOWN, secret=wrong))
    assert set(done) <= {"digest", "compare"}
    assert done.count("digest") == 4
    assert done.count("compare") <= 4
    monkeypatch.setattr(token_secret, "digest", lambda _: near)
    done.clear()
    with pytest.raises(Unauthenticated):
        world.authority.caller(replace(SHOWN, secret="any"))
    assert done == ["compare"]


def test_a_wrong_token_costs_no_look_at_every_stream_and_a_right_one_from_the_same_address_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caller = world.authority.caller(SHOWN)
    looked = list[Caller]()
    monkeypatch.setattr(Authority, "withdrawn", lambda _, one: looked.append(one))
    with world.authority.watching(caller, lambda _: None):
        for _ in range(9):
            with pytest.raises(Unauthenticated) as refused:
                world.authority.caller(replace(SHOWN, secret=token_secret.make()))
            assert world.authority.caller(SHOWN) == caller
        assert refused.value.delay > 1
        assert not looked
        world.authority.refresh()
        assert looked == [caller]
    assert {record.message for record in caplog.records} == {f"what is no token here came from {SHOWN.address}"}


def test_what_an_account_may_is_said_as_the_file_has_it_now(world: World) -> None:
    asked = partial(world.authority.allows, "token:mill")
    assert (asked("weather-1"), asked("weather@stable"), asked("tide")) == (True, True, False)
    assert not world.authority.allows("token:other", "weather")
    world.put(replace(MILL, expires=2_000.0))
    world.authority.refresh()
    world.now = 2_000.0
    assert not asked("weather")
    world.put(replace(MILL, rights=frozenset({Right.ADMINISTER})))
    world.authority.refresh()
    assert not asked("weather")
    assert Authority().allows("ipv4:10.0.0.1", "weather")


def test_a_certificate_may_stand_for_a_secret_and_a_secret_goes_before_it(world: World) -> None:
    world.put(MILL, Token("edge", EVERY_RIGHT, certificate="edge-1"))
    assert world.authority.refresh()
    edge = Credentials("ipv4:10.0.0.1", subject="edge-1")
    assert world.authority.caller(edge).token == "edge"
    assert world.authority.caller(replace(edge, secret=SECRET)).token == "mill"
    for unknown in (replace(edge, subject="edge-2"), replace(edge, secret=token_secret.make())):
        with pytest.raises(Unauthenticated):
            world.authority.caller(unknown)
    with pytest.raises(Unauthenticated, match="or for a certificate whose common name stands for one"):
        world.authority.caller(replace(edge, subject=""))  # its names are no common name


def test_a_token_that_was_just_added_is_known_at_once(world: World) -> None:
    new = token_secret.make()
    world.put(MILL, replace(MILL, name="new", digests=(token_secret.digest(new),)))
    assert world.authority.caller(replace(SHOWN, secret=new)).token == "new"


def test_a_token_holds_until_it_expires(world: World) -> None:
    world.put(replace(MILL, expires=2_000.0))
    assert world.authority.refresh()
    world.authority.caller(SHOWN)
    world.now = 2_000.0
    with pytest.raises(Unauthenticated, match="not any more"):
        world.authority.caller(SHOWN)


def test_who_guesses_does_not_have_a_broken_file_read_again_for_each_guess(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.file.path.write_text("{")
    world.authority.refresh()
    monkeypatch.setattr(TokenFile, "read", lambda _: pytest.fail("it was read"))
    with pytest.raises(Unauthenticated):
        world.authority.caller(Credentials("ipv4:10.0.0.9", secret="tg_wrong"))


def test_a_broken_file_keeps_the_tokens_of_before_and_says_so_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    good = world.file.path.read_text()
    world.file.path.write_text("{")
    with caplog.at_level(logging.INFO):
        assert [world.authority.refresh() for _ in range(3)] == [False] * 3
        assert [record.message for record in caplog.records if "the tokens of before go on" in record.message][1:] == []
        assert world.authority.caller(SHOWN).token == "mill"
        world.file.path.unlink()
        world.authority.refresh()
        assert world.authority.caller(SHOWN).token == "mill"
        world.file.path.write_text(good)
        world.file.path.chmod(0o600)
        world.authority.refresh()
        world.put()
        assert world.authority.refresh()
    with pytest.raises(Unauthenticated):
        world.authority.caller(SHOWN)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ((), "token 'mill' was removed"),
        ((replace(MILL, expires=500.0),), "token 'mill' has expired"),
        (
            (replace(MILL, digests=(token_secret.digest("new"),)),),
            "this secret or certificate of token 'mill' does not hold",
        ),
        ((replace(MILL, models=("tide",)),), "what token 'mill' may do was changed"),
        ((replace(MILL, rights=EVERY_RIGHT),), "what token 'mill' may do was changed"),
        ((replace(MILL, limits=Limits(open=6)),), ""),
        ((replace(MILL, digests=(token_secret.digest("new"), *MILL.digests)),), ""),
    ],
)
def test_streams_of_a_token_that_is_withdrawn_end_with_the_reason(
    world: World, after: tuple[Token, ...], why: str
) -> None:
    told: list[TidegateError] = []
    caller = world.authority.caller(SHOWN)
    with world.authority.watching(caller, told.append):
        world.authority.refresh()
        assert not told
        world.put(*after)
        assert world.authority.refresh()
    assert [str(error)[: len(why)] for error in told] == ([why] if why else [])
    world.authority.refresh()
    assert len(told) == bool(why)
    assert caller.meter.limits == (after[0] if after else MILL).limits


def test_no_secret_is_in_what_is_logged_or_printed_of_credentials_and_callers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = token_secret.make()
    with caplog.at_level(logging.DEBUG), pytest.raises(Unauthenticated) as refused:
        world.authority.caller(replace(SHOWN, secret=wrong))
    said = f"{caplog.text}{refused.value}{SHOWN!r}{world.authority.caller(SHOWN)!r}"
    assert "what is no token here came from ipv4:10.0.0.1" in said
    assert not any(text in said for text in (wrong, SECRET, token_secret.digest(wrong), token_secret.digest(SECRET)))


def test_a_file_is_read_again_only_once_it_has_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    monkeypatch.setattr(TokenFile, "read", lambda _: reads.append(1) or {"mill": MILL})
    for _ in range(5):
        world.authority.refresh()
    assert not reads
    os.utime(world.file.path, ns=(1, 1))
    world.authority.refresh()
    assert reads == [1]


def test_rights_of_a_token_are_asked_for_by_model(world: World) -> None:
    caller = world.authority.caller(SHOWN)
    assert [caller.may(Right.PREDICT, model) for model in ("weather", "tide")] == [True, False]
