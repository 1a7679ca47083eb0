"""Models that no new sequence gets: superseded, gone or overwritten, for as long as sequences go on with them."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from server.errors import ModelUnavailable, WrongState
from server.repository.loader import Loader, Outcome
from server.repository.source import Source
from server.runtime.served_model import ServedModel
from stepgraph.isolation.intake import Effort
from stepgraph.model import LoadedModel

log = logging.getLogger(__name__)

STAY = 30  # looks through the folder that a model without sequences stays for


class FormerModels:
    """Lives in the event loop. `serve` makes a served model of a loaded one, by name and version."""

    def __init__(self, source: Source, loader: Loader, serve: Callable[[str, int, LoadedModel], ServedModel]) -> None:
        self._source = source
        self._loader = loader
        self._serve = serve
        self._models: dict[ServedModel, int] = {}  # and for how many looks they stay without a sequence
        self._coming: set[tuple[str, int, str]] = set()  # contents that are being brought back
        self._absent: dict[tuple[str, int, str], int] = {}  # contents that the cache does not have, and for how long

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models)

    def add(self, model: ServedModel) -> None:
        self._models[model] = 0

    def keys(self) -> frozenset[tuple[str, int]]:
        """Names and versions of those that are here, or are being brought back."""
        return frozenset([*((model.name, model.version) for model in self), *(key[:2] for key in self._coming)])

    def is_coming(self, name: str, version: int, sha256: str) -> bool:
        return (name, version, sha256) in self._coming

    def warn_overwritten(self, model: ServedModel) -> None:
        """Says what becomes of the sequences of a model whose file was overwritten."""
        sha256 = model.loaded.sha256
        kept = self._source.holds(sha256)
        log.warning(
            "%s version %d was overwritten in place: %d open sequences go on with the content %.12s that they began "
            "with, %s. Give a new content a version of its own",
            model.name,
            model.version,
            model.slots.in_use + model.asleep,
            sha256,
            "also after a restart" if kept else "but not after a restart: the cache lacks it",
        )

    def bring_back(
        self, name: str, version: int, sha256: str, path: Path | None = None
    ) -> ModelUnavailable | WrongState:
        """Looks for the content that a sequence ran with in the cache, and at `path` if that is given.

        Returns why the sequence cannot go on yet, or at all.
        """
        key = name, version, sha256
        if key not in self._absent:
            self._coming.add(key)
            self._loader.load(
                key, partial(self._load, sha256, path), partial(self._brought_back, key, path is not None)
            )
            self._loader.hurry(key)
            return ModelUnavailable(f"model '{name}' version {version} is brought back; try again in a moment")
        return WrongState(
            f"model '{name}' version {version} has another content here than where the sequence ran, and the cache "
            f"does not have that one: put the file with the sha256 {sha256} back"
        )

    def look(self) -> None:
        """Counts a look through the folder, and stops models without sequences."""
        self._absent = {key: looks - 1 for key, looks in self._absent.items() if looks > 1}
        for model, looks in list(self._models.items()):
            if model.in_use:
                continue
            if looks:
                self._models[model] = looks - 1
                continue
            log.info("unloading %s version %d", model.name, model.version)
            del self._models[model]
            model.stop()

    def stop(self) -> None:
        for model in self._models:
            model.stop()
        self._models.clear()

    def _load(self, sha256: str, path: Path | None, effort: Effort) -> LoadedModel | None:
        """In a thread of the loader."""
        if path is None or self._source.holds(sha256):
            return self._source.of_content(sha256)
        return self._source.load(path, effort)

    def _brought_back(self, key: tuple[str, int, str], superseded: bool, outcome: Outcome) -> None:
        if outcome is None:
            return
        self._coming.discard(key)
        if not isinstance(outcome, LoadedModel) or outcome.sha256 != key[-1]:
            self._absent[key] = STAY
            return
        name, version, sha256 = key
        if superseded:
            log.info("serving %s version %d again, for its sequences", name, version)
        else:
            log.info("%s version %d is served with its former content %.12s too", name, version, sha256)
        self._models[self._serve(name, version, outcome)] = STAY
