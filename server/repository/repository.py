"""The models on disk: found, loaded, served, replaced while sequences run. `models/NAME/VERSION/model.onnx`.

Looks at the folder every now and then. A version is loaded once its file has stopped changing; the newest that load are
served; one that is superseded or gone serves its open sequences to their end.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.errors import ModelUnavailable, Reason, UnknownModel, WrongState
from server.repository import folder
from server.repository.folder import Found, Stray
from server.runtime.counters import Counters
from server.runtime.served_model import ServedModel
from server.settings import Settings
from stepgraph.errors import ModelRefused
from stepgraph.isolation.cache import ProofCache
from stepgraph.isolation.intake import Intake
from stepgraph.isolation.sandbox import Limits
from stepgraph.model import LoadedModel

log = logging.getLogger(__name__)

_STAY = 30  # looks through the folder


@dataclass(slots=True, eq=False)
class Entry:
    """A version and what became of it: neither served nor refused while it loads."""

    found: Found
    served: ServedModel | None = None
    refusal: ModelRefused | None = None


class Source(Protocol):
    """What makes models of files: `Intake`."""

    def load(self, path: Path) -> LoadedModel:
        """A model that is ready, or a `ModelRefused`. Called in a thread, for one file at a time."""

    def close(self) -> None:
        """Lets go of what only loading needs; a load that is under way is refused. Called in any thread."""


class Repository:
    """The versions of all models. Lives in the event loop; loads in a thread."""

    def __init__(self, settings: Settings, source: Source | None = None) -> None:
        self._settings = settings
        self._source = source or _intake(settings)
        self._entries: dict[tuple[str, int], Entry] = {}
        self._leaving: list[Entry] = []  # superseded or gone, with sequences still open
        self._last_seen: dict[tuple[str, int], Found] = {}
        self._strays: dict[Stray, bool] = {}  # files in the wrong place, and whether that was said
        self._tallies: dict[tuple[str, int], Counters] = {}  # also of what is not here any more: it may come back
        self._complete = False  # whether the folder has been looked through once
        # superseded versions that sequences come back to, and for how many more looks they stay without one
        self._wanted: dict[tuple[str, int], int] = {}
        self._stopped = False

    def entries(self) -> list[Entry]:
        """Every version that is loading, served or refused, by name and version."""
        return [self._entries[key] for key in sorted(self._entries)]

    def served(self) -> list[ServedModel]:
        """Every model that takes steps, those among them that are leaving."""
        entries = [*self._entries.values(), *self._leaving]
        return [entry.served for entry in entries if entry.served is not None]

    def find(self, name: str, version: int) -> ServedModel:
        """The model to open sequences of; version 0 is the newest that is ready.

        Raises:
            UnknownModel, ModelUnavailable: there is none, or not yet; the sentence lists what there is.
        """
        entry = self.entry(name, version)
        if entry.served is not None:
            return entry.served
        if entry.refusal is not None:
            raise ModelUnavailable(
                f"model '{name}' version {entry.found.version} was refused: {entry.refusal}",
                Reason.MODEL_REFUSED,
            )
        raise ModelUnavailable(f"model '{name}' version {entry.found.version} is still loading; try again in a moment")

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model of this very content, to continue sequences of; a superseded one is brought back.

        Raises:
            UnknownModel, ModelUnavailable: it is not here any more, or not yet.
        """
        entry = self._entries.get((name, version))
        served = [entry.served] if entry is not None and entry.served is not None else []
        for model in [*served, *(left.served for left in self._leaving if left.served is not None)]:
            if (model.name, model.version, model.loaded.sha256) == (name, version, sha256):
                return model
        if served:
            raise WrongState(f"model '{name}' version {version} has another content here than where the sequence ran")
        if entry is not None and entry.refusal is not None:
            return self.find(name, version)  # says why not
        if entry is None and (name, version) in self._last_seen:
            self._wanted[name, version] = _STAY
            raise ModelUnavailable(f"model '{name}' version {version} is brought back; try again in a moment")
        if entry is not None or not self._complete:
            raise ModelUnavailable(f"model '{name}' version {version} is still loading; try again in a moment")
        raise UnknownModel(f"model '{name}' version {version} is not here any more", Reason.UNKNOWN_VERSION)

    def entry(self, name: str, version: int) -> Entry:
        """A version; 0 is the newest that is ready, else the newest. One that is leaving is found by its number."""
        versions = {v: entry for (n, v), entry in self._entries.items() if n == name}
        if version and version not in versions:
            leaving = {entry.found.version: entry for entry in self._leaving if entry.found.name == name}
            versions |= {version: leaving[version]} if version in leaving else {}
        if not versions and not self._complete:
            raise ModelUnavailable("this server is still looking through its models; try again in a moment")
        if not versions:
            names = ", ".join(sorted({f"'{n}'" for n, _ in self._entries})) or "none"
            raise UnknownModel(f"there is no model '{name:.60}'; this server has {names}")
        if version and version not in versions:
            raise UnknownModel(
                f"model '{name}' has no version {version} here; it has {', '.join(map(str, sorted(versions)))}",
                Reason.UNKNOWN_VERSION,
            )
        return versions[version or max(versions, key=lambda v: (versions[v].served is not None, v))]

    async def refresh(self, settled: bool = False) -> None:
        """Looks through the folder and follows it. With `settled`, files are taken to be complete."""
        found, strays = await asyncio.to_thread(self._look)
        self._warn(strays, settled)
        for key in self._entries.keys() - found.keys():
            self._remove(key)
        for name in sorted({f.name for f in found.values()}):
            versions = sorted((f for f in found.values() if f.name == name), key=lambda f: -f.version)
            await self._follow(versions, settled)
        self._last_seen = found
        self._complete = True
        self._count_down()
        self._let_go()
        await asyncio.to_thread(self._source.close)

    def _look(self) -> tuple[dict[tuple[str, int], Found], list[Stray]]:
        models = self._settings.models
        return {(f.name, f.version): f for f in folder.models(models)}, list(folder.strays(models))

    def _warn(self, strays: list[Stray], settled: bool) -> None:
        """Says once of each file that lies in the wrong place, and stays there, that it is not served."""
        for stray in strays:
            if self._strays.get(stray) is False or (settled and stray not in self._strays):
                log.warning("%s is not served: %s", stray.path.relative_to(self._settings.models), stray.reason)
        self._strays = {stray: settled or stray in self._strays for stray in strays}

    def stop(self) -> None:
        """Stops every model, and brings in no more; may be called again."""
        self._stopped = True
        self._source.close()
        for key in list(self._entries):
            self._remove(key)
        for entry in self._leaving:
            if entry.served is not None:
                entry.served.stop()

    async def _follow(self, versions: list[Found], settled: bool) -> None:
        """From the newest down, until enough of them are served."""
        ready = 0
        for found in versions:
            if self._stopped:
                return
            key = (found.name, found.version)
            entry = self._entries.get(key)
            if ready >= self._settings.keep_versions and key not in self._wanted:
                self._remove(key)
            elif (entry is None or entry.found.stamp != found.stamp) and (settled or self._last_seen.get(key) == found):
                await self._bring_in(key, found)
            entry = self._entries.get(key)
            ready += entry is not None and entry.served is not None

    async def _bring_in(self, key: tuple[str, int], found: Found) -> None:
        before = self._entries.get(key)
        entry = Entry(found)
        if before is None:
            self._entries[key] = entry
        log.info("loading %s version %d", *key)
        try:
            loaded = await asyncio.to_thread(self._source.load, found.path)
            counters = self._tallies.setdefault(key, Counters())
            entry.served = ServedModel(found.name, found.version, loaded, self._settings, counters)
            entry.served.start()
        except ModelRefused as refusal:
            entry.refusal = refusal
            log.warning("refused %s version %d: %s", *key, refusal)
        else:
            log.info("serving %s version %d (largest error %.1e)", *key, loaded.proof.max_error)
        if before is not None:
            self._remove(key)
        self._entries[key] = entry

    def _remove(self, key: tuple[str, int]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.served is not None:
            self._leaving.append(entry)

    def _count_down(self) -> None:
        for key in list(self._wanted):
            entry = self._entries.get(key)
            in_use = entry is not None and entry.served is not None and entry.served.in_use
            self._wanted[key] = _STAY if in_use else self._wanted[key] - 1
            if not self._wanted[key]:
                del self._wanted[key]

    def _let_go(self) -> None:
        """Stops those that left and have no sequence any more."""
        for entry in [left for left in self._leaving if left.served is not None and not left.served.in_use]:
            log.info("unloading %s version %d", entry.found.name, entry.found.version)
            self._leaving.remove(entry)
            if entry.served is not None:
                entry.served.stop()


def _intake(settings: Settings) -> Intake:
    limits = Limits(settings.load_seconds, settings.load_memory_mib)
    cache = ProofCache(settings.cache_folder, settings.cache_bytes)
    return Intake(settings.max_batch, settings.patience_ms / 1e3, limits, cache)
