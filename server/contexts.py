"""What is had for the length of a `with` block. contextlib's would take 700 bytes for as long as a stream lasts."""

from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Lender(Protocol[T_contra]):
    """Has given something."""

    def give_back(self, what: T_contra, /) -> None:
        """It is not used any more."""


class Held(Generic[T]):
    """Had already: given back to its lender at the end of the block."""

    __slots__ = ("_lender", "_what")

    def __init__(self, lender: Lender[T], what: T) -> None:
        self._lender = lender
        self._what = what

    def __enter__(self) -> T:
        return self._what

    def __exit__(self, *_: object) -> None:
        self._lender.give_back(self._what)
