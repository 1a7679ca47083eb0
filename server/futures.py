"""Futures whose result may come after what awaited it was cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asyncio import Future

T = TypeVar("T")


def settle(future: Future[T], result: T) -> None:
    """Gives a future its result, unless it was cancelled."""
    if not future.done():
        future.set_result(result)
