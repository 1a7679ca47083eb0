"""What stands in an Upkeep's place where no checkpoints are kept: there are only the sequences that are open."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from server.durability.pieces import pieces
from server.durability.sequence import Life, ServedSequence
from server.durability.upkeep.listing import Filter, Listed, seen
from server.errors import Reason, Refusal
from server.stores import store

if TYPE_CHECKING:
    from server.durability.upkeep.backup import Reader
    from server.durability.upkeep.upkeep import Census
    from server.runtime.served_model import ServedModel
    from server.stores.records import Outcome

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class NullUpkeep:
    """Has the calls of `Upkeep`. `lose` ends some of those that are open."""

    _open: Collection[ServedSequence]
    _lose: Callable[[Sequence[ServedSequence]], None]

    async def list(self, wanted: Filter, make: Callable[[Sequence[Listed]], T]) -> AsyncIterator[T]:
        now = time.monotonic()
        sequences = list(self._open)
        async for part in pieces(len(sequences)):
            those = [seen(one, now) for one in sequences[part]]
            yield make([one for one in those if wanted.matches(one)])

    async def end(self, wanted: Filter) -> AsyncIterator[tuple[Sequence[str], Sequence[str]]]:
        async for those in self.list(wanted, lambda those: {one.id for one in those}):
            leaving = [one for one in self._open if one.id in those and one.life is Life.OPEN]
            self._lose(leaving)
            yield [one.id for one in leaving], []

    async def move_on(self, _models: Sequence[ServedModel]) -> int:
        return 0  # they go on with the version that they have

    async def usage(self) -> store.Usage:
        raise _nothing()

    @property
    def fault(self) -> str:
        return ""

    def check(self) -> AsyncIterator[Census]:
        raise _nothing()

    def back_up(self) -> AsyncIterator[bytes]:
        raise _nothing()

    async def restore(self, _reader: Reader, _data: bytes) -> Sequence[Outcome]:
        raise _nothing()


def _nothing() -> Refusal:
    return Refusal("this server keeps no checkpoints: --store is none", Reason.STORE_UNAVAILABLE)
