"""The errors for a sequence that cannot go on, or not from the step asked for, made from the reasons of a store."""

from server.durability import checkpoint
from server.durability.checkpoint import Checkpoint
from server.durability.sequence import ServedSequence
from server.errors import Reason, SequenceGone, WrongState
from server.stores import store

WHY = {
    store.Reason.UNKNOWN: (Reason.UNKNOWN_SEQUENCE, "no sequence '{}' is kept here"),
    store.Reason.NOT_YOURS: (Reason.WRONG_TOKEN, "the resume token is not that of sequence '{}'"),
    store.Reason.FENCED: (Reason.TAKEN_OVER, "sequence '{}' goes on at another server"),
    store.Reason.ENDED: (Reason.SEQUENCE_ENDED, "sequence '{}' was closed by its client"),
    store.Reason.REMOVED: (Reason.SEQUENCE_ENDED, "sequence '{}' was ended by who runs the server"),
    store.Reason.EXPIRED: (
        Reason.SEQUENCE_EXPIRED,
        "sequence '{}' was not resumed within the retention time",
    ),
    store.Reason.EVICTED: (
        Reason.SEQUENCE_EVICTED,
        "sequence '{}' was parked, and gave way when a limit was reached",
    ),
}


def kept_at(sequence: ServedSequence, found: store.Claimed | store.Gone, step: int) -> Checkpoint:
    """The newest of the checkpoints at or before a step. Raises SequenceGone, WrongState."""
    if isinstance(found, store.Gone):
        reason = Reason.CHECKPOINT_GONE if found.reason is store.Reason.UNKNOWN else None
        raise SequenceGone(str(why := gone(sequence.id, found.reason)), reason or why.reason)
    kept = checkpoint.newest(found.checkpoints, step).checkpoint
    if kept is None:
        kept_steps = ", ".join(str(checkpoint.decode(data).step) for data in reversed(found.checkpoints))
        raise WrongState(
            f"no checkpoint is kept at or before step {step}; kept are those at {kept_steps}",
            Reason.CHECKPOINT_GONE,
        )
    if kept.sha256 != sequence.model.loaded.sha256:
        raise WrongState(
            f"the checkpoint at step {kept.step} is of version {kept.version}; the sequence is at version "
            f"{sequence.model.version} now",
            Reason.CHECKPOINT_GONE,
        )
    return kept


def gone(name: str, reason: store.Reason) -> SequenceGone:
    """The error for a reason of the store."""
    number, sentence = WHY[reason]
    return SequenceGone(sentence.format(name), number)
