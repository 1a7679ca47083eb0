"""`python -m server token`: adds, lists, renews and removes the tokens of a file, which a running server reads anew.

A secret is shown once, on standard output alone. Exit status: 0 done, 1 it cannot be, with a sentence why.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path

from server.access import token_secret
from server.access.token import BadToken, Token, date, read, seconds
from server.access.token_file import TokenFile
from server.caller import Right
from server.options import PREFIX, Parser

_MIB = 2**20
_OLD = 1  # secrets that go on beside a new one


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    options = _parser(environment).parse_args(list(arguments))
    try:
        if not options.tokens:
            raise OSError(f"which file? Say --tokens FILE, or set {PREFIX}TOKENS")  # noqa: TRY301 # its end is the same
        {"add": _add, "list": _list, "renew": _renew, "remove": _remove}[options.command](options)
    except (OSError, ValueError) as error:
        print(f"python -m server token: {error}", file=sys.stderr)
        return 1
    return 0


def _add(options: argparse.Namespace) -> None:
    if "@" in options.models:
        raise ValueError(f"--models is {options.models!r}; expected names of models without @: an alias is its model's")
    made = "" if options.certificate else token_secret.make()
    given = {
        "may": options.may.split(","),
        "models": options.models.split(","),
        "certificate": options.certificate,
        "sha256": [token_secret.digest(made)] if made else [],
        "open": options.open,
        "parked": options.parked,
        "steps_per_second": options.steps_per_second,
        "message_bytes": int(options.message_mib * _MIB),
        "weight": options.weight,
    }
    token = read(options.name, given | ({"expires": _until(options.expires)} if options.expires else {}))
    with TokenFile(options.tokens).change() as tokens:
        if options.name in tokens:
            raise BadToken(f"there is a token '{options.name}'; renew it, or remove it first")
        tokens[options.name] = token
    _show(token, made)


def _list(options: argparse.Namespace) -> None:
    tokens = TokenFile(options.tokens).read()
    for token in tokens.values():
        print(_line(token))


def _renew(options: argparse.Namespace) -> None:
    made = token_secret.make()
    with TokenFile(options.tokens).change() as tokens:
        before = _existing(tokens, options.name)
        if not before.digests:
            raise BadToken(f"token '{options.name}' has no secret: certificate '{before.certificate}' stands for it")
        old = () if options.drop_old else before.digests[:_OLD]
        tokens[options.name] = token = replace(before, digests=(token_secret.digest(made), *old))
    _show(token, made)
    print("the secret before it " + ("does not hold any more" if options.drop_old else "goes on"), file=sys.stderr)


def _remove(options: argparse.Namespace) -> None:
    with TokenFile(options.tokens).change() as tokens:
        del tokens[_existing(tokens, options.name).name]
    print(f"token '{options.name}' is removed; its streams end, and its sequences are parked", file=sys.stderr)


def _existing(tokens: Mapping[str, Token], name: str) -> Token:
    if name not in tokens:
        raise BadToken(f"there is no token '{name}'; there is {', '.join(sorted(tokens)) or 'none'}")
    return tokens[name]


def _show(token: Token, made: str) -> None:
    print(_line(token), file=sys.stderr)
    if made:
        print("its secret, which is not shown again:", file=sys.stderr, flush=True)
        print(made)


def _line(token: Token) -> str:
    """A token in one line, without what shows it."""
    limits = token.limits
    parts = [token.name, ",".join(sorted(token.rights)), f"models {','.join(token.models)}"]
    if token.certificate:
        parts.append(f"certificate {token.certificate}")
    if token.expires < inf:
        parts.append(f"{'expires' if token.expires > time.time() else 'EXPIRED'} {date(token.expires)}")
    for value, what in (
        (limits.open, "open"),
        (limits.parked, "parked"),
        (limits.steps_per_second, "steps a second"),
        (limits.message_bytes / _MIB, "MiB a message"),
    ):
        parts += [f"{value:g} {what}"] if value else []
    parts += [f"weight {limits.weight:g}"] if limits.weight != 1 else []
    return "  ".join(parts)


def _until(given: str) -> str:
    """The date of a date, or of a time from now: 90d, 12h. Raises ValueError."""
    unit = {"d": 86_400.0, "h": 3_600.0}.get(given[-1:])
    try:
        return date(seconds(given) if unit is None else time.time() + float(given[:-1]) * unit)
    except (ValueError, OverflowError):
        raise ValueError(f"--expires is {given!r}; expected a date such as 2030-01-31, or 90d or 12h") from None


def _parser(environment: Mapping[str, str]) -> Parser:
    parser = Parser(prog="python -m server token", description="The tokens of a server's clients.")
    commands = parser.add_subparsers(dest="command", required=True)
    file = Parser(add_help=False)
    default = Path(environment[f"{PREFIX}TOKENS"]) if environment.get(f"{PREFIX}TOKENS") else None
    file.add_argument("--tokens", type=Path, metavar="FILE", default=default, help=f"the file (or {PREFIX}TOKENS)")
    named = Parser(add_help=False, parents=[file])
    named.add_argument("name", metavar="NAME", help="of the token: sequences belong to it")
    add = commands.add_parser("add", parents=[named], help="makes a token, and shows its secret once")
    add.add_argument("--may", default=Right.PREDICT, metavar="RIGHTS", help="of predict,observe,administer")
    add.add_argument("--models", default="*", metavar="PATTERNS", help="which models, for example 'weather*,tide'")
    add.add_argument("--certificate", default="", metavar="NAME", help="no secret: a client certificate of that name")
    add.add_argument("--expires", default="", metavar="WHEN", help="2030-01-31, or 90d or 12h from now")
    limits = add.add_argument_group("limits, where 0 is the server's own")
    limits.add_argument("--open", type=_count, default=0, metavar="COUNT", help="sequences that are open")
    limits.add_argument("--parked", type=_count, default=0, metavar="COUNT", help="sequences that are parked")
    limits.add_argument("--steps-per-second", type=_rate, default=0.0, metavar="RATE", help="on average")
    limits.add_argument("--message-mib", type=_rate, default=0.0, metavar="MIB", help="the largest request message")
    limits.add_argument("--weight", type=_rate, default=1.0, metavar="NUMBER", help="part of work beside others' 1")
    commands.add_parser("list", parents=[file], help="lists the tokens, without their secrets")
    renew = commands.add_parser("renew", parents=[named], help="makes a further secret; the one before it goes on")
    renew.add_argument("--drop-old", action="store_true", help="the one before it does not")
    commands.add_parser("remove", parents=[named], help="removes a token: its streams end, its sequences are parked")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, 0 or more")
    return int(text)


def _rate(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (value := float(text)) < inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r}; expected a number, 0 or more")
