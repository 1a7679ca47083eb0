"""What is had for the length of a `with` block. contextlib's would take 700 bytes for as long as a stream lasts."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """Had already: `give_back` is called at the end of the block."""

    __slots__ = ("_give_back", "_what")

    def __init__(self, what: T, give_back: Callable[[], None]) -> None:
        self._what = what
        self._give_back = give_back

    def __enter__(self) -> T:
        return self._what

    def __exit__(self, *_: object) -> None:
        self._give_back()
