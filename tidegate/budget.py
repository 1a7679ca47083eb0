"""How much a client keeps so that it can send it again after a loss: one bound for all of its sequences. Pure."""

from tidegate.ticket import Ticket

KEEP_BYTES = 256 * 2**20
KEEP_STEPS = 2**24


class Budget:
    """Counts the inputs that are kept, in bytes (with what Python takes around them) and in steps."""

    def __init__(self, most_bytes: int = KEEP_BYTES, most_steps: int = KEEP_STEPS) -> None:
        self.bytes = 0
        self.steps = 0
        self._most_bytes = most_bytes
        self._most_steps = most_steps
        self._waiting: list[Ticket[None]] = []

    @property
    def full(self) -> bool:
        """Whether no more should be kept before something is freed."""
        return self.bytes >= self._most_bytes or self.steps >= self._most_steps

    def free(self, size: int, steps: int) -> None:
        """Inputs that are kept no longer. Who waits for room looks again."""
        self.bytes -= size
        self.steps -= steps
        if self._waiting and not self.full:
            self.stir()

    def room(self) -> Ticket[None]:
        """Settled when there may be room again."""
        ticket: Ticket[None] = Ticket()
        self._waiting.append(ticket)
        return ticket

    def stir(self) -> None:
        """Lets everybody who waits look again: there is room, or what they wait for will not come."""
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            ticket.resolve(None)
