"""The models on disk: found, loaded, served, replaced while sequences run. `models/NAME/VERSION/model.onnx`.

Looks at the folder every now and then. A version is loaded once its file has stopped changing; the newest that load are
served; one that is superseded or gone serves its open sequences to their end.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from server.errors import ModelUnavailable, Reason, UnknownModel
from server.repository import folder
from server.repository.entry import Entry
from server.repository.folder import Found, Look, Stray
from server.repository.loader import Loader, Outcome
from server.repository.needed import FILE, Needed
from server.repository.placement import Placement
from server.repository.rulebook import Rulebook
from server.repository.source import Source, intake
from server.repository.superseded import FormerModels
from server.runtime import state_value
from server.runtime.counters import Counters
from server.runtime.loop_turn import ENDLESS, LoopTurn
from server.runtime.observer import Observer
from server.runtime.served_model import ServedModel
from server.settings import Settings
from stepgraph.errors import ModelRefused
from stepgraph.model import LoadedModel

log = logging.getLogger(__name__)

_BOUND = 60.0  # seconds that a start waits for what was not tried yet, if something else is ready

Key = tuple[str, int]  # name and version


class Repository:
    """The versions of all models. Lives in the event loop; loads in threads."""

    def __init__(
        self,
        settings: Settings,
        source: Source | None = None,
        observer: Observer | None = None,
        turn: LoopTurn = ENDLESS,
    ) -> None:
        self._settings, self._observer, self._turn = settings, observer, turn
        self._source = source or intake(settings)
        self._loader = Loader(self._source.close, settings.load_at_once)
        self._entries: dict[Key, Entry] = {}
        self._listed: tuple[Entry, ...] | None = None
        kept = settings.cache_folder if settings.outlives else None
        self._needed = Needed(kept and kept / FILE, 3_600 * settings.retention_hours)
        self._former = FormerModels(self._source, self._loader, self._serve)
        self._seen = Look({}, (), {}, {})
        self.rulebook = Rulebook(settings.models)
        self._steady: set[Key] = set()  # whose files did not change since the look before
        self._strays: dict[Stray, bool] = {}  # what is out of place, and whether that was said
        self._tallies: dict[Key, Counters] = {}  # also of what is not here any more: it may come back
        self._complete = False  # whether everything has been tried once

    def entries(self) -> tuple[Entry, ...]:
        """Every version that is loading, served or refused, by name and version; the same tuple until one changes."""
        if self._listed is None:
            self._listed = tuple(self._entries[key] for key in sorted(self._entries))
        return self._listed

    def served(self) -> list[ServedModel]:
        """Every model that takes steps, former ones too."""
        return [*(entry.served for entry in self._entries.values() if entry.served is not None), *self._former]

    def find(self, name: str, version: int, new: int = 0) -> ServedModel:
        """The model to open so many sequences of; version 0 is what its rules say, else the newest that is ready.

        Raises UnknownModel, ModelUnavailable: there is none, or not yet; the sentence lists what there is.
        """
        name, version = self.rulebook.resolved(name, version)
        version = version or self.rulebook.choose(name, lambda canary: self.ready(name, canary) is not None, new)
        if version and self.rulebook.of(name).withdraws(version):
            raise UnknownModel(f"model '{name}' version {version} is withdrawn", Reason.UNKNOWN_VERSION)
        entry = self._entry(name, version)
        if entry.served is not None:
            return entry.served
        if entry.refusal is not None:
            raise ModelUnavailable(
                f"model '{name}' version {entry.found.version} was refused: {entry.refusal}",
                Reason.MODEL_REFUSED,
            )
        raise self._loading(name, entry.found.version)

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model of this very content, to continue sequences of; a superseded or overwritten one is brought back.

        Raises UnknownModel, ModelUnavailable, WrongState: it is not here any more, or not yet.
        """
        key = name, version
        present = self.ready(name, version)
        here = [model for model in self._former if (model.name, model.version) == key]
        here = here if present is None else [present, *here]
        if to := self.destination(name, version):
            return state_value.fitting(here, self.find(name, to), inputs=True)
        for model in here:
            if model.loaded.sha256 == sha256:
                return model
        entry = self._entries.get(key)
        fault = self._seen.closed.get(name) or (entry.found.fault if entry is not None else "")
        if fault:
            raise ModelUnavailable(f"model '{name}' version {version} cannot be looked at: {fault}")
        found = self._seen.models.get(key)
        if entry is None and found is not None:  # superseded
            raise self._former.bring_back(name, version, sha256, found.path)
        overwritten = entry is not None and (entry.served is not None or entry.refusal is not None)
        if overwritten or self._former.is_coming(name, version, sha256):
            raise self._former.bring_back(name, version, sha256)
        if entry is not None or not self._complete:
            raise self._loading(name, version)
        raise UnknownModel(f"model '{name}' version {version} is not here any more", Reason.UNKNOWN_VERSION)

    def entry(self, name: str, version: int) -> Entry:
        """A version; 0 is that of new sequences, else the newest. One that is leaving is found by its number."""
        name, version = self.rulebook.resolved(name, version)
        return self._entry(name, version or self.rulebook.of(name).pin)

    def ready(self, name: str, version: int) -> ServedModel | None:
        entry = self._entries.get((name, version))
        return entry.served if entry is not None else None

    def versions(self, name: str) -> tuple[int, ...]:
        """Those whose folders are there, served or not."""
        return tuple(sorted(version for n, version in self._seen.models if n == name))

    def withdrawn(self) -> list[Key]:
        """Versions whose folders are there, and which no new sequence gets."""
        return [key for key in sorted(self._seen.models) if self.rulebook.of(key[0]).withdraws(key[1])]

    def destination(self, name: str, version: int) -> int:
        """The version with which sequences of a version go on by a rule, as soon as they are resumed; 0: their own."""
        if not self.rulebook.of(name).move:  # asked for each sequence that is resumed
            return 0
        return self.placement().destination(name, version)

    def check_known(self, name: str) -> None:
        """Raises UnknownModel: there is no folder of this model, and none of its sequences is open."""
        if not self.versions(name) and not any(model.name == name for model in self._former):
            raise UnknownModel(f"there is no folder of model '{name:.60}'")

    def placement(self) -> Placement:
        """Where sequences of each version go on now, for any thread."""
        return Placement(self.rulebook.all(), self._seen.models.keys(), self._former.keys(), self._complete)

    async def settled(self, name: str, version: int) -> Entry:
        """A version once it was tried. Raises UnknownModel, ModelUnavailable."""
        await self._loader.settled((name, version))
        return self.entry(name, version)

    def _entry(self, name: str, version: int) -> Entry:
        versions = {v: entry for (n, v), entry in self._entries.items() if n == name}
        if version and version not in versions:
            former = [model for model in self._former if (model.name, model.version) == (name, version)]
            versions |= {version: Entry(Found(name, version, Path()), former[-1])} if former else {}
        if version in versions or (versions and not version):
            return versions[version or max(versions, key=lambda v: (versions[v].served is not None, v))]
        if name in self._seen.closed:
            raise ModelUnavailable(f"model '{name}' cannot be looked at: {self._seen.closed[name]}")
        if not self._complete:
            raise ModelUnavailable("this server is still looking through its models; try again in a moment")
        if not versions and any(map(self.rulebook.of(name).withdraws, self.versions(name))):
            raise UnknownModel(f"every version of model '{name}' is withdrawn", Reason.UNKNOWN_VERSION)
        if not versions:
            names = ", ".join(sorted({f"'{n}'" for n, _ in self._entries})) or "none"
            others = f"; this server has {names}" if self._settings.tokens == "none" else ""  # not for every token
            raise UnknownModel(f"there is no model '{name:.60}'{others}")
        has = ", ".join(map(str, sorted(versions)))
        raise UnknownModel(f"model '{name}' has no version {version} here; it has {has}", Reason.UNKNOWN_VERSION)

    async def refresh(self, settled: bool = False) -> None:
        """Looks through the folder. Returns once all was tried, or one is ready and a while has passed."""
        await self.look(settled)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._loader.tried(), _BOUND)
        if not self.served():
            await self._loader.idle()

    async def look(self, settled: bool = False) -> None:
        """Looks through the folder and follows it; what is new is loading then. With `settled`, files are complete.

        Raises OSError: the folder cannot be read. Nothing changes.
        """
        seen = await asyncio.to_thread(folder.look, self._settings.models)
        unknown = {key: found for key, found in self._seen.models.items() if key[0] in seen.closed}
        rules = {name: self._seen.rules[name] for name in seen.closed.keys() & self._seen.rules.keys()}
        seen = replace(seen, models={**unknown, **seen.models}, rules={**rules, **seen.rules})
        self._steady = {key for key, f in seen.models.items() if settled or self._seen.models.get(key) == f}
        self._seen = seen
        self.rulebook.follow(seen.rules)
        self._warn(settled)
        self._source.need(await self._needed.look(self.served()))
        for key in self._entries.keys() - seen.models.keys():
            self._remove(key)
        for name in sorted({name for name, _ in seen.models}):
            self._follow(name)
        self._former.look()
        self._complete |= self._loader.has_tried

    def stop(self) -> None:
        """Stops every model, and brings in no more; may be called again."""
        self._loader.stop()
        for key in list(self._entries):
            self._remove(key)
        self._former.stop()

    def _warn(self, settled: bool) -> None:
        """Says once of each thing that is out of place, and stays there, that it is not served."""
        for stray in self._seen.strays:
            if self._strays.get(stray) is False or (settled and stray not in self._strays):
                log.warning("%s is not served: %s", stray.path.relative_to(self._settings.models), stray.reason)
        self._strays = {stray: settled or stray in self._strays for stray in self._seen.strays}

    def _follow(self, name: str) -> None:
        """From the newest version down, until enough of them are served, or soon will be; and those that rules name."""
        ready = likely = 0
        rules = self.rulebook.of(name)
        for key in sorted((key for key in self._seen.models if key[0] == name), reverse=True):
            wanted = key[1] in rules.wanted
            if rules.withdraws(key[1]) or (ready >= self._settings.keep_versions and not wanted):
                self._remove(key)
                continue
            if wanted or likely < self._settings.keep_versions:
                self._bring_in(key, self._seen.models[key])
            entry = self._entries.get(key)
            served = entry is not None and entry.served is not None
            ready += served
            likely += served or self._loader.is_quick(key)

    def _bring_in(self, key: Key, found: Found) -> None:
        """Has a version loaded, if its file is new and complete."""
        entry = self._entries.get(key)
        if key not in self._steady or (entry is not None and entry.found == found) or self._loader.is_loading(key):
            return
        if found.fault:
            log.warning("cannot load %s version %d: %s", *key, found.fault)
            self._put(key, Entry(found, entry.served if entry else None, ModelRefused(found.fault)))
            return
        if entry is None:
            self._put(key, Entry(found))
        log.info("loading %s version %d", *key)
        self._loader.load(key, lambda effort: self._source.load(found.path, effort), lambda o: self._loaded(found, o))

    def _loaded(self, found: Found, outcome: Outcome) -> None:
        key = found.name, found.version
        before = self._entries.get(key)
        if before is None:
            return  # it was superseded meanwhile, or is gone
        if self._settings.strict and isinstance(outcome, LoadedModel) and outcome.proof.objection:
            outcome = ModelRefused(outcome.proof.objection)
        if outcome is None:
            log.info("%s version %d takes long to load; others go first", *key)
        elif isinstance(outcome, ModelRefused):
            log.warning("refused %s version %d: %s", *key, outcome)
            self._remove(key)
            self._put(key, Entry(found, refusal=outcome))
        elif before.served is not None and before.served.loaded.sha256 == outcome.sha256:
            self._put(key, Entry(found, before.served))
        else:
            self._remove(key)
            self._put(key, Entry(found, self._serve(*key, outcome)))
            log.info("serving %s version %d (largest error %.1e)", *key, outcome.proof.max_error)
            if outcome.proof.objection:
                log.warning("%s version %d: %s", *key, outcome.proof.objection)
            if outcome.proof.narrowed:
                log.info("%s version %d: %s", *key, outcome.proof.narrowed.said)
            if before.served is not None:
                self._former.warn_overwritten(before.served)
        self._follow(found.name)
        self._complete |= self._loader.has_tried

    def _serve(self, name: str, version: int, loaded: LoadedModel) -> ServedModel:
        counters = self._tallies.setdefault((name, version), Counters())
        model = ServedModel(name, version, loaded, self._settings, counters, self._turn)
        model.observer = self._observer
        model.start()
        return model

    def _loading(self, name: str, version: int) -> ModelUnavailable:
        self._loader.hurry((name, version))
        return ModelUnavailable(f"model '{name}' version {version} is still loading; try again in a moment")

    def _put(self, key: Key, entry: Entry) -> None:
        self._entries[key] = entry
        self._listed = None

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        self._loader.drop(key)
        self._listed = None
        if entry is not None and entry.served is not None:
            self._former.add(entry.served)
