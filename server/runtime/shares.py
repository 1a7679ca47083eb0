"""Which of the blocks that are ready get the rows of a batch: accounts by weight, however much each has waiting. Pure.

What an account does not need is the others'. Who is alone gets all of a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.meter import Meter

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


class Line:
    """The blocks of one account that are ready: of one sequence (narrow) and of many (wide), each in order."""

    def __init__(self, account: Meter) -> None:
        self._account = account
        # queues from which any block can be taken out quickly
        self._narrow: OrderedDict[Block, None] = OrderedDict()
        self._wide: OrderedDict[Block, None] = OrderedDict()
        self._broad = 0  # rows of those
        self._even = False  # every other batch
        self.credit = 0.0  # rows that it is due, where a part was less than one

    @property
    def weight(self) -> float:
        return self._account.limits.weight

    @property
    def rows(self) -> int:
        """How many could run now."""
        return len(self._narrow) + self._broad

    def put(self, block: Block) -> None:
        if len(block.slots) == 1:
            self._narrow[block] = None
        else:
            self._wide[block] = None
            self._broad += block.left

    def remove(self, block: Block) -> None:
        if len(block.slots) == 1:
            del self._narrow[block]
        else:
            del self._wide[block]
            self._broad -= block.left

    def take(self, room: int) -> list[Take]:
        """Single sequences first, so that a fleet does not hold them up; a quarter is kept for fleets.

        Where a quarter is less than one row, fleets get one every other time.
        """
        self._even = not self._even
        reserved = min(room // 4 or int(self._even), self._broad)
        narrow = self._narrow
        takes = [Take(narrow.popitem(last=False)[0], 0, 1) for _ in range(min(len(narrow), room - reserved))]
        room -= len(takes)
        while self._wide and room > 0:
            block, _ = self._wide.popitem(last=False)
            self._broad -= block.left
            rows = min(room, block.left)
            takes.append(Take(block, block.done, rows))
            room -= rows
        return takes


class Shares:
    """The lines of all accounts."""

    def __init__(self) -> None:
        self._lines: dict[Meter, Line] = {}
        self._busy: dict[Line, None] = {}  # those that have something ready
        self._rest = 0  # batches for which those with much get a few rows at a time

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
        line.put(block)

    def remove(self, block: Block) -> None:
        """A block that is ready will not run."""
        line = self._lines[block.account]
        line.remove(block)
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
            if any(part < BRIEF and part == line.rows for line, part in parts.items()):
                self._rest = LATELY
        most = BRIEF if self._rest else room
        takes = [take for line, rows in parts.items() if rows for take in line.take(min(rows, most))]
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
