"""The fields of a config as a command line shows them: name, type, default, sentence, unit.

The sentence is the string under the field in the class, as torchtitan does it: one place for both readers.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from training.config import Config

NONE = "none"
READABLE: dict[type, str] = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}


@dataclass(frozen=True)
class Field:
    """One field. `default` is the recipe's value; `kind` the type without `| None`."""

    name: str
    kind: Any
    optional: bool
    default: object
    sentence: str
    unit: str

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.name.rstrip("_").replace("_", "-")

    @property
    def help(self) -> str:
        """Sentence, default and unit."""
        if self.default is None:
            return f"{self.sentence} (default: {NONE}{'; in ' + self.unit if self.unit else ''})"
        if self.item is not None:
            shown = ",".join(map(str, self.default)) if isinstance(self.default, tuple) else ""
            return f"{self.sentence} (default: {shown or NONE})"
        return f"{self.sentence} (default: {self.default}{' ' + self.unit if self.unit else ''})"

    @property
    def item(self) -> Any:  # noqa: ANN401 - a type
        """The type of a tuple's items; None if it is no tuple."""
        return get_args(self.kind)[0] if get_origin(self.kind) is tuple else None

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts that are allowed, if only some are."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    def parse(self, text: str) -> object:
        """The value that a text stands for.

        Raises:
            ValueError: with a sentence that says what was expected.
        """
        if self.optional and text.lower() == NONE:
            return None
        if self.choices:
            if text not in self.choices:
                raise ValueError(f"{text!r} is none of {', '.join(self.choices)}")
            return text
        if self.item in (int, float):
            return tuple(replace(self, kind=self.item, optional=False).parse(part) for part in text.split(",") if part)
        if self.item is str:
            return text  # one of several words
        try:
            return self.kind(text)
        except ValueError:
            also = f" or {NONE}" if self.optional else ""
            raise ValueError(f"{text!r} is not {READABLE[self.kind]}{also}") from None


def fields_of(config: Config) -> list[Field]:
    """Every field of a config, in the order of the class."""
    hints, sentences = get_type_hints(type(config)), sentences_of(type(config))
    found = []
    for field in fields(config):
        kinds = [kind for kind in get_args(hints[field.name]) if kind is not NoneType]
        optional = NoneType in get_args(hints[field.name])
        sentence, unit = sentences[field.name]
        kind = kinds[0] if optional else hints[field.name]
        found.append(Field(field.name, kind, optional, getattr(config, field.name), sentence, unit))
    return found


def sentences_of(config: type) -> dict[str, tuple[str, str]]:
    """Sentence and unit of each field of a dataclass and of those that it is built on."""
    found: dict[str, tuple[str, str]] = {}
    for base in reversed(config.__mro__):
        if is_dataclass(base):
            found |= _sentences_in(base)
    return found


@cache
def _sentences_in(config: type) -> dict[str, tuple[str, str]]:
    """Likewise of the fields in its own body; to read the source again takes a tenth of a second."""
    found = {}
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    for field, text in pairwise(body.body if isinstance(body, ast.ClassDef) else []):
        match (field, text):
            case (ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence)))):
                found[name] = split(sentence)
    return found


def split(text: str) -> tuple[str, str]:
    """A sentence, and the unit that stands in brackets behind it ("" without one)."""
    line = " ".join(text.split())
    unit = re.search(r" \[([^]]*)\]$", line)
    return (line[: unit.start()], unit[1]) if unit else (line, "")
