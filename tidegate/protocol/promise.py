"""A request's future answer or error, without a clock or a thread."""

from collections.abc import Callable
from copy import copy
from typing import Generic, TypeVar

from tidegate.errors import TidegateError

T = TypeVar("T")


class Promise(Generic[T]):
    """Settled once, by `resolve` or `fail`, which then calls what `call` was given."""

    __slots__ = ("_error", "_value", "_wake", "done")

    def __init__(self) -> None:
        self.done = False
        self._wake: Callable[[], object] | None = None
        self._value: T | None = None
        self._error: TidegateError | None = None

    def call(self, wake: Callable[[], object]) -> None:
        before = self._wake
        self._wake = wake if before is None else lambda: (before(), wake())

    def resolve(self, value: T) -> None:
        self._value = value
        self.done = True
        if self._wake is not None:
            self._wake()

    def fail(self, error: TidegateError) -> None:
        self._error = error
        self.done = True
        if self._wake is not None:
            self._wake()

    def result(self) -> T:
        """Returns the answer, or raises the error. Only when `done`."""
        if self._error is not None:
            raise copy(self._error)  # one error may settle many promises, and each raise writes into it
        return self._value  # type: ignore[return-value] # resolved: T, which may itself be None
