"""Loads model files: what is known of their content comes from the cache of proofs, the rest from a sandbox.

Nothing unproved comes into this process: only step graphs that our own code wrote, and ran elsewhere.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from queue import LifoQueue
from threading import Lock

from stepgraph.errors import ModelRefused
from stepgraph.file.content import Prints
from stepgraph.isolation.cache import ProofCache
from stepgraph.isolation.sandbox import Limits, OutOfMemory, OutOfTime, Sandbox
from stepgraph.isolation.verdict import Refused, Verdict, put_together
from stepgraph.model import LoadedModel

_HURRY = 5.0  # seconds of a first try, so that a file that takes long does not hold up the others


class Effort(IntEnum):
    """How much may be done to load a file."""

    KNOWN = 0  # only what the cache has
    HURRIED = 1  # a few seconds in a sandbox
    PATIENT = 2  # as long as the limits allow


class Intake:
    """For as many threads as `sandboxes` at a time.

    Models are warmed up for batches of up to `max_batch`, or that take `patience` seconds.
    """

    def __init__(self, max_batch: int, patience: float, limits: Limits, cache: ProofCache, sandboxes: int = 1) -> None:
        self._how = (max_batch, patience)
        self._limits = limits
        self._cache = cache
        self._sandboxes = tuple(Sandbox(limits) for _ in range(sandboxes))
        self._free: LifoQueue[Sandbox] = LifoQueue()
        for sandbox in reversed(self._sandboxes):
            self._free.put(sandbox)
        self._one = Lock()  # a warm-up measures what a step costs: no two at once

    def load(self, path: Path, effort: Effort = Effort.PATIENT) -> LoadedModel | None:
        """A model that is proved and warmed up; None if that takes more effort. Slow: not for the event loop."""
        self._check_size(path)
        outer, tried = self._cache.outer(path), self._tried(path)
        known = self._cache.find(path, outer, self._how, tried)
        if known is not None:
            return self._made(known, fresh=False)
        if effort == Effort.KNOWN:
            return None
        try:
            verdict = self._proved(path, effort)
        except (OutOfTime, OutOfMemory) as refusal:
            verdict = Verdict(None, Refused(f"{refusal}; it is tried again when the file or this limit changes", None))
            if outer is not None and outer == self._cache.outer(path):
                self._cache.keep(replace(verdict, prints=Prints(*outer, {})), tried)
        return None if verdict is None else self._made(verdict, fresh=True)

    def of_content(self, sha256: str) -> LoadedModel:
        """The model of this content, if the cache has it, though its file is another now."""
        verdict = self._cache.of_content(sha256, self._how)
        if verdict is None:
            raise ModelRefused(f"the content {sha256} is not in the cache")
        return self._made(verdict, fresh=False)

    def holds(self, sha256: str) -> bool:
        return self._cache.holds(sha256, self._how)

    def need(self, contents: Collection[str]) -> None:
        """These stay in the cache, though it has no room for others."""
        self._cache.need(contents, self._how)

    def close(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()

    def _check_size(self, path: Path) -> None:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ModelRefused(f"'{path.name}' cannot be read: {error.strerror}") from error
        if size > self._limits.memory_mib * 2**20:
            raise ModelRefused(
                f"the file has {size / 2**20:,.0f} MiB, and looking into it may take {self._limits.memory_mib:g} MiB "
                "of memory. If the model is sound and only large, allow more with --load-memory-mib"
            )

    def _proved(self, path: Path, effort: Effort) -> Verdict | None:
        max_batch, patience = self._how
        seconds = min(_HURRY, self._limits.seconds) if effort == Effort.HURRIED else self._limits.seconds
        try:
            with self._sandbox() as sandbox:
                verdict = sandbox.ask(Verdict, "load", path, seconds=seconds, max_batch=max_batch, patience=patience)
        except OutOfTime:
            if seconds < self._limits.seconds:
                return None
            raise
        self._cache.keep(verdict, self._how)
        return verdict

    @contextmanager
    def _sandbox(self) -> Iterator[Sandbox]:
        sandbox = self._free.get()
        try:
            yield sandbox
        finally:
            self._free.put(sandbox)

    def _tried(self, path: Path) -> tuple[object, ...]:
        """What decides whether a file takes too much, beside its own content: the limits, and the files beside it."""
        try:
            found = [(each.name, each.lstat()) for each in path.parent.iterdir() if each.name != path.name]
        except OSError:
            found = []
        beside = sorted((name, status.st_size, status.st_mtime_ns) for name, status in found)
        return (*self._how, "tried", self._limits.seconds, self._limits.memory_mib, beside)

    def _made(self, verdict: Verdict, fresh: bool) -> LoadedModel:
        if isinstance(verdict.outcome, Refused):
            raise ModelRefused(verdict.outcome.message, verdict.outcome.node)
        with self._one:
            return put_together(verdict.outcome, self._how[1], fresh)
