"""Which contents of models sequences may come back to: none of them has to leave the cache of proofs.

A content is needed while sequences run with it, and then for as long as the last of them may be parked. That is kept in
a file beside the proofs, which servers may share. Ages are what was observed, as in a store.
"""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path

from server.runtime.served_model import ServedModel
from server.stores.observed_time import ObservedTime
from server.stores.terms import LEASE

FILE = "needed.json"
_GAP = 60.0  # seconds: the most that counts as passed between two looks, and so long a use may stay unwritten


class Needed:
    """`file` holds what is known, None for nowhere; `retention`: so long a sequence may be parked, in seconds."""

    def __init__(self, file: Path | None, retention: float, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._stays = retention + LEASE + 2 * _GAP
        self._clock = clock
        self._time = ObservedTime(_GAP)
        self._used: dict[str, float] = {}  # by sha256, in observed time
        self._written = -inf
        self._checkpoints: dict[ServedModel, int] = {}  # that were written of each, at the last look

    async def look(self, served: Collection[ServedModel]) -> frozenset[str]:
        """Notes which of these have sequences, or had since the last look. Returns all contents that are needed."""
        before, self._checkpoints = self._checkpoints, {model: model.counters.written for model in served}
        used = {m.loaded.sha256 for m, n in self._checkpoints.items() if m.in_use or n > before.get(m, 0)}
        return await asyncio.to_thread(self.note, used)

    def note(self, used: Collection[str]) -> frozenset[str]:
        """Notes that these are in use now. Returns all that are needed."""
        kept, others = self._read()
        now = self._time.look(kept, self._clock())
        news = not self._used.keys() >= set(used)
        for sha256, last in (*others.items(), *((sha256, now) for sha256 in used)):
            self._used[sha256] = max(last, self._used.get(sha256, last))
        self._used = {sha256: last for sha256, last in self._used.items() if last + self._stays > now}
        if self._used and (news or now - self._written >= _GAP / 2):
            self._write(now)
        return frozenset(self._used)

    def _read(self) -> tuple[float | None, Mapping[str, float]]:
        """The time and the contents that are kept. A file that means nothing is as none."""
        with suppress(OSError, ValueError, TypeError, LookupError):
            kept = json.loads(self._file.read_bytes() if self._file else b"")
            return float(kept["time"]), {str(sha256): float(last) for sha256, last in dict(kept["used"]).items()}
        return None, {}

    def _write(self, now: float) -> None:
        self._written = now
        if self._file is not None:
            new = self._file.with_suffix(".new")
            with suppress(OSError):  # a cache that takes nothing: the next time
                new.write_text(json.dumps({"time": now, "used": self._used}), encoding="ascii")
                new.replace(self._file)
