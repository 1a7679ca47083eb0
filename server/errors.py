"""What can go wrong, in our own words; no gRPC in it.

TidegateError
├── Refusal              a request that cannot be met; nothing changed
│   ├── BadInput, WrongStep                            the request
│   ├── UnknownModel, ModelUnavailable                 the model
│   ├── UnknownHandle, SequenceGone, WrongState, IllegalMove   the sequence
│   ├── OverLimit, Draining, Silent                    the server
│   ├── Unauthenticated, PermissionDenied              the client
│   └── StoreSilent                                    the store, while a client waits
├── StepFailed           the model could not compute a step
├── StoreFailed          the store
└── CheckpointRefused    bytes that are no checkpoint that can be gone back to
    └── TornCheckpoint, ForeignCheckpoint

Each carries a `Reason` and one sentence.
"""

from enum import IntEnum

from stepgraph.errors import cut


class Reason(IntEnum):
    """Why something was refused. The edge writes it as the contract's reason of the same name and number."""

    UNSPECIFIED = 0
    # the request itself
    MALFORMED = 1  # a message that holds nothing, or contradicts itself
    WRONG_NAME = 2  # an input that the model does not have, or one that is missing
    WRONG_SHAPE = 3
    WRONG_TYPE = 4
    WRONG_SIZE = 5  # the bytes do not match shape and type
    NOT_FINITE = 6  # NaN or Inf in an input
    WRONG_STEP = 7  # a gap or a repetition in the step numbers
    TOO_LARGE = 8  # more bytes or steps than one message may hold, or more bytes than a name may have
    BAD_TRACE = 9  # a trace selection that the model cannot meet
    STEP_FAILED = 10  # the model could not compute this step, for example a token out of range
    OUT_OF_RANGE = 11  # a number that lies outside of what the model says of its column
    # the model
    UNKNOWN_MODEL = 20
    UNKNOWN_VERSION = 21
    MODEL_NOT_READY = 22  # still loading
    MODEL_REFUSED = 23  # the file cannot be served; the message says why
    # the sequence
    UNKNOWN_HANDLE = 30  # nothing was opened under this handle on this stream
    HANDLE_IN_USE = 31
    UNKNOWN_SEQUENCE = 32  # no sequence of this id was ever kept here, or so long ago that it is forgotten
    WRONG_TOKEN = 33  # the resume token is not the one that the sequence was opened with
    SEQUENCE_ENDED = 34  # its client closed it
    SEQUENCE_EXPIRED = 35  # it was not resumed within the retention time
    SEQUENCE_EVICTED = 36  # it was parked, and gave way when a limit was reached
    TAKEN_OVER = 37  # it goes on elsewhere: on another stream or another server
    CHECKPOINT_GONE = 38  # no checkpoint is kept at or before the step that was asked for
    WRONG_STATE = 39  # a state of another model, layer, name, type or shape, or of too late a step
    # the server
    TOO_MANY_SEQUENCES = 40
    TOO_MANY_STREAMS = 41
    DRAINING = 42  # the server is stopping: finish and go elsewhere
    INTERNAL = 43  # a fault of the server; its log has the details
    TOO_MANY_OF_OWNER = 45  # as many sequences as one owner may have
    STORE_FULL = 46  # as many bytes of checkpoints as the server keeps
    STORE_UNAVAILABLE = 47  # the store of checkpoints does not answer: try again in a while
    SEQUENCE_RUNNING = 48  # a sequence of the id that the client chose is not to be begun a second time
    # the client
    UNAUTHENTICATED = 60  # no token came, or one that is not known here (any more)
    PERMISSION_DENIED = 61  # the token does not allow this, or not with this model
    TOO_FAST = 62  # more steps a second than the token allows: wait as long as is said


