"""Large work of the event loop in pieces, between which other work is done. Knows no sequence."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

PIECE = 64  # sequences: a few tenths of a millisecond
_SLICE = 0.0003  # seconds


async def pieces(count: int, size: int = PIECE) -> AsyncIterator[slice]:
    """Slices of so many things; between two of them the event loop has a turn."""
    for first in range(0, count, size):
        if first:
            await asyncio.sleep(0)
        yield slice(first, first + size)


async def consumed(things: list[T]) -> AsyncIterator[list[T]]:
    """The things of a list in pieces, which leave it: to free ten thousand objects at once takes some milliseconds."""
    while things:
        part = things[:PIECE]
        del things[:PIECE]
        yield part
        await asyncio.sleep(0)


async def freed(things: list[T]) -> None:
    """Empties a list: else all of it is freed at once when an error is, whose traceback refers to it."""
    async for _ in consumed(things):
        pass


async def each(things: Iterable[T], call: Callable[[T], None], clock: Callable[[], float] = perf_counter) -> None:
    """Calls it with one thing after the other; a few tenths of a millisecond later the event loop has a turn."""
    ends = clock() + _SLICE
    for thing in things:
        call(thing)
        if clock() >= ends:
            await asyncio.sleep(0)
            ends = clock() + _SLICE


async def in_turns(work: Iterator[None]) -> None:
    """Does some work to its end; whenever it yields the event loop has a turn."""
    for _ in work:
        await asyncio.sleep(0)


class PerAccount:
    """Places for work of which so much is under way for each account; the rest of it waits for its own account."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def turn(self, account: str) -> asyncio.Semaphore:
        """To be entered for the time of the work."""
        return self._of.setdefault(account, asyncio.Semaphore(self._most))
