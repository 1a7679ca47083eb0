from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from server.access import token, token_secret
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import Right
from server.meter import Limits
from server.stamp import stamp_of

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = token_secret.digest("it")
MILL = Token(
    "mill",
    frozenset({Right.PREDICT, Right.OBSERVE}),
    ("weather*",),
    (DIGEST,),
    expires=2e9,
    limits=Limits(5, 10, 2.5, 1_000, 3.0),
)
EDGE = Token("edge", frozenset({Right.ADMINISTER}), certificate="edge-1")


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    file = TokenFile(tmp_path / "tokens.json")
    with file.change() as tokens:
        tokens |= {"mill": MILL, "edge": EDGE}
    return file


def test_what_was_written_is_read(file: TokenFile) -> None:
    assert file.read() == {"mill": MILL, "edge": EDGE}


def test_the_file_is_its_owners_alone_and_has_no_secret(file: TokenFile) -> None:
    with file.change() as tokens:
        tokens["more"] = replace(MILL, name="more", digests=(token_secret.digest(made := token_secret.make()),))
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in file.path.parent.iterdir())
    assert made not in file.path.read_text()
    assert {path.name for path in file.path.parent.iterdir()} == {"tokens.json", ".tokens.json.lock"}


def test_a_change_that_fails_leaves_the_file_as_it_was(file: TokenFile) -> None:
    before = stamp_of(file.path)
    with pytest.raises(ValueError, match="same secret"), file.change() as tokens:
        tokens["more"] = replace(MILL, name="more")
    with pytest.raises(ZeroDivisionError), file.change() as tokens:  # noqa: PT012
        tokens.clear()
        raise ZeroDivisionError
    assert stamp_of(file.path) == before


def test_a_file_that_others_can_write_is_not_used(file: TokenFile) -> None:
    file.path.chmod(0o666)
    with pytest.raises(OSError, match="can be written by other users: chmod 600"):
        file.read()


def test_a_folder_or_a_pipe_is_no_file_of_tokens(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match=f"the file of tokens {path} cannot be read: it is no file, but a folder"):
            TokenFile(path).read()


def test_no_file_is_said_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="`python -m server token add` makes it"):
        TokenFile(tmp_path / "none").read()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"mai": ["predict"]}, "mai"),
        ([], "no table"),
        ({"may": "predict"}, "expected a list"),
        ({"may": ["dance"]}, "there is no right 'dance'; expected predict, observe, administer"),
        ({"may": []}, "may nothing"),
        ({"may": ["predict"], "sha256": ["12"]}, "64 hexadecimal digits"),
        ({"may": ["predict"]}, "neither a sha256 nor a certificate"),
        ({"may": ["predict"], "certificate": "a", "models": []}, "names no models"),
        ({"may": ["predict"], "certificate": "a", "open": -1}, "open is -1"),
        ({"may": ["predict"], "certificate": "a", "open": 1.5}, "whole number"),
        ({"may": ["predict"], "certificate": "a", "open": 10**400}, "open is 1000"),
        ({"may": ["predict"], "certificate": "a", "steps_per_second": float("nan")}, "steps_per_second is nan"),
        ({"may": ["predict"], "certificate": "a", "weight": 0}, "more than 0"),
        ({"may": ["predict"], "certificate": "a", "expires": "soon"}, "soon"),
    ],
)
def test_what_is_wrong_with_a_token_is_said_by_its_name(file: TokenFile, entry: Any, why: str) -> None:  # noqa: ANN401
    file.path.write_text(json.dumps({"tokens": {"odd": entry}}))
    with pytest.raises(OSError, match="token 'odd'") as refused:
        file.read()
    assert why in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", '{"tokens": []}', '{"tokens": {}, "more": 1}', "[" * 100_000, "\x00"])
def test_what_is_no_file_of_tokens_is_said_to_be_none(file: TokenFile, content: str) -> None:
    file.path.write_text(content)
    with pytest.raises(OSError, match="cannot be used"):
        file.read()


@pytest.mark.parametrize("name", ["", "a b", "-x", "ä", "a/b", "x" * 65, "a\n"])
def test_a_name_is_of_letters_and_digits_so_that_it_can_begin_an_owner(name: str) -> None:
    with pytest.raises(token.BadToken, match="is called"):
        token.read(name, {"may": ["predict"], "certificate": "a"})
