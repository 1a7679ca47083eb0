"""The bytes of a backup: all records of a store, whichever kind it is, as one file. Pure.

Little-endian: the magic number and the format, then records, each with its length before it, then the end: a length of
0, how many records there are, and a BLAKE2b of 32 bytes over all bytes before. A record:

    fence i64 | since f64 | seconds f64 | awake u8 | lengths of id, digest, owner, model and reason, u16 each |
    checkpoints u16 | these five, texts in UTF-8 | of each step i64, and its length u32 | their bytes, the newest first

A tombstone has a reason, and may have a step without a checkpoint: its length is 0.
"""

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from server.errors import BadInput, Reason
from server.stores import store
from server.stores.records import Record

MAGIC = b"TGBK\x01\x00"
_LENGTH, _COUNT = struct.Struct("<I"), struct.Struct("<Q")
_HEAD, _STEP = struct.Struct("<qddB6H"), struct.Struct("<qI")
_DIGEST = 32
_LONGEST = 2**30  # bytes of a record
_MOST = 256  # checkpoints of one, as stores number them
_LARGEST = 2**52  # fence, step or second, of which a store may have more yet


class Writer:
    """Makes the bytes of one backup, in order: `head`, records, `end`."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = blake2b(digest_size=_DIGEST)

    def head(self) -> bytes:
        return self._hashed(MAGIC)

    def records(self, records: Iterable[Record]) -> bytes:
        parts = list[bytes]()
        for record in records:
            body = _written(record)
            parts += [_LENGTH.pack(len(body)), body]
            self.count += 1
        return self._hashed(b"".join(parts))

    def end(self) -> bytes:
        last = self._hashed(_LENGTH.pack(0) + _COUNT.pack(self.count))
        return last + self._hash.digest()

    def _hashed(self, data: bytes) -> bytes:
        self._hash.update(data)
        return data


class Reader:
    """Takes the bytes of one backup as they come."""

    def __init__(self) -> None:
        self.count = 0
        self.complete = False
        self._hash = blake2b(digest_size=_DIGEST)
        self._rest, self._at = bytearray(), 0  # what came and was not taken, from a place on
        self._begun = False

    def feed(self, data: bytes) -> list[Record]:
        """The records that are whole now. Raises BadInput: this is no backup, or it is damaged."""
        del self._rest[: self._at]
        self._rest += data
        self._at = 0
        if not self._begun and len(self._rest) >= len(MAGIC):
            if not self._rest.startswith(MAGIC):
                raise _bad(f"this begins with {self._rest[:4].hex()}, and is no backup of a store of Tidegate")
            self._take(len(MAGIC))
            self._begun = True
        found = list[Record]()
        while self._begun and (record := self._next()) is not None:
            found.append(record)
            self.count += 1
        if self.complete and self._left:
            raise _bad("something follows the end of the backup")
        return found

    def finish(self) -> None:
        """Raises BadInput: the end is missing, so that it may lack something."""
        if not self.complete:
            raise _bad(f"the backup is cut short after {self.count} records, which were put into the store")

    def _next(self) -> Record | None:
        if self._left < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._rest, self._at)
        if length > _LONGEST:
            raise _bad(f"a record of {length} bytes; {_LONGEST} is the limit")
        if not length:
            self._read_end()
            return None
        if self._left < _LENGTH.size + length:
            return None
        body = self._take(_LENGTH.size + length)[_LENGTH.size :]
        try:
            return _read(body)
        except (struct.error, ValueError) as error:
            raise _bad(f"record {self.count + 1} of the backup is damaged: {error}") from None

    def _read_end(self) -> None:
        last = _LENGTH.size + _COUNT.size
        if self._left < last + _DIGEST:
            return
        (count,) = _COUNT.unpack(self._take(last)[_LENGTH.size :])
        digest = self._hash.digest()
        if self._take(_DIGEST) != digest or count != self.count:
            raise _bad(f"the checksum of the backup is not that of its {count} records")
        self.complete = True

    @property
    def _left(self) -> int:
        return len(self._rest) - self._at

    def _take(self, size: int) -> bytes:
        taken = bytes(memoryview(self._rest)[self._at : self._at + size])
        self._at += size
        self._hash.update(taken)
        return taken


def _written(r: Record) -> bytes:
    texts = [r.id.encode(), r.digest, r.owner.encode(), r.model.encode(), (r.reason or "").encode()]
    checkpoints = r.checkpoints or (b"",) * len(r.steps)
    head = _HEAD.pack(r.fence, r.since, r.seconds, r.awake, *map(len, texts), len(checkpoints))
    index = [_STEP.pack(step, len(data)) for step, data in zip(r.steps, checkpoints, strict=True)]
    return b"".join((head, *texts, *index, *checkpoints))


def _read(body: bytes) -> Record:
    fence, since, seconds, awake, *lengths, count = _HEAD.unpack_from(body)
    at, texts = _HEAD.size, list[bytes]()
    for length in lengths:
        texts.append(body[at : at + length])
        at += length
    index = [_STEP.unpack_from(body, at + n * _STEP.size) for n in range(count)]
    at += count * _STEP.size
    checkpoints = list[bytes]()
    for _, length in index:
        checkpoints.append(body[at : at + length])
        at += length
    if at != len(body):
        raise ValueError(f"it has {len(body)} bytes; {at} were expected")
    id_, digest, owner, model, reason = texts
    gone = store.Reason(reason.decode()) if reason else None
    steps = tuple(step for step, _ in index)
    _check(steps, fence, since, seconds)
    who = id_.decode(), digest, owner.decode(), model.decode()
    return Record(*who, fence, since, seconds, bool(awake), () if gone else tuple(checkpoints), steps, gone)


def _check(steps: Sequence[int], fence: int, *seconds: float) -> None:
    """Raises ValueError: no store has written this, and it could not be counted on from there."""
    if len(steps) > _MOST:
        raise ValueError(f"it has {len(steps)} checkpoints; {_MOST} is the limit")
    if not all(0 <= number <= _LARGEST for number in (fence, *steps)):
        raise ValueError(f"a fence or a step of it is beyond 0 to {_LARGEST}")
    if not all(abs(time) <= _LARGEST for time in seconds):
        raise ValueError(f"a time of it is {max(seconds, key=abs)} seconds")


def _bad(sentence: str) -> BadInput:
    return BadInput(sentence, Reason.MALFORMED)
