"""The arguments of the commands for who runs a server: `sequences`, `store` and `versions`. Carries out nothing."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

COMMANDS = ("sequences", "store", "versions")
NEWEST = "newest"
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_SEQUENCES_HELP = """\
Lists the sequences that are open, asleep (open, and without a step for long) or parked; shows some; or ends them.

  tidegate sequences                             all of them
  tidegate sequences --parked --idle 2d          those that have been parked for two days
  tidegate sequences show ID                     all that is known of one
  tidegate sequences end ID                      ends one, after asking
  tidegate sequences end --model weather --yes   ends those of a model

In a terminal they are a table; in a pipe, or with --json, a JSON object in each line. The client of a sequence that is
ended gets an error; a later attempt to resume it gets SEQUENCE_ENDED.
"""

Command = Callable[[Any, str, str, str], argparse.ArgumentParser]


def add(commands_of: Any, command: Command) -> None:  # noqa: ANN401 # argparse's subparsers have no public type
    """Adds the commands; `command` makes a parser with the options that may stand anywhere."""
    _add_sequences(command(commands_of, "sequences", "list, show or end sequences", _SEQUENCES_HELP))
    _add_store(command(commands_of, "store", "check, back up or restore the store", "Looks after the store."), command)
    why = "Which versions of a model are served, and to which clients; see docs/operate.md."
    _add_versions(command(commands_of, "versions", "pin, alias, load, withdraw or move versions", why), command)


def _add_sequences(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="list|show|end [ID ...]", nargs="*", help="what to do; ids of sequences")
    parser.add_argument("--model", metavar="NAME", default="", help="of this model")
    parser.add_argument("--version", metavar="N", type=_number, default=0, help="of this version")
    for life in ("open", "asleep", "parked"):
        parser.add_argument(f"--{life}", dest="lives", action="append_const", const=life, help=f"that are {life}")
    parser.add_argument("--idle", metavar="TIME", type=_time, default=0.0, help="idle for so long: 90s, 15m, 2d")
    parser.add_argument("--stranded", action="store_true", help="of versions that are gone, and that no rule moves")
    parser.add_argument("--yes", action="store_true", help="end them without asking")
    _add_json(parser)


def _add_store(parser: argparse.ArgumentParser, command: Command) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_json(command(actions, "info", "what it is and holds", "Says what the store is and holds, by its counters."))
    why = "Reads every checkpoint, and compares all with the counters. Exit status 1: something is wrong."
    _add_json(command(actions, "check", "read every checkpoint", why))
    why = "Writes all that the store keeps to a file, while the server serves."
    command(actions, "backup", "write a backup", why).add_argument("file", metavar="FILE", help="the file to write")
    why = "Puts what a backup holds into the store. What is there and newer, or open, stays."
    command(actions, "restore", "put a backup into it", why).add_argument("file", metavar="FILE", help="the backup")


def _add_versions(parser: argparse.ArgumentParser, command: Command) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        made = command(actions, name, summary, text)
        made.add_argument("model", metavar="MODEL", nargs="?" if name == "show" else None, help="its name")
        _add_json(made)
        return made

    why = "Shows the versions of a model, or of all that are served, and the rules for them."
    action("show", "the versions and rules of models", why)
    pin = action("pin", "what new sequences get", "New sequences that ask for no version get this one.")
    pin.add_argument("version", metavar="VERSION", type=_version_or_newest, help=f"or {NEWEST}, that is ready")
    alias = action("alias", "a name for a version", "MODEL@NAME in place of a model's name stands for a version.")
    alias.add_argument("name", metavar="NAME")
    alias.add_argument("version", metavar="VERSION", type=_version_or_none, help="or none, which removes the alias")
    canary = action(
        "canary", "a version for a part", "A part of the new sequences that ask for no version get this one."
    )
    canary.add_argument("version", metavar="VERSION", type=_number)
    canary.add_argument("share", metavar="PERCENT", type=_percent, help="0 removes it")
    load = action("load", "serve a version", "Serves a version beside the newest, or takes back every withdrawal.")
    load.add_argument("version", metavar="VERSION", type=_number, nargs="?", default=0)
    unload = action("unload", "withdraw a version", "No new sequence gets this version, or any; open ones go on.")
    unload.add_argument("version", metavar="VERSION", type=_number, nargs="?", default=0)
    why = "Withdraws a version, and has its sequences go on with another that keeps the same states: memory is kept."
    move = action("move", "have sequences go on with another version", why)
    move.add_argument("version", metavar="FROM", type=_version_or_rest, help="or rest: all that are withdrawn or gone")
    move.add_argument("to", metavar="TO", type=_version_or_none, help="or none, which takes it back")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, also in a terminal")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version: a whole number from 1 on")
    return int(text)


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 100")
    return percent


def _version_or_newest(text: str) -> int:
    return 0 if text == NEWEST else _number(text)


def _version_or_none(text: str) -> int:
    return 0 if text == "none" else _number(text)


def _version_or_rest(text: str) -> int:
    return 0 if text == "rest" else _number(text)


def _time(text: str) -> float:
    """Seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 90s, 15m, 4h or 2d")
    return float(found[1]) * _UNITS[found[2] or "s"]
