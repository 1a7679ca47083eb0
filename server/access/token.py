"""A token as its file has it: its name, what it allows, until when, and how it is shown to be had."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from math import inf
from typing import Any

from server.caller import Right
from server.meter import NO_LIMITS, Limits

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COUNTS = "open", "parked", "message_bytes"  # of the limits
_RATES = "steps_per_second", "weight"
_LARGEST = 2**53  # of a number
_KEYS = {"may", "models", "sha256", "certificate", "expires", *_COUNTS, *_RATES}


class BadToken(ValueError):
    """A token that cannot be; the sentence names it and what is wrong."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token. It is shown by one of its secrets, or by a certificate of that common name."""

    name: str
    rights: frozenset[Right]
    models: tuple[str, ...] = ("*",)  # patterns of names
    digests: tuple[str, ...] = ()  # SHA-256 of its secrets in hexadecimal digits, the newest first
    certificate: str = ""  # the common name of a client certificate that stands for a secret; empty: none
    expires: float = inf  # seconds since 1970
    limits: Limits = NO_LIMITS


def read(name: str, given: object) -> Token:
    """A token from its entry in the file. Raises BadToken."""
    if not _NAME.fullmatch(name):
        raise BadToken(f"a token is called {name!r:.80}; expected 1 to 64 letters, digits and . _ @ -")
    if not isinstance(given, dict) or (given.keys() - _KEYS):
        raise BadToken(f"token '{name}' has {sorted(set(given) - _KEYS) if isinstance(given, dict) else 'no table'}")
    try:
        token = Token(
            name,
            frozenset(map(_right, _texts(given, "may"))),
            tuple(_texts(given, "models", ["*"])),
            tuple(_texts(given, "sha256", [])),
            str(given.get("certificate", "")),
            seconds(given["expires"]) if "expires" in given else inf,
            Limits(**{key: _number(given, key) for key in (*_COUNTS, *_RATES) if key in given}),
        )
    except (TypeError, ValueError) as error:
        raise BadToken(f"token '{name}': {error}") from None
    _check(token)
    return token


def _right(word: str) -> Right:
    if word not in set(Right):
        raise ValueError(f"there is no right {word!r:.80}; expected {', '.join(Right)}")
    return Right(word)


def written(token: Token) -> dict[str, Any]:
    """Its entry in the file."""
    entry: dict[str, Any] = {"may": sorted(token.rights), "models": list(token.models)}
    if token.digests:
        entry["sha256"] = list(token.digests)
    if token.certificate:
        entry["certificate"] = token.certificate
    if token.expires < inf:
        entry["expires"] = date(token.expires)
    for limit in fields(Limits):
        if (value := getattr(token.limits, limit.name)) != getattr(NO_LIMITS, limit.name):
            entry[limit.name] = value
    return entry


def seconds(text: object) -> float:
    """A time as ISO 8601 has it, in seconds since 1970; without a zone it is UTC. Raises ValueError."""
    time = datetime.fromisoformat(str(text))
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def date(time: float) -> str:
    """The reverse."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _check(token: Token) -> None:
    if not token.rights:
        raise BadToken(f"token '{token.name}' may nothing; expected one of {', '.join(Right)}")
    if not token.digests and not token.certificate:
        raise BadToken(f"token '{token.name}' has neither a sha256 nor a certificate")
    for digest in token.digests:
        if not _DIGEST.fullmatch(digest):
            raise BadToken(f"token '{token.name}' has a sha256 that is none: expected 64 hexadecimal digits")
    if not token.models or not all(token.models):
        raise BadToken(f"token '{token.name}' names no models; expected patterns, * for all")


def _texts(given: Mapping[str, Any], key: str, default: list[str] | None = None) -> list[str]:
    texts = given.get(key, default)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key} is {texts!r:.80}; expected a list of texts")
    return texts


def _number(given: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 # int or float, by its key
    value = given[key]
    kind = int if key in _COUNTS else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 <= value <= _LARGEST:
        raise ValueError(
            f"{key} is {value!r:.40}; expected {'a whole number' if kind is int else 'a number'} from 0 to {_LARGEST}"
        )
    if key == "weight" and not value:
        raise ValueError("weight is 0; expected more than 0")
    return value
