"""What can go wrong, in our own words; no gRPC in it.

TidegateError
├── Refusal              a request that cannot be met; nothing changed
│   ├── BadInput         wrong name, shape, type, size, value
│   ├── WrongStep        a gap or a repetition in the step numbers
│   ├── UnknownModel     no such model, or version of it
│   ├── ModelUnavailable loading, or refused
│   ├── UnknownHandle    nothing is open under it, or something is already
│   ├── OverLimit        too many, too large
│   ├── Draining         the server is stopping
│   ├── SequenceGone     it cannot be continued: unknown, not yours, ended, expired, evicted, taken over
│   ├── WrongState       a state of another model, or a checkpoint that is not kept
│   ├── StoreSilent      the store of checkpoints does not answer
│   └── IllegalMove      a sequence cannot do that where it is in its life
├── StepFailed           the model could not compute a step
├── StoreFailed          the store cannot be reached, or refuses to serve; the next call tries again
└── CheckpointRefused    bytes that are no checkpoint that can be gone back to
    ├── TornCheckpoint   cut short or damaged
    └── ForeignCheckpoint  of something else, or of a format that this server does not read

Each carries a `reason` of the contract (proto/tidegate/v1/error.proto) and one sentence.
"""

from stepgraph.errors import cut
from tidegate.v1 import error_pb2


class TidegateError(Exception):
    """The root. `str(error)` is one sentence: what was wrong, where, what was expected."""

    reason: int = error_pb2.REASON_INTERNAL

    def __init__(self, message: str, reason: int | None = None) -> None:
        super().__init__(cut(message))
        if reason is not None:
            self.reason = reason


class Refusal(TidegateError):
    """A request that cannot be met. No state, no step number, no other sequence has changed."""

    reason = error_pb2.REASON_MALFORMED


class BadInput(Refusal):
    """Wrong name, shape, type, size or value; the reason says which."""


class WrongStep(Refusal):
    """A gap or a repetition in the step numbers of a sequence."""

    reason = error_pb2.REASON_WRONG_STEP


class UnknownModel(Refusal):
    """No such model or version in the repository."""

    reason = error_pb2.REASON_UNKNOWN_MODEL


class ModelUnavailable(Refusal):
    """The model is still loading, or its file was refused."""

    reason = error_pb2.REASON_MODEL_NOT_READY


class UnknownHandle(Refusal):
    """Nothing is open under the handle, or, when opening, something is."""

    reason = error_pb2.REASON_UNKNOWN_HANDLE


class OverLimit(Refusal):
    """More than a limit of the server allows; the sentence names the limit."""

    reason = error_pb2.REASON_TOO_LARGE


class Draining(Refusal):
    """The server is stopping and opens nothing new."""

    reason = error_pb2.REASON_DRAINING


class SequenceGone(Refusal):
    """A sequence that cannot be continued; the reason says why."""

    reason = error_pb2.REASON_UNKNOWN_SEQUENCE


class WrongState(Refusal):
    """A state that does not fit, or none to go back to."""

    reason = error_pb2.REASON_WRONG_STATE


class StoreSilent(Refusal):
    """The store of checkpoints does not answer; what needs it may be tried again."""

    reason = error_pb2.REASON_STORE_UNAVAILABLE


class IllegalMove(Refusal):
    """What a sequence cannot do where it is in its life; the sentence says what it can."""


class StepFailed(TidegateError):
    """The model could not compute a step; the sequence stands where it stood before."""

    reason = error_pb2.REASON_STEP_FAILED


class StoreFailed(TidegateError):
    """The store cannot be reached, is full, locked, or holds something else. The next call tries again by itself."""


class CheckpointRefused(TidegateError):
    """Bytes that are no checkpoint that can be gone back to; the one before them may be."""


class TornCheckpoint(CheckpointRefused):
    """Cut short or damaged: its checksum is not that of its bytes."""


class ForeignCheckpoint(CheckpointRefused):
    """No checkpoint of ours, or whole and of a format that this server does not read."""
