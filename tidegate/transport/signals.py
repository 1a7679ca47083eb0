"""Signals that interrupt a program, held back while something is done that must not be left half done.

Python runs their handlers between two bytecodes of the main thread, and what they raise is raised there.
"""

import _signal  # type: ignore[import-not-found] # what `signal` wraps, at a twentieth of the time
import signal
from collections.abc import Callable
from threading import get_ident, main_thread
from typing import Any, TypeVar

T = TypeVar("T")

_NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name))


def undisturbed(call: Callable[[], T]) -> T:
    """What the call gives. In the main thread, a signal that comes meanwhile is handled after it."""
    if get_ident() != main_thread().ident:
        return call()
    came: list[int] = []
    try:
        return _held(0, lambda number, _: came.append(number), call)
    finally:
        for number in came:
            signal.raise_signal(number)


def _held(at: int, hold: Callable[[int, Any], None], call: Callable[[], T]) -> T:
    """Python looks for signals once a call is over, so that whatever is raised in here is raised before `finally`."""
    if at == len(_NUMBERS):
        return call()
    number = _NUMBERS[at]
    before = _signal.getsignal(number)
    if not callable(before):
        return _held(at + 1, hold, call)
    try:
        _signal.signal(number, hold)
        return _held(at + 1, hold, call)
    finally:
        _signal.signal(number, before)
