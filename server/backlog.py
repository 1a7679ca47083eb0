"""Requests of one client that wait until their sequences are awake, and for their turn; others go on meanwhile."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from server.errors import TidegateError
from server.events import Failed
from server.handles import Handles
from server.keeper import Keeper
from server.window import Window

MOST = 1_024  # requests that may wait


class Backlog:
    """What is held back for one stream.

    Args:
        handles: which of its sequences sleep.
        keeper: wakes them; None: none ever does.
        window: tells the client what is refused.
    """

    def __init__(self, handles: Handles, keeper: Keeper | None, window: Window) -> None:
        self._handles = handles
        self._keeper = keeper
        self._window = window
        self.held: deque[_Held] = deque()

    def queue(self, request: str, handles: np.ndarray, again: Callable[[], None]) -> bool:
        """Whether a request waits behind others that wait for the same sequences."""
        waits = self._waits_for(handles)
        if waits:
            self.held.append(_Held(request, handles, again, 0))
        return waits

    def hold(self, request: str, handles: np.ndarray, again: Callable[[], None], first_step: int = 0) -> bool:
        """Whether a request waits until its sequences are awake, and for its turn; wakes them.

        `again` takes it up then; its kind, as the contract names it, and its `first_step` are for the client, if it is
        refused.
        """
        asleep = handles[self._handles.slots[handles] < 0]
        waits = self._waits_for(handles)
        if not len(asleep) and not waits:
            return False
        self.held.append(_Held(request, handles, again, first_step))
        if len(asleep) and not waits:
            assert self._keeper is not None
            self._keeper.wake([self._handles.tenants[h] for h in asleep.tolist()], partial(self._awake, handles))
        return True

    def clear(self) -> None:
        """Forgets what waits."""
        self.held.clear()

    def _waits_for(self, handles: np.ndarray) -> bool:
        return any(held.concerns(handles) for held in self.held)

    def _awake(self, handles: np.ndarray, error: TidegateError | None) -> None:
        """Takes up what has waited for these sequences, or refuses it."""
        for handle in handles.tolist():
            tenant = self._handles.tenants.get(handle)
            if tenant is not None and tenant.slot >= 0 and self._handles.slots[handle] < 0:
                self._handles.slots[handle] = tenant.slot
                tenant.model.sleepers -= 1
        held, self.held = self.held, deque()
        for one in held:
            if error is not None and one.concerns(handles):
                self._refuse(one, error)
                continue
            try:
                one.again()
            except TidegateError as refusal:
                self._refuse(one, refusal)

    def _refuse(self, held: "_Held", error: TidegateError) -> None:
        handles = tuple(held.handles.tolist())
        self._window.emit(Failed(error, handles, held.first_step, self._handles.expected(handles), held.request))


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A request that waits."""

    request: str
    handles: np.ndarray
    again: Callable[[], None]
    first_step: int

    def concerns(self, handles: np.ndarray) -> bool:
        """Whether it is about one of these sequences."""
        return bool(np.isin(self.handles, handles).any())
