"""The life of a stream, as a table (RFC 9113, section 5.1)."""

from enum import Enum, auto


class State(Enum):
    """Of a stream that this side, the server's, has seen begin."""

    OPEN = auto()
    HALF_CLOSED = auto()  # the client has sent all
    CLOSED = auto()


class Event(Enum):
    """What ends a stream, or one side of it."""

    CLIENT_ENDS = auto()
    SERVER_ENDS = auto()
    RESET = auto()


NEXT = {
    (State.OPEN, Event.CLIENT_ENDS): State.HALF_CLOSED,
    (State.OPEN, Event.SERVER_ENDS): State.CLOSED,  # with a reset: the client need not send the rest
    (State.OPEN, Event.RESET): State.CLOSED,
    (State.HALF_CLOSED, Event.SERVER_ENDS): State.CLOSED,
    (State.HALF_CLOSED, Event.RESET): State.CLOSED,
}
