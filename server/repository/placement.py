"""Where sequences of each version go on, at one moment; pure, so that any thread may ask."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from server.repository.rules import NONE, Rules


@dataclass(frozen=True)
class Placement:
    """`here`: names and versions of the folder. `leaving`: those that are, or will be, served to their sequences alone.

    `complete`: whether the folder was looked through, so that what is not here is gone.
    """

    rules: Mapping[str, Rules]
    here: AbstractSet[tuple[str, int]]
    leaving: frozenset[tuple[str, int]]
    complete: bool

    def destination(self, name: str, version: int) -> int:
        """The version with which they go on by a rule, once they are resumed; 0: their own."""
        return self.rules.get(name, NONE).destination(version, self._is_gone(name, version))

    def strands(self, name: str, version: int) -> bool:
        """Whether they cannot be resumed: the version with which they would go on is gone."""
        if to := self.destination(name, version):
            return self._is_gone(name, to)
        return (name, version) not in self.leaving and self._is_gone(name, version)

    def missing(self) -> frozenset[tuple[str, str]]:
        """Names of models, and the rules of theirs that lead to versions that are gone."""
        here = {name: {version for of, version in self.here if of == name} for name in self.rules if self.complete}
        return frozenset((name, rule) for name, found in here.items() for rule in self.rules[name].missing(found))

    def _is_gone(self, name: str, version: int) -> bool:
        return self.complete and (name, version) not in self.here
