"""What who runs a server asks of its kept sequences, all in pages: neither the event loop nor the store is held up.

Knows no message: `make` turns what is found into a protocol's, in the store's thread.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from server.durability import checkpoint
from server.durability.checkpointer import Checkpointer
from server.durability.outbox import Outbox
from server.durability.pieces import pieces
from server.durability.registry import Registry
from server.durability.sequence import Life
from server.durability.upkeep.backup import Reader, Writer
from server.durability.upkeep.listing import Filter, Listed, listed, seen
from server.errors import CheckpointRefused, Reason
from server.stores import store
from server.stores.records import Outcome, Page, Record

if TYPE_CHECKING:
    from server.durability.store_thread import StoreThread
    from server.runtime.served_model import ServedModel

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST, _FIRST = 250, 4  # records of a page, and of the first one
_BYTES = 2**20  # that a page is to have, about
_AGAIN = 3  # attempts to end a sequence that changes hands
_GOES_ON = Life.OPEN, Life.BRANCHED, Life.ASLEEP
_RESUME = "sequence '{}' goes on with another version of its model once it is resumed"


@dataclass
class Census:
    """What a check has counted."""

    sequences: int = 0
    parked: int = 0
    tombstones: int = 0
    checkpoints: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)  # of the last page
    versions: dict[tuple[str, int], int] = field(default_factory=dict)  # how many sequences by model and version
    done: bool = False


@dataclass(eq=False)
class Upkeep:
    """Looks after the sequences of a store, and those that are open here."""

    _store: StoreThread
    _registry: Registry
    _outbox: Outbox
    _checkpointer: Checkpointer

    # Listing ----------------------------------------------------------------------------------------------------------

    async def list(self, wanted: Filter, make: Callable[[Sequence[Listed]], T]) -> AsyncIterator[T]:
        """All sequences that are wanted; each that is there all the time once. Raises StoreFailed, StoreSilent."""
        here = await self._here(wanted)
        await self._checkpointer.write_soon()  # what has left its stream by now, and the store does not know yet

        def page(records: Sequence[Record]) -> T:
            found = [listed(r, here.pop(r.id, None)) for r in records if wanted.may_match(r)]
            return make([one for one in found if wanted.matches(one)])

        async for made in self._those(sorted(wanted.ids), page) if wanted.ids else self._pages(page):
            yield made
        rest = list(here)  # those that the store did not know when it was asked
        async for part in pieces(len(rest)):
            those = [here.pop(id_) for id_ in rest[part]]
            yield make([one for one in those if wanted.matches(one)])

    async def _here(self, wanted: Filter) -> dict[str, Listed]:
        """What is open here, by id, of the ids that are asked for."""
        here, ids = dict[str, Listed](), list(wanted.ids) or self._registry.ids()
        async for part in pieces(len(ids)):
            now = self._registry.monotonic()
            here |= {one.id: seen(one, now) for one in self._registry.those_here(ids[part])}
        return here

    async def _those(self, ids: Sequence[str], take: Callable[[Sequence[Record]], T]) -> AsyncIterator[T]:
        """Likewise the records of some ids, however many are asked for."""
        for at in range(0, len(ids), _MOST):
            part, now = ids[at : at + _MOST], self._registry.clock()
            yield await self._store.ask(partial(_some, part, now, take))

    async def _pages(self, take: Callable[[Sequence[Record]], T]) -> AsyncIterator[T]:
        """Has all records taken in the store's thread, page by page."""
        cursor, limit = None, _FIRST
        while True:
            page, taken = await self._store.ask(partial(_page, cursor, limit, self._registry.clock(), take))
            size = sum(len(data) for record in page.records for data in record.checkpoints)
            if page.records:
                limit = min(_MOST, 2 * limit, max(1, _BYTES * len(page.records) // max(1, size)))
            yield taken
            if (cursor := page.cursor) is None:
                return

    # Ending -----------------------------------------------------------------------------------------------------------

    async def end(self, wanted: Filter) -> AsyncIterator[tuple[Sequence[str], Sequence[str]]]:
        """Ends all sequences that are wanted: the ids of those that have ended, and of those that could not be.

        Clients that have one open get an error, at another server when that writes it next. Raises StoreFailed.
        """
        async for those in self.list(wanted, list):
            if those:
                yield await self._end(those)

    async def _end(self, those: Sequence[Listed]) -> tuple[Sequence[str], Sequence[str]]:
        async with self._checkpointer.turn_soon():  # no write that is under way makes one known again
            async for part in pieces(len(those)):
                here = self._registry.those_here([one.id for one in those[part]])
                self._registry.let_go(here, store.Reason.REMOVED)
            now, fences = self._registry.clock(), {one.id: max(1, one.fence) for one in those}
            kept = await self._store.ask(lambda s: _ended(s, fences, now))
        ended = [one.id for one in those if one.id not in kept]
        self._registry.lives.gone([one.id for one in those if not one.here and one.id not in kept], "sequence_ended")
        return ended, kept

    # Going on with another version ------------------------------------------------------------------------------------

    async def move_on(self, models: Sequence[ServedModel]) -> int:
        """Has clients resume what they have open of these models, as a rule moves it to another version: how many.

        Their states are written before, so that little is to be sent again.
        """
        moved = 0
        for model in models:
            those = [one for one in self._registry if one.model is model]
            await self._checkpointer.write_soon(those)
            async for part in pieces(len(those)):
                here = [one for one in those[part] if one in self._registry and one.model is model]
                leaving = [one for one in here if one.life in _GOES_ON]
                self._registry.lose(leaving, Reason.DRAINING, _RESUME, counted=False)
                moved += len(leaving)
            log.info("%d open sequences of %s version %d are to be resumed", len(those), model.name, model.version)
        return moved

    # The store as a whole ---------------------------------------------------------------------------------------------

    async def usage(self) -> store.Usage:
        """Raises StoreSilent."""
        return await self._store.ask_soon(lambda s: s.usage())

    @property
    def fault(self) -> str:
        """Why calls of the store fail; empty while none does."""
        return self._store.fault

    async def check(self) -> AsyncIterator[Census]:
        """Reads every checkpoint; the same census after each page, which says at the end that it is done."""
        census, before = Census(), await self.usage()
        async for _ in self._pages(partial(count, census)):
            yield census
            census.faults.clear()
        usage = await self.usage()
        if usage == before:
            compare(census, usage)
        census.done = True
        yield census

    async def back_up(self) -> AsyncIterator[bytes]:
        """The bytes of a backup. What is open here is written before."""
        await self._checkpointer.write_soon()
        writer = Writer()
        yield writer.head()
        async for data in self._pages(writer.records):
            yield data
        yield writer.end()

    async def restore(self, reader: Reader, data: bytes) -> Sequence[Outcome]:
        """Takes the next bytes of a backup. Raises BadInput, StoreFailed."""
        now = self._registry.clock()
        return await self._store.ask(lambda s: put(s, reader.feed(data), now))


def put(into: store.Store, records: Sequence[Record], now: float) -> list[Outcome]:
    """In the store's thread."""
    return into.put(records, now) if records else []


def _some(ids: Sequence[str], now: float, take: Callable[[Sequence[Record]], T], s: store.Store) -> T:
    return take(s.records(ids, now))


def _page(
    cursor: object | None, limit: int, now: float, take: Callable[[Sequence[Record]], T], s: store.Store
) -> tuple[Page, T]:
    page = s.page(cursor, limit, now)
    return page, take(page.records)


def _ended(s: store.Store, fences: dict[str, int], now: float) -> list[str]:
    """Ends sequences; the ids of those that another claims all the time. What is gone, or unknown, has ended."""
    for _ in range(_AGAIN):
        refused = s.end([store.End(id_, fence, store.Reason.REMOVED) for id_, fence in fences.items()], now)
        fences = {one.id: one.fence for one in refused if one.reason is store.Reason.FENCED}
        if not fences:
            break
    return list(fences)


def compare(census: Census, usage: store.Usage) -> None:
    """Whether the store's counters say what was counted; if not, that is a fault."""
    counted = census.sequences, census.parked, census.bytes
    counters = usage.sequences, usage.parked, usage.bytes
    if counted != counters:
        census.faults.append(f"the counters say {counters} sequences, parked ones and bytes; there are {counted}")


def count(census: Census, records: Sequence[Record]) -> None:
    for record in records:
        if record.reason is not None:
            census.tombstones += 1
            continue
        census.sequences += 1
        census.parked += not record.awake
        census.checkpoints += len(record.checkpoints)
        census.bytes += sum(map(len, record.checkpoints))
        version = 0
        for step, data in reversed([*zip(record.steps, record.checkpoints, strict=True)]):
            try:
                kept = checkpoint.decode(data)
            except CheckpointRefused as error:
                census.faults.append(f"sequence '{record.id}': {error}")
                continue
            version = kept.version
            if (kept.step, kept.model) != (step, record.model):
                there = f"of model '{kept.model}' at step {kept.step}, and was kept at step {step}"
                census.faults.append(f"sequence '{record.id}': a checkpoint is {there}")
        if not record.checkpoints:
            census.faults.append(f"sequence '{record.id}' has no checkpoint")
        key = record.model, version
        census.versions[key] = census.versions.get(key, 0) + 1
