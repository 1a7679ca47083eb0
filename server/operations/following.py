"""Follows the folder of models while the server serves, and says which sequences a version leaves behind."""

import asyncio
import logging
from collections.abc import Set as AbstractSet

from server.durability.keeper import AnyKeeper
from server.durability.upkeep.listing import Filter
from server.errors import StoreFailed, StoreSilent
from server.repository import changes
from server.repository.repository import Repository

log = logging.getLogger(__name__)

_THEY = "They"
_LATER = "They go on as long as this server has it in memory, for those that are open; after that they"


class Following:
    """Looks every so many seconds."""

    def __init__(self, repository: Repository, keeper: AnyKeeper, seconds: float) -> None:
        self._repository = repository
        self._keeper = keeper
        self._seconds = seconds
        self._counting: set[asyncio.Task[None]] = set()
        self._missing: frozenset[tuple[str, str]] = frozenset()  # rules that lead nowhere, as was said last
        # deleted versions, and whether it was said of each that it strands sequences
        self._gone: dict[tuple[str, int], bool | None] = {}

    async def run(self) -> None:
        """Until cancelled. What fails is tried again with the next look."""
        failed = ""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._look()
                failed = ""
            except OSError as error:
                if str(error) != failed:  # once, however long it lasts
                    log.warning("the models cannot be looked through: %s; trying again", error)
                failed = str(error)
            except (StoreFailed, StoreSilent):
                pass  # the store's thread says it
            except Exception:
                log.exception("looking through the repository failed; trying again")

    async def _look(self) -> None:
        before = self._repository.placement().here
        await self._repository.look()
        missing = self._repository.placement().missing()
        for name, rule in sorted(missing - self._missing):
            log.warning("%s/versions.toml says %s, which is gone: what asks for it is refused", name, rule)
        self._missing = missing
        self._look_for_gone(before)
        await self._keeper.upkeep.move_on(changes.moving(self._repository))

    def _look_for_gone(self, before: AbstractSet[tuple[str, int]]) -> None:
        placement = self._repository.placement()
        self._gone |= dict.fromkeys(before - placement.here)
        for key, said in sorted(self._gone.items()):
            stranded = placement.strands(*key)
            if key in placement.here:
                del self._gone[key]
            elif placement.complete and said is not stranded:
                self._gone[key] = stranded
                task = asyncio.create_task(self._count(*key, stranded))
                self._counting.add(task)
                task.add_done_callback(self._counting.discard)

    async def _count(self, name: str, version: int, stranded: bool) -> None:
        """Says how many sequences need a version that is gone, unless a rule moves them."""
        if not stranded and self._repository.destination(name, version):
            return
        count = 0
        try:
            async for those in self._keeper.upkeep.list(Filter(model=name, version=version), list):
                count += len(those)
        except (StoreFailed, StoreSilent):
            log.warning(
                "%s version %d is gone; how many sequences need it cannot be said: the store fails", name, version
            )
            return
        if count:
            log.warning(
                "%s version %d is gone, and is needed by sequences: %d. %s cannot be resumed until it is put back, or "
                "until: tidegate versions move %s %d VERSION",
                *(name, version, count, _THEY if stranded else _LATER, name, version),
            )
