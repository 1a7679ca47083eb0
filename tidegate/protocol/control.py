"""Requests about a sequence that are no steps: for its state, for a rewind, for a move to another version. Pure.

Each stands between two steps. After a loss those that were not answered are sent again at their place, and so are moves
that lie behind the checkpoint from which the server goes on.
"""

from collections import deque

from tidegate.errors import Refused, TidegateError
from tidegate.protocol.promise import Promise
from tidegate.v1 import sequence_pb2 as pb

# Reasons for which these are refused, and never a step: an older server does not name the request.
_REASONS = {
    "CHECKPOINT_GONE",
    "MODEL_NOT_READY",
    "MODEL_REFUSED",
    "STORE_UNAVAILABLE",
    "TOO_MANY_SEQUENCES",
    "UNKNOWN_MODEL",
    "UNKNOWN_VERSION",
    "WRONG_STATE",
}


# While one of these is on its way the server takes nothing else of the sequence.
BLOCKING = {"rewind", "move"}


class Control:
    """One such request: `kind` is its name in StreamRequest, `at` the step that comes after it.

    A move that was made has its promise settled, and may still have to be made again after a loss.
    """

    __slots__ = ("at", "kind", "promise", "request")

    def __init__(self, kind: str, at: int, request: pb.StreamRequest) -> None:
        self.kind = kind
        self.at = at
        self.request = request
        self.promise: Promise[pb.StreamResponse] = Promise()


class Controls:
    """The requests of one sequence that wait for their answer, and the moves that were made."""

    def __init__(self) -> None:
        self.waiting: deque[Control] = deque()
        self._made: list[tuple[Control, int]] = []  # moves, with the version that they led to
        self._room: list[Promise[None]] = []

    @property
    def held(self) -> bool:
        return any(control.kind == "rewind" for control in self.waiting)

    def room(self) -> Promise[None]:
        promise: Promise[None] = Promise()
        self._room.append(promise)
        return promise

    def add(self, control: Control) -> None:
        self.waiting.append(control)

    def settle(self, kind: str, response: pb.StreamResponse) -> None:
        control = self._pop(kind)
        if control is not None:
            control.promise.resolve(response)

    def moved(self, at: int, version: int, response: pb.StreamResponse) -> None:
        control = self._pop("move")
        if control is None:
            return
        control.at = at
        control.request.move.version = version
        self._made = [made for made in self._made if made[0] is not control]
        self._made.append((control, version))
        if not control.promise.done:
            control.promise.resolve(response)

    def refused(self, request: str, refusal: Refused, *, certain: bool) -> Control | None:
        """The request that a refusal concerns, if any.

        The first one of the kind `request`; where the server does not name it, the first one of all, if the reason is
        never that of a step, or if it is `certain` that no step is concerned.
        """
        if not request and self.waiting and (certain or refusal.reason in _REASONS):
            request = self.waiting[0].kind
        control = self._pop(request)
        if control is not None and not control.promise.done:
            control.promise.fail(refusal)
        return control

    def was_made(self, control: Control) -> bool:
        return any(made is control for made, _ in self._made)

    def fail(self, error: TidegateError) -> None:
        waiting, self.waiting = self.waiting, deque()
        for control in waiting:
            if not control.promise.done:
                control.promise.fail(error)
        self._stir()

    def rewound(self, step: int) -> None:
        """Enters that the sequence went back to `step` with its present version: the last move counts from there on."""
        later = [made for made in self._made if made[0].at >= step]
        self._made = [made for made in self._made if made[0].at < step] + later[-1:]
        for control, _ in later[-1:]:
            control.at = step

    # After a loss.

    def took_place(self, kind: str) -> bool:
        return any(control.kind == kind for control in self.waiting)

    def again(self, start: int, version: int) -> deque[Control]:
        """What to send again at its place, where the sequence goes on at `start` with this version.

        A request that was carried out before the loss, and whose answer did not come, does no harm a second time.
        """
        made = [(control, led) for control, led in self._made if control.at >= start]
        there = [at for at, (control, led) in enumerate(made) if control.at == start and led == version]
        repeated = [control for control, _ in made[there[-1] + 1 if there else 0 :]]
        fresh = [control for control in self.waiting if control not in repeated]
        self.waiting = deque([*repeated, *fresh])
        return deque(self.waiting)

    def _pop(self, kind: str) -> Control | None:
        control = next((control for control in self.waiting if control.kind == kind), None)
        if control is not None:
            self.waiting.remove(control)
            self._stir()
        return control

    def _stir(self) -> None:
        if self._room and not self.held:
            room, self._room = self._room, []
            for promise in room:
                promise.resolve(None)


class Turns:
    """Requests that are to be sent later; `blocked` while a move or a rewind waits for its answer."""

    def __init__(self) -> None:
        self.blocked = False
        self.later: deque[pb.StreamRequest] = deque()

    @property
    def free(self) -> bool:
        return not self.blocked and not self.later

    def say(self, requests: list[pb.StreamRequest], most: int) -> list[pb.StreamRequest]:
        """Returns the requests that can be sent now; the rest is sent later, in this order."""
        self.later.extend(requests)
        return [] if self.blocked else self.go_on(most)

    def go_on(self, most: int) -> list[pb.StreamRequest]:
        """Returns what can be sent now: up to the next request that has to be answered first, and up to step `most`."""
        self.blocked = False
        requests: list[pb.StreamRequest] = []
        while self.later and not self.blocked and self.later[0].steps.first_step <= most:  # 0 of what is no step
            requests.append(self.later.popleft())
            self.blocked = requests[-1].WhichOneof("request") in BLOCKING
        return requests

    def drop_steps(self) -> set[int]:
        dropped = {request.steps.first_step for request in self.later if request.HasField("steps")}
        self.later = deque(request for request in self.later if not request.HasField("steps"))
        return dropped

    def clear(self) -> None:
        self.blocked = False
        self.later.clear()
