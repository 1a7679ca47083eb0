"""What the script takes for each sequence, and what it answers, as the types of a store."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from server.stores.records import Record
from server.stores.store import Claimed, End, Evicted, Gone, Hold, Reason, Refused, Write

BATCH = 128  # what one run of the script takes: everybody else waits for a millisecond or two

Item = tuple[str | bytes | int | float, ...]


def written(write: Write) -> Item:
    creation = write.creation
    created = (
        ("0", "", "", "")
        if creation is None
        else ("12"[creation.anew], creation.digest, creation.owner, creation.model)
    )
    return (write.id, write.fence, write.step, write.data, *created, " ".join(map(str, write.spare)), int(write.awake))


def put(r: Record) -> Item:
    who: Item = (r.id, r.reason or "", r.digest, r.owner, r.model, r.fence, repr(r.since))
    seconds = repr(0.0 if r.awake else r.seconds)
    if r.reason is not None:
        return (*who, seconds, max(r.steps, default=""), 0)
    pairs: list[Item] = sorted(zip(r.steps, r.checkpoints, strict=True))  # the oldest first
    return (*who, seconds, " ".join(map(str, r.steps)), len(pairs), *chain.from_iterable(pairs))


def record(
    time: float, id_: bytes, reason: bytes, digest: bytes, owner: bytes, model: bytes, fence: bytes, since: bytes,
    awake: bytes, steps: bytes, *checkpoints: bytes,
) -> Record:  # fmt: skip
    who = id_.decode(), digest, owner.decode(), model.decode(), int(fence), float(since)
    taken = tuple(int(step) for step in steps.split())
    if reason:
        return Record(*who, float(since) - time, steps=taken, reason=Reason(reason.decode()))
    return Record(*who, time - float(since), awake == b"1", checkpoints, taken)


def refused(items: Sequence[Write] | Sequence[Hold] | Sequence[End], answers: list[Any]) -> list[Refused]:
    return [
        Refused(items[batch * BATCH + at].id, Reason(reason.decode()), int(fence))
        for batch, answer in enumerate(answers)
        for at, reason, fence in answer
    ]


def claimed(reason: bytes, fence: bytes, owner: bytes, model: bytes, step: bytes, *data: bytes) -> Claimed | Gone:
    if reason:
        return Gone(Reason(reason.decode()), model.decode(), int(step) if step else None)
    return Claimed(int(fence), owner.decode(), model.decode(), data)


def taken(*answer: bytes) -> int | Gone:
    found = claimed(*answer)
    return found if isinstance(found, Gone) else found.fence


def evicted(id_: bytes, owner: bytes, size: bytes, reason: bytes) -> Evicted:
    return Evicted(id_.decode(), owner.decode(), int(size), Reason(reason.decode()))
