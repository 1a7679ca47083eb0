"""Something that is being opened, for asyncio: `async with` it, or await it and close it by hand."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar


class Leavable(Protocol):
    """What can be left without waiting."""

    def leave(self) -> None:
        """Ends it without waiting for the server's word."""


S = TypeVar("S", bound=Leavable)


class Pending(Generic[S]):
    """What `opening` will open; it begins with the `await` or the `async with`."""

    def __init__(self, opening: Callable[[], Awaitable[S]]) -> None:
        self._opening = opening
        self._opened: S | None = None

    def __await__(self) -> Generator[Any, None, S]:
        return self._opening().__await__()

    async def __aenter__(self) -> S:
        self._opened = await self._opening()
        return self._opened

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.leave()
