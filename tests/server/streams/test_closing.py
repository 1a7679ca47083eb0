"""How sequences leave a stream, against a window in which a test says when their steps are through."""

from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import numpy as np

from server.runtime.turns import AT_ONCE
from server.streams.closing import Closing, Ending
from server.streams.handles import Handles

HANDLES = np.arange(3)


class Window:
    """Steps are through when it is told so."""

    def __init__(self) -> None:
        self.marks: list[Callable[[], None]] = []

    def after(self, _group: object, _handles: np.ndarray, call: Callable[[], None]) -> None:
        self.marks.append(call)


def opened(window: Window) -> Closing:
    """Three sequences of one group."""
    handles = Handles(10)
    group: Any = MagicMock()
    group.members = len(HANDLES)
    handles._known[0] = group
    handles._alike[group.model, group.manner] = 0
    handles.new(0, len(HANDLES))
    handles.mark(HANDLES, 0)
    handles.sequences = {at: MagicMock(slot=at) for at in range(len(HANDLES))}
    return Closing(handles, None, window, AT_ONCE.line())  # type: ignore[arg-type]


def test_what_waits_for_handles_is_told_after_all_that_is_said_of_those_that_are_leaving() -> None:
    window = Window()
    closing = opened(window)
    said: list[str] = []
    for handle in (0, 2):  # each was taken over by itself
        closing.end(HANDLES[handle : handle + 1], Ending.NONE, lambda handle=handle: said.append(f"released {handle}"))
    closing.after(HANDLES, lambda: said.append("closed"))
    closing.after(HANDLES[1:2], lambda: said.append("closed 1"))
    for through in window.marks:
        through()
    assert said == ["closed 1", "released 0", "released 2", "closed"]


def test_handles_of_which_none_is_leaving_are_not_waited_for() -> None:
    said: list[str] = []
    opened(Window()).after(HANDLES, lambda: said.append("closed"))
    assert said == ["closed"]


def test_a_client_hears_of_the_end_of_sequences_that_fail_to_leave() -> None:
    window, said = Window(), list[str]()
    opened(window).end(HANDLES, Ending.PARK, lambda: said.append("closed"))  # there is no keeper to park them
    for through in window.marks:
        through()
    assert said == ["closed"]
