"""Bounds the inputs that a client keeps to send them again after a loss, for all of its sequences together. Pure."""

from tidegate.protocol.promise import Promise

KEEP_BYTES = 256 * 2**20
KEEP_STEPS = 2**24


class Budget:
    """Counts the inputs that are kept, in bytes (with what Python takes around them) and in steps."""

    def __init__(self, most_bytes: int = KEEP_BYTES, most_steps: int = KEEP_STEPS) -> None:
        self.bytes = 0
        self.steps = 0
        self.most_bytes = most_bytes
        self.most_steps = most_steps
        self._waiting: dict[Promise[None], None] = {}  # in their order

    @property
    def full(self) -> bool:
        return self.bytes >= self.most_bytes or self.steps >= self.most_steps

    def free(self, size: int, steps: int) -> None:
        self.bytes -= size
        self.steps -= steps
        if self._waiting and not self.full:
            self.stir()

    def room(self) -> Promise[None]:
        promise: Promise[None] = Promise()
        self._waiting[promise] = None
        return promise

    def withdraw(self, promise: Promise[None]) -> bool:
        return self._waiting.pop(promise, promise) is None

    def stir(self) -> None:
        """Wakes all that wait for room, so that they check again: there is room, or there will be none."""
        waiting, self._waiting = self._waiting, {}
        for promise in waiting:
            promise.resolve(None)

    def why_full(self) -> str:
        return (
            f"not sent: {self.steps} steps of {self.bytes} bytes are kept so that they can be sent again, as many as"
            f" may be (keep_steps={self.most_steps}, keep_bytes={self.most_bytes}), and the server told of no"
            " checkpoint in the given time"
        )


def why_no_room(budget: Budget | None, room: Promise[None]) -> str:
    if budget is not None and budget.withdraw(room):
        return budget.why_full()
    return "not sent: the sequence was still being rewound at the end of the given time"
