"""What makes models of files, as the repository asks for it."""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from server.settings import Settings
from stepgraph.isolation.cache import ProofCache
from stepgraph.isolation.intake import Effort, Intake
from stepgraph.isolation.sandbox import Limits
from stepgraph.model import LoadedModel


class Source(Protocol):
    """What makes models of files: `Intake`. Called in several threads."""

    def load(self, path: Path, effort: Effort) -> LoadedModel | None:
        """A model that is ready, or a `ModelRefused`; None if it takes more effort."""

    def of_content(self, sha256: str) -> LoadedModel:
        """The model of a content that was loaded before, or a `ModelRefused`."""

    def holds(self, sha256: str) -> bool:
        """Whether `of_content` has it. Quick."""

    def need(self, contents: Collection[str]) -> None:
        """Of these no content is to be forgotten, as far as it is known."""

    def close(self) -> None:
        """Lets go of what only loading needs; a load that is under way is refused."""


def intake(settings: Settings) -> Intake:
    limits = Limits(settings.load_seconds, settings.load_memory_mib)
    cache = ProofCache(settings.cache_folder, settings.cache_bytes, int(settings.load_memory_mib * 2**20))
    return Intake(settings.max_batch, settings.patience_ms / 1e3, limits, cache, settings.load_at_once)
