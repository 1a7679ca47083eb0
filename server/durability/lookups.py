"""How many sequences each address has the store look for: as many at a time as it may have open, in a few calls.

Whoever asks for ids that it made up keeps nobody but itself waiting. Knows no sequence.
"""

from asyncio import Semaphore
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from server.errors import OverLimit, Reason

PORTION = 1_000  # ids that the store is asked for at once; where one is unknown the rest is not looked for
_CALLS = 16  # of one address that wait for the store, so that the calls of others stand behind few of them


class Lookups:
    """`most`: ids of an address at a time, 0 for any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: Counter[str] = Counter()  # ids, by address
        self._turns: WeakValueDictionary[str, Semaphore] = WeakValueDictionary()

    def begin(self, address: str, count: int) -> None:
        """An address asks for so many more, until `end`. Raises OverLimit: then nothing has begun."""
        if self._most and self._asked[address] + count > self._most:
            raise OverLimit(
                f"{self._asked[address]} sequences are being resumed from your address, and {count} more were asked "
                f"for; {self._most} is the limit",
                Reason.TOO_MANY_OF_OWNER,
            )
        self._asked[address] += count

    def end(self, address: str, count: int) -> None:
        self._asked[address] -= count
        if not self._asked[address]:
            del self._asked[address]

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """One of the calls that an address may have under way."""
        turn = self._turns.setdefault(address, Semaphore(_CALLS))
        async with turn:
            yield
