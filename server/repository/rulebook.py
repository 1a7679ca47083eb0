"""The rules of all models, as their files said last, and which version a new sequence gets by them."""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from server.errors import BadInput, ModelUnavailable, Reason, UnknownModel
from server.repository import rules
from server.repository.folder import RULES
from server.repository.rules import NONE, Rules

log = logging.getLogger(__name__)


class Rulebook:
    """Lives in the event loop. `folder`: of the models."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: Mapping[str, str] = {}
        self._rules: dict[str, Rules] = {}
        self._faults: dict[str, str] = {}
        self._given = defaultdict[str, Counter[int]](Counter)  # since the rules changed: new sequences by version
        self._turn = asyncio.Lock()

    def of(self, name: str) -> Rules:
        return self._rules.get(name, NONE)

    def all(self) -> Mapping[str, Rules]:
        """Of each model that has any, now."""
        return dict(self._rules)

    def fault(self, name: str) -> str:
        """What is wrong with a file: the rules that it held before go on. "" if nothing is."""
        return self._faults.get(name, "")

    def follow(self, texts: Mapping[str, str]) -> None:
        """Takes up what the files of all models say; those without a file have no rules."""
        for name in {*texts, *self._texts}:
            if texts.get(name) != self._texts.get(name):
                self._take_up(name, texts.get(name, ""))
        self._texts = dict(texts)

    def _take_up(self, name: str, text: str) -> None:
        self._faults.pop(name, None)
        try:
            self._rules[name] = rules.parsed(text)
            self._given.pop(name, None)
        except ValueError as error:
            self._faults[name] = str(error)
            log.warning("%s/%s is not followed, and what it said before is: %s", name, RULES, error)
        else:
            log.info("the versions of %s follow %s/%s", name, name, RULES)

    async def change(self, name: str, change: Callable[[Rules], Rules]) -> None:
        """Writes the file of a model anew. Raises BadInput: the rules would contradict each other; ModelUnavailable."""
        async with self._turn:
            try:
                text = rules.written(rules.checked(change(self.of(name))))
                rules.parsed(text)  # a number that no file may hold would have all of its rules passed over
            except ValueError as error:
                raise BadInput(str(error)) from error
            try:
                await asyncio.to_thread(_put, self._folder / name / RULES, text)
            except OSError as error:
                raise ModelUnavailable(
                    f"{name}/{RULES} cannot be written ({error.strerror}): change it where the models are",
                    Reason.MODEL_REFUSED,
                ) from error
            self.follow({**self._texts, name: text})

    def resolved(self, name: str, version: int) -> tuple[str, int]:
        """MODEL@ALIAS as a model and a version, which wins where it is given. Raises UnknownModel: no such alias."""
        model, at, alias = name.rpartition("@")
        if not at:
            return name, version
        if version:
            return model, version
        if alias.isascii() and alias.isdecimal():
            return model, int(alias)
        known = self.of(model).alias
        if alias not in known:
            names = ", ".join(sorted(known)) or "none"
            raise UnknownModel(
                f"model '{model:.60}' has no alias '{alias:.60}'; it has {names}", Reason.UNKNOWN_VERSION
            )
        return model, known[alias]

    def choose(self, name: str, ready: Callable[[int], bool], new: int) -> int:
        """The version for so many `new` sequences, or for none, that ask for no version; 0: the newest that is ready.

        The canary never has more than its share of all that were opened since the rules changed.
        """
        of = self.of(name)
        if not (of.canary and new):
            return of.pin
        given = self._given[name]
        chosen = of.pin
        if 100 * (given[of.canary] + new) <= of.share * (given.total() + new) and ready(of.canary):
            chosen = of.canary
        given[chosen] += new
        return chosen


def _put(path: Path, text: str) -> None:
    """A reader finds the file before, or the new one."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
