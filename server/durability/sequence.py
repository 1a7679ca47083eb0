"""The life of a sequence as one table of moves, and what a server knows of one that it holds. Pure."""

from enum import StrEnum

from server.errors import IllegalMove


class Life(StrEnum):
    """Where a sequence is in its life."""

    OPEN = "open"  # no step yet
    RUNNING = "running"
    PARKED = "parked"  # nobody's slot is taken; its checkpoint stays
    RESUMED = "resumed"  # continued from a checkpoint, no step since
    DRAINING = "draining"  # its server is stopping
    ENDED = "ended"  # by its client
    LOST = "lost"  # expired, evicted, or taken over by another server: the reason is kept beside


class Move(StrEnum):
    """What can happen to a sequence."""

    STEP = "take a step"
    PARK = "be parked"
    RESUME = "be resumed"
    DRAIN = "be drained"
    END = "be ended"
    LOSE = "be lost"


_MOVES: dict[Life, dict[Move, Life]] = {
    Life.OPEN: {
        Move.STEP: Life.RUNNING,
        Move.PARK: Life.PARKED,
        Move.RESUME: Life.RESUMED,  # on another stream, while the first has not noticed that it is cut
        Move.DRAIN: Life.DRAINING,
        Move.END: Life.ENDED,
        Move.LOSE: Life.LOST,
    },
    Life.RUNNING: {
        Move.STEP: Life.RUNNING,
        Move.PARK: Life.PARKED,
        Move.RESUME: Life.RESUMED,
        Move.DRAIN: Life.DRAINING,
        Move.END: Life.ENDED,
        Move.LOSE: Life.LOST,
    },
    Life.PARKED: {
        Move.RESUME: Life.RESUMED,
        Move.END: Life.ENDED,
        Move.LOSE: Life.LOST,
    },
    Life.RESUMED: {
        Move.STEP: Life.RUNNING,
        Move.PARK: Life.PARKED,
        Move.RESUME: Life.RESUMED,
        Move.DRAIN: Life.DRAINING,
        Move.END: Life.ENDED,
        Move.LOSE: Life.LOST,
    },
    Life.DRAINING: {
        Move.PARK: Life.PARKED,
        Move.LOSE: Life.LOST,
    },
    Life.ENDED: {},
    Life.LOST: {},
}


def after(life: Life, move: Move) -> Life:
    """Where a move leads.

    Raises:
        IllegalMove: it is not possible; the sentence says what is.
    """
    moves = _MOVES[life]
    if move not in moves:
        possible = ", ".join(moves) or "nothing any more"
        raise IllegalMove(f"a sequence that is {life} cannot {move}; it can {possible}")
    return moves[move]
