"""What can go wrong for a client, in one tree.

TidegateError
├── Refused              the server (or the client, before it asked) said no; nothing changed. `.reason`, `.message`
│   ├── UnknownModel     no such model or version
│   ├── ModelNotReady    it is still loading, or its file cannot be served
│   ├── AccessDenied     the server wants a token, knows this one not, or it does not allow this
│   ├── BadInput         wrong name, shape, type or size, not finite, too large, or the model could not compute it
│   └── ServerBusy       a limit of the server is reached, or it is stopping: try again later or elsewhere
├── ConnectionLost       nothing answers at the address, or what answered is gone, and nothing could be resumed; or
│                        the client was closed
├── SequenceLost         one sequence cannot go on, for a `.reason`; the others of the client do
├── TimedOut             no answer within `timeout=`; it may still come, and is then dropped
├── SequenceEnded        a step after the sequence was closed
├── NotTraced            a gate, layer or step that this answer does not show. An AttributeError, and a KeyError
└── ProtocolError        the other side does not speak tidegate.v1 as the contract has it
"""


class TidegateError(Exception):
    """Anything that this package raises by itself."""


class Refused(TidegateError):
    """A request was refused, and nothing changed: no state, no step number, no other sequence.

    `reason` is the contract's word for why, for example "WRONG_SHAPE"; `message` says what was wrong, where, and what
    was expected; `expected_step` is the step that the sequence takes next (None outside a sequence that is open);
    after `retry_after` seconds the same may be met (0: the server did not say).
    """

    def __init__(self, reason: str, message: str, expected_step: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(f"{message} ({reason})")
        self.reason = reason
        self.message = message
        self.expected_step = expected_step
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type["Refused"], tuple[str, str, int | None, float]]:
        return type(self), (self.reason, self.message, self.expected_step, self.retry_after)


class UnknownModel(Refused):
    """There is no such model, or not in this version."""


class ModelNotReady(Refused):
    """The model is still loading, or its file cannot be served."""


class AccessDenied(Refused):
    """The server wants a token, does not know the one that it was shown, or it does not allow this."""


class BadInput(Refused, ValueError):
    """The input is not what the model takes."""


class ServerBusy(Refused):
    """A limit of the server is reached, or it is stopping."""


class ConnectionLost(TidegateError, ConnectionError):
    """Nothing answers at the address, or what answered is gone, or this client was closed."""


class SequenceLost(TidegateError):
    """A sequence or fleet that cannot go on after a loss; other sequences of the same client are not concerned.

    `reason` is the contract's word for why: UNKNOWN_SEQUENCE, SEQUENCE_ENDED, SEQUENCE_EXPIRED, SEQUENCE_EVICTED,
    TAKEN_OVER, WRONG_TOKEN, CHECKPOINT_GONE and others; or UNREACHABLE: no server answered within `resume_within`.
    `answered` is how many answers the client had (of a fleet: the member that has the fewest).
    """

    def __init__(self, reason: str, message: str, answered: int | None = None) -> None:
        super().__init__(f"{message} ({reason})")
        self.reason = reason
        self.message = message
        self.answered = answered

    def __reduce__(self) -> tuple[type["SequenceLost"], tuple[str, str, int | None]]:
        return type(self), (self.reason, self.message, self.answered)


class TimedOut(TidegateError, TimeoutError):
    """No answer came within the time that the caller gave."""


class SequenceEnded(TidegateError):
    """The sequence takes no more steps: it was closed."""


class NotTraced(TidegateError, AttributeError, KeyError):
    """The answer does not show this part of the inside."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


class ProtocolError(TidegateError):
    """The other side does not keep the contract."""


_BAD = "MALFORMED WRONG_NAME WRONG_SHAPE WRONG_TYPE WRONG_SIZE NOT_FINITE OUT_OF_RANGE TOO_LARGE STEP_FAILED"
_BUSY = "TOO_MANY_SEQUENCES TOO_MANY_STREAMS TOO_MANY_OF_OWNER STORE_FULL STORE_UNAVAILABLE DRAINING TOO_FAST"
_KINDS: dict[str, type[Refused]] = {
    **dict.fromkeys(("UNKNOWN_MODEL", "UNKNOWN_VERSION"), UnknownModel),
    **dict.fromkeys(("MODEL_NOT_READY", "MODEL_REFUSED"), ModelNotReady),
    **dict.fromkeys(("UNAUTHENTICATED", "PERMISSION_DENIED"), AccessDenied),
    **dict.fromkeys(_BAD.split(), BadInput),
    **dict.fromkeys(_BUSY.split(), ServerBusy),
}


def refused(reason: str, message: str, expected_step: int | None = None, retry_after: float = 0.0) -> Refused:
    """The error for a reason, in the class that a caller would catch."""
    return _KINDS.get(reason, Refused)(reason, message, expected_step, retry_after)
