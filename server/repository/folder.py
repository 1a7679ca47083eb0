"""The folder of models: `NAME/VERSION/model.onnx`. Finds what is there, and what was put elsewhere; opens no file."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.stamp import Stamp, stamp_of

FILE = "model.onnx"
PLACE = f"NAME/VERSION/{FILE}"
RULES = "versions.toml"  # in the folder of a model, see `rules.py`
LAST_VERSION = 2**64 - 1  # the contract and the checkpoints have 64 bits for it


@dataclass(frozen=True)
class Found:
    """A model of the repository. `stamp` changes when a file of its folder does; `fault` says why none is read."""

    name: str
    version: int
    path: Path
    stamp: tuple[tuple[str, Stamp], ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Stray:
    """What lies where no model is looked for, or cannot be looked into, and why it is not served."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Look:
    """What a folder holds. `closed`: the models whose folders cannot be read, and why: their versions are not known.

    `rules`: by model, the text of its file of rules.
    """

    models: Mapping[tuple[str, int], Found]
    strays: tuple[Stray, ...]
    closed: Mapping[str, str]
    rules: Mapping[str, str]


def look(folder: Path) -> Look:
    """Looks through a repository. What is wrong with one folder hurts no other.

    Raises OSError: the repository itself cannot be read.
    """
    models: dict[tuple[str, int], Found] = {}
    closed: dict[str, str] = {}
    rules: dict[str, str] = {}
    homes, strays = _listed(folder)
    for home in homes:
        if "@" in home.name:
            strays.append(Stray(home, "its name holds an '@', which stands before an alias"))
            continue
        try:
            places, misplaced = _listed(home)
        except OSError as error:
            closed[home.name] = _unreadable(error)
            strays.append(Stray(home, closed[home.name]))
            continue
        if (text := _rules(home)) is not None:
            rules[home.name] = text
        strays += misplaced
        for place in sorted(places, key=lambda each: (len(each.name), each.name)):
            strays += _take_in(place, models)
    return Look(models, tuple(strays), closed, rules)


def is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and 0 < int(name) <= LAST_VERSION


def _take_in(place: Path, models: dict[tuple[str, int], Found]) -> list[Stray]:
    """Adds what lies in the folder of a version to what was found; what is no model of it is returned."""
    path = place / FILE
    try:
        with os.scandir(place) as entries:
            files = {entry.name: entry for entry in entries}
        if FILE not in files:
            return [Stray(place / name, f"it is not called {FILE}") for name in sorted(files) if _is_onnx(name)]
        stamp, fault = tuple((name, stamp_of(files[name])) for name in sorted(files)), _fault(files[FILE])
    except FileNotFoundError:  # the folder went away while we looked
        return []
    except OSError as error:
        stamp, fault = (), _unreadable(error)
    if not is_version(place.name):
        return [Stray(path, _no_version(place.name))]
    name, version = place.parent.name, int(place.name)
    if (name, version) in models:
        return [Stray(path, f"version {version} is there already, in '{models[name, version].path.parent.name}'")]
    models[name, version] = Found(name, version, path, stamp, fault)
    return []


def _rules(home: Path) -> str | None:
    try:
        return (home / RULES).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"'it cannot be read: {error.strerror}"  # no TOML, so that the rules before go on


def _fault(file: os.DirEntry[str]) -> str:
    """Why a file is not read; "" if it can be."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return f"'{FILE}' links to a file that is not there"
    return "" if stat.S_ISREG(mode) else f"'{FILE}' is no ordinary file, and only those are read"


def _listed(folder: Path) -> tuple[list[Path], list[Stray]]:
    """The folders in a folder, and what is out of place there. Hidden ones are left out."""
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders, strays = [], []
    for entry in found:
        if not entry.name.isprintable():
            strays.append(Stray(folder / ascii(entry.name)[1:-1], "its name is no text that can be printed"))
        elif _is_folder(entry):
            folders.append(folder / entry.name)
        elif _is_onnx(entry.name):
            strays.append(Stray(folder / entry.name, f"it is looked for at {PLACE}"))
    return folders, strays


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder that is closed to us
        return False


def _is_onnx(name: str) -> bool:
    return name.endswith(".onnx") and not name.startswith(".")


def _unreadable(error: OSError) -> str:
    return f"its folder cannot be read: {error.strerror}"


def _no_version(name: str) -> str:
    if name.isascii() and name.isdecimal() and int(name):
        return f"the version '{name}' is above {LAST_VERSION}"
    return f"the version '{name}' is no whole number from 1 on"
