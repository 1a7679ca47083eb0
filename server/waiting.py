"""A queue that takes no memory while it is empty, as nearly always; an empty deque takes 760 bytes."""

from collections import deque
from typing import TypeVar

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
