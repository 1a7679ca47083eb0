"""What was found when a step graph was compared with its file, as a value."""

from dataclasses import dataclass

from stepgraph.proving.narrowed import Narrowed

ROUNDING = 0.1  # how far a file that rounds to 8 bits may be from itself, one step at a time


@dataclass(frozen=True)
class Proof:
    """How far the two were apart at most, over `steps` single steps, in outputs and in states.

    A difference counts in units of the largest value that the same element has had so far in that random sequence, in
    any row, or of 1 where that is less: elements of different scale are each measured by their own, a value near zero
    is not held to more digits than its neighbours in time, and what is small is measured absolutely.
    `max_error` is above `tolerance` only where tiny changes lead the file as far from itself: of the inputs of a long
    sequence, or, where reading proves all, of the last digit of each number on the way (`last_digits`).
    A file that rounds to 8 bits while it runs is compared without its rounding; `rounding` is then how far apart they
    were with it, each sequence alone. None for other files.
    Where narrower weights are asked for, it was compared with its own; `narrowed` says how far the narrower lead.
    `unread` says which node no rule of reading tells enough of; "" if reading proves, for every length and value, that
    each step of each sequence is computed from itself and from its states.
    """

    max_error: float
    tolerance: float
    steps: int
    rounding: float | None = None
    unread: str = ""
    narrowed: Narrowed | None = None

    @property
    def by_rounding(self) -> str:
        """What is to be said of answers that are further from the file's than usual; "" if they are not."""
        if self.max_error <= self.tolerance:
            return ""
        return (
            f"answers or states differ from the file's by up to {self.max_error:.1e}, more than the usual "
            f"{self.tolerance:.0e}: this network makes much of the last digits of its numbers. That is rounding: the "
            "file's own answers move as far where only such digits are changed"
        )

    @property
    def objection(self) -> str:
        """Why the file is refused where only what is proved is served; "" if it is proved."""
        return self.unread and (
            f"it was tried and is not proved: {self.unread}. That each step is computed from itself and the states is "
            "shown by running alone, and --strict refuses such a file"
        )
