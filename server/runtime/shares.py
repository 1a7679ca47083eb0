"""Which of the blocks that are ready get the rows of a batch: accounts by weight, and of an account its streams. Pure.

What an account does not need is the others'. Who is alone gets all of a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.meter import SEVERAL, Meter

if TYPE_CHECKING:
    from server.runtime.scheduler import Block

BRIEF = 16  # rows of one account in a batch, where another has little: more rows at a time are hardly quicker
LATELY = 256  # batches: the tenth of a second, about
_KEPT = 4_096  # lines of accounts that have nothing ready are kept until there are so many


@dataclass(slots=True, eq=False)  # frozen it would take three times as long to make, for each step
class Take:
    """The part of a block that runs in a batch: its rows first to first + rows."""

    block: Block
    first: int
    rows: int


class _Queue:
    """Blocks of an account. Those of one stream run in their order, and streams take turns."""

    def __init__(self) -> None:
        self._streams: OrderedDict[object, OrderedDict[Block, None]] = OrderedDict()  # any block is found quickly
        self.rows = 0  # of all of them

    def put(self, block: Block) -> None:
        if (own := self._streams.get(block.stream)) is None:
            own = self._streams[block.stream] = OrderedDict()
        own[block] = None
        self.rows += block.rows

    def remove(self, block: Block) -> None:
        own = self._streams[block.stream]
        del own[block]
        if not own:
            del self._streams[block.stream]
        self.rows -= block.rows

    def take(self, room: int) -> list[Take]:
        """So many rows at most: a block is taken out, though it may have more of them."""
        takes = list[Take]()
        part = max(BRIEF, -(-room // max(1, len(self._streams))))  # of a stream, before the next one has its turn
        while room > 0 and self._streams:
            stream, own = self._streams.popitem(last=False)
            left = min(part, room)
            while left > 0 and own:
                block, _ = own.popitem(last=False)
                self.rows -= block.rows
                rows = min(room if block.apart else left, block.rows)
                takes.append(Take(block, block.first, rows))
                left -= rows
                room -= rows
            if own:
                self._streams[stream] = own
        for take in takes if room else ():  # no other block has any
            more = min(room, take.block.rows - take.rows)
            take.rows += more
            room -= more
        return takes


class Line:
    """The blocks of one account that are ready: of single steps (narrow), and fleets (wide)."""

    def __init__(self, account: Meter) -> None:
        self._account = account
        self._narrow, self._wide = _Queue(), _Queue()
        self._even = False  # every other batch
        self.credit = 0.0  # rows that it is due, where a part was less than one

    @property
    def accounts(self) -> int:
        """How many it stands for, about."""
        return max(1, self.rows) if self._account is SEVERAL else 1

    @property
    def weight(self) -> float:
        return self.accounts * self._account.limits.weight

    @property
    def rows(self) -> int:
        """How many could run now."""
        return self._narrow.rows + self._wide.rows

    def of(self, block: Block) -> _Queue:
        """Where it belongs."""
        return self._wide if block.is_fleet else self._narrow

    def take(self, room: int) -> list[Take]:
        """Single steps first, so that a fleet does not hold them up; a quarter is kept for fleets.

        Where a quarter is less than one row, fleets get one every other time.
        """
        self._even = not self._even
        reserved = min(room // 4 or int(self._even), self._wide.rows)
        takes = self._narrow.take(room - reserved)
        return [*takes, *self._wide.take(room - sum([take.rows for take in takes]))] if self._wide.rows else takes


class Shares:
    """The lines of all accounts."""

    def __init__(self) -> None:
        self._lines: dict[Meter, Line] = {}
        self._busy: dict[Line, None] = {}  # those that have something ready
        self._rest = 0  # batches for which those with much get a few rows at a time

    @property
    def some(self) -> bool:
        """Whether anything is ready."""
        return bool(self._busy)

    @property
    def calm(self) -> bool:
        """Whether nothing is ready, and no account came lately that had little."""
        return not self._busy and not self._rest

    def put(self, block: Block) -> None:
        """A block is ready."""
        line = self._lines.get(block.account)
        if line is None:
            line = self._new(block.account)
        self._busy[line] = None
        line.of(block).put(block)

    def remove(self, block: Block) -> None:
        """A block that is ready will not run."""
        line = self._lines[block.account]
        line.of(block).remove(block)
        if not line.rows:
            del self._busy[line]

    def take(self, room: int) -> list[Take]:
        """What runs in a batch of so many rows at most.

        Where an account came lately that had little, those with much get a few rows at a time, so that the next batch
        of it is never far away.
        """
        self._rest = max(0, self._rest - 1)
        if len(self._busy) == 1:
            (line,) = self._busy
            parts = {line: room}
        else:
            parts = divided(list(self._busy), room)
            if any(part < BRIEF * line.accounts and part == line.rows for line, part in parts.items()):
                self._rest = LATELY
        most = BRIEF if self._rest else room
        takes = [t for line, rows in parts.items() if rows for t in line.take(min(rows, most * line.accounts))]
        for line in parts:
            if not line.rows:
                del self._busy[line]
        return takes

    def _new(self, account: Meter) -> Line:
        if len(self._lines) >= _KEPT:
            self._lines = {meter: line for meter, line in self._lines.items() if line.rows}
        made = self._lines[account] = Line(account)
        return made


def divided(lines: Iterable[Line], room: int) -> dict[Line, int]:
    """How many rows of a batch each line gets: as many as it has ready, or its part by weight of what is left then."""
    wanted = {line: line.rows for line in lines}
    parts, left = dict[Line, int](), dict(wanted)
    while left:
        unit = room / sum(line.weight for line in left)
        content = [line for line, rows in left.items() if rows <= line.weight * unit]
        if not content:
            return parts | _by_weight(list(left), room, unit)
        for line in content:
            line.credit = 0.0
            parts[line] = left.pop(line)
            room -= parts[line]
    return parts


def _by_weight(lines: list[Line], room: int, unit: float) -> dict[Line, int]:
    """Whole rows for lines that could each use more than its part: what is due to each is kept for the next time."""
    parts = dict[Line, int]()
    for line in lines:
        line.credit += line.weight * unit
        parts[line] = max(0, int(line.credit))
        line.credit -= parts[line]
    by_credit = sorted(lines, key=lambda line: -line.credit)
    for line in by_credit[: room - sum(parts.values())]:
        parts[line] += 1
        line.credit -= 1
    return parts
