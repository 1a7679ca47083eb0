"""Which versions of a model are served, and to which clients: what `versions.toml` beside them says. Pure.

The file is the one place for these rules: every server of the folder reads it anew with each look, and a call that
changes a rule writes it.

    pin = 2              # what new sequences get that ask for no version; without it, the newest that is ready
    load = [1]           # served beside the newest; what is named elsewhere in this file is served, too
    unload = [3]         # withdrawn: no new sequence gets it; or "all"
    alias.stable = 2     # MODEL@stable stands for it
    canary.version = 4   # gets a part of the new sequences that ask for no version,
    canary.share = 10    # in percent
    move.3 = 2           # 3 is withdrawn, and its sequences go on with 2, which keeps the same states;
    move.rest = 2        # likewise every version that is withdrawn or gone, and not named here
"""

import re
import tomllib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

REST = 0  # in place of a version: every one that is withdrawn or gone
_KEYS = {"pin", "load", "unload", "alias", "canary", "move"}
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_LAST = 2**63 - 1  # TOML's numbers


@dataclass(frozen=True)
class Rules:
    """What the file says. Versions are whole numbers from 1 on; a `pin` of 0 is none."""

    pin: int = 0
    load: frozenset[int] = frozenset()
    unload: frozenset[int] = frozenset()
    unloaded: bool = False  # all versions are withdrawn
    alias: Mapping[str, int] = field(default_factory=dict)
    canary: int = 0  # a version; 0: none
    share: float = 0.0  # of new sequences, in percent
    move: Mapping[int, int] = field(default_factory=dict)

    def withdraws(self, version: int) -> bool:
        """Whether no new sequence gets this version."""
        return self.unloaded or version in self.unload or version in self.move

    @property
    def wanted(self) -> frozenset[int]:
        """The versions that are served beside the newest."""
        named = {self.pin, self.canary, *self.load, *self.alias.values(), *self.move.values()} - {0}
        return frozenset(version for version in named if not self.withdraws(version))

    def destination(self, version: int, gone: bool) -> int:
        """The version with which sequences of `version` go on; 0: with their own. `gone`: its folder is not there."""
        found, seen = 0, set[int]()
        while version not in seen:
            seen.add(version)
            rest = self.move.get(REST, 0) if gone or self.withdraws(version) else 0
            following = self.move.get(version, rest if rest != version else 0)
            if not following:
                return found
            found = version = following
            gone = False
        return 0  # a circle: `parsed` refuses those that the file names

    def missing(self, here: Container[int]) -> Iterator[str]:
        """The rules that lead to versions whose folders are not `here`. Of a canary others are taken meanwhile."""
        named = {"pin": self.pin} | {f"alias.{name}": of for name, of in self.alias.items()}
        for version, to in self.move.items():
            if (self.destination(to, to not in here) or to) not in here:
                named[f"move.{version or 'rest'}"] = to
        return (f"{rule} = {version}" for rule, version in sorted(named.items()) if version and version not in here)


NONE = Rules()


def parsed(text: str) -> Rules:
    """What a file says. Raises ValueError: a sentence says what is wrong."""
    given = tomllib.loads(text)
    if unknown := given.keys() - _KEYS:
        raise ValueError(f"{min(unknown)!r} means nothing; expected {', '.join(sorted(_KEYS))}")
    unload, canary = given.get("unload", []), _table(given, "canary")
    rules = Rules(
        pin=_version("pin", given.get("pin", 0), 0),
        load=_versions("load", given.get("load", [])),
        unload=frozenset() if unload == "all" else _versions("unload", unload),
        unloaded=unload == "all",
        alias={name: _version(f"alias.{name}", of) for name, of in _table(given, "alias").items()},
        canary=_version("canary.version", canary.get("version", 0), 0),
        share=_share(canary.get("share", 0)),
        move={_source(name): _version(f"move.{name}", to) for name, to in _table(given, "move").items()},
    )
    return checked(rules)


def checked(rules: Rules) -> Rules:
    """The same rules. Raises ValueError: they contradict each other, or an alias cannot be told from a version."""
    for name in rules.alias:
        if not _ALIAS.fullmatch(name):
            raise ValueError(
                f"the alias {name!r} is no name; expected a letter, then letters, digits, '_', '.' and '-'"
            )
    for version in rules.move:
        if version != REST and rules.destination(version, False) == 0:
            raise ValueError(f"the moves of version {version} lead in a circle")
    if rules.pin and rules.withdraws(rules.pin) and not rules.unloaded:
        raise ValueError(f"version {rules.pin} is pinned and withdrawn")
    return rules


def written(rules: Rules) -> str:
    """The text of a file that says this."""
    lines = ["# Written by a call to the server; see docs/operate.md. Comments are lost with the next one."]
    lines += [f"pin = {rules.pin}"] if rules.pin else []
    lines += [f"load = {sorted(rules.load)}"] if rules.load else []
    lines += ['unload = "all"'] if rules.unloaded else [f"unload = {sorted(rules.unload)}"] if rules.unload else []
    lines += [f'alias."{name}" = {version}' for name, version in sorted(rules.alias.items())]
    lines += [f"canary.version = {rules.canary}", f"canary.share = {rules.share!r}"] if rules.canary else []
    lines += [f"move.{version or 'rest'} = {to}" for version, to in sorted(rules.move.items())]
    return "\n".join(lines) + "\n"


def moved(rules: Rules, version: int, to: int) -> Rules:
    """Withdraws a version, and has its sequences go on with another; 0 takes that back. Raises ValueError."""
    if not to:
        return replace(rules, move={source: of for source, of in rules.move.items() if source != version})
    if version == REST:
        return checked(replace(rules, move={**rules.move, REST: to}))
    forward = {name: to if of == version else of for name, of in rules.alias.items()}
    canary = {"canary": 0, "share": 0.0} if rules.canary == version else {}
    back = {source: of for source, of in rules.move.items() if source != to}  # a rollback of a rollback
    pin, load = to if rules.pin == version else rules.pin, rules.load - {version, to}
    change: dict[str, Any] = {"alias": forward, "pin": pin, "load": load, "unload": rules.unload - {to}, **canary}
    return checked(replace(rules, move={**back, version: to}, **change))


def _table(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = given.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{name} is {table!r}; expected a table")  # noqa: TRY004 # one error for all
    return table


def _source(name: str) -> int:
    return REST if name == "rest" else _version("move", int(name) if name.isascii() and name.isdecimal() else name)


def _versions(name: str, given: object) -> frozenset[int]:
    if not isinstance(given, list):
        raise ValueError(f"{name} is {given!r}; expected a list of versions")  # noqa: TRY004 # likewise
    return frozenset(_version(name, version) for version in given)


def _version(name: str, given: object, least: int = 1) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= _LAST:
        raise ValueError(f"{name} is {given!r}; expected a version, a whole number from {least} on")
    return given


def _share(given: object) -> float:
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given <= 100:
        raise ValueError(f"canary.share is {given!r}; expected percent, 0 to 100")
    return float(given)