_PASSING = {  # limits that others may soon leave room below
    Reason.TOO_MANY_SEQUENCES,
    Reason.TOO_MANY_STREAMS,
    Reason.TOO_MANY_OF_OWNER,
    Reason.STORE_FULL,
    Reason.TOO_FAST,
}
_USUAL_WAIT = 1.0  # seconds


class TidegateError(Exception):
    """The root. `str(error)` is one sentence: what was wrong, where, what was expected.

    `definite`: what failed has changed nothing and will not; else it may have been carried out, or still be.
    `retry_after`: after so many seconds the same may be met; 0: not known.
    """

    reason: Reason = Reason.INTERNAL
    retry_after: float = 0.0

    def __init__(self, message: str, reason: Reason | None = None, *, definite: bool = False) -> None:
        super().__init__(cut(message))
        self.definite = definite
        if reason is not None:
            self.reason = reason


class Refusal(TidegateError):
    """A request that cannot be met. No state, no step number, no other sequence has changed."""

    reason = Reason.MALFORMED


class BadInput(Refusal):
    """Wrong name, shape, type, size or value; the reason says which."""


class WrongStep(Refusal):
    """A gap or a repetition in the step numbers of a sequence."""

    reason = Reason.WRONG_STEP


class UnknownModel(Refusal):
    """No such model or version in the repository."""

    reason = Reason.UNKNOWN_MODEL


class ModelUnavailable(Refusal):
    """The model is still loading, or its file was refused."""

    reason = Reason.MODEL_NOT_READY


class UnknownHandle(Refusal):
    """Nothing is open under the handle, or, when opening, something is."""

    reason = Reason.UNKNOWN_HANDLE


class OverLimit(Refusal):
    """More than a limit of the server or of a token allows; the sentence names the limit."""

    reason = Reason.TOO_LARGE

    def __init__(self, message: str, reason: Reason = Reason.TOO_LARGE, retry_after: float = 0.0) -> None:
        super().__init__(message, reason)
        self.retry_after = retry_after or _USUAL_WAIT * (reason in _PASSING)


class Draining(Refusal):
    """The server is stopping and opens nothing new."""

    reason = Reason.DRAINING


class Silent(Refusal):
    """A stream on which nothing was said for long; it ends."""

    reason = Reason.UNSPECIFIED


class SequenceGone(Refusal):
    """A sequence that cannot be continued; the reason says why."""

    reason = Reason.UNKNOWN_SEQUENCE


class WrongState(Refusal):
    """A state that does not fit, or none to go back to."""

    reason = Reason.WRONG_STATE


class StoreSilent(Refusal):
    """The store of checkpoints does not answer; what needs it may be tried again."""

    reason = Reason.STORE_UNAVAILABLE


class Unauthenticated(Refusal):
    """No token came, or one that is not known here. `delay`: seconds before this is said to who guesses."""

    reason = Reason.UNAUTHENTICATED

    def __init__(self, message: str, delay: float = 0.0) -> None:
        super().__init__(message)
        self.delay = delay


class PermissionDenied(Refusal):
    """The client may not do this, or not with this model; said before it is looked up whether there is one."""

    reason = Reason.PERMISSION_DENIED


class IllegalMove(Refusal):
    """What a sequence cannot do where it is in its life; the sentence says what it can."""


class StepFailed(TidegateError):
    """The model could not compute a step; the sequence stands where it stood before."""

    reason = Reason.STEP_FAILED


class StoreFailed(TidegateError):
    """The store cannot be reached, is full, locked, or holds something else. The next call tries again by itself."""


class StoreDamaged(StoreFailed):
    """Some of what the store has cannot be read; the rest may be whole."""


class CheckpointRefused(TidegateError):
    """Bytes that are no checkpoint that can be gone back to; the one before them may be."""


class TornCheckpoint(CheckpointRefused):
    """Cut short or damaged: its checksum is not that of its bytes."""


class ForeignCheckpoint(CheckpointRefused):
    """No checkpoint of ours, or whole and of a format that this server does not read."""
