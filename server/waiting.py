"""Queues that take no memory while they are empty, as nearly always (an empty deque takes 760 bytes), and futures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asyncio import Future

T = TypeVar("T")
Queue = deque[T] | tuple[()]


def added(queue: Queue[T], entry: T) -> deque[T]:
    """The queue with an entry at its end."""
    if not queue:
        return deque((entry,))
    queue.append(entry)
    return queue


def first(queue: Queue[T]) -> tuple[T, Queue[T]]:
    """Takes the first entry of a queue that has one; returns it and the queue."""
    assert queue, "it has one"
    return queue.popleft(), queue or ()


def settle(future: Future[T], result: T) -> None:
    """Gives a future its result, unless who waited for it has gone."""
    if not future.done():
        future.set_result(result)
