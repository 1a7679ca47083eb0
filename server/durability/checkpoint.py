"""The bytes of a checkpoint: one state of one sequence, with all that it takes to go on from it. Knows no store.

Little-endian, and the same for every format to come: the magic number, the format, a body, and over all of it a
checksum. The body of format 1:

    step u64 | version u32 | width u32 | kind u8 | 3 bytes of whether it is the last | length of the model's name u16 |
    2 bytes of zero | SHA-256 of the model file, 32 bytes | the name in UTF-8 | the state, `width` numbers of `kind`

Of a sequence that went on from there, the 3 bytes are zero, as servers before wrote them always; of one that was parked
there they are made of the fence under which it was.

Format 2 has the version as u64. It is written where 32 bits do not do, so that servers before it read all others.

The checksum is BLAKE2b at 16 bytes: of the standard library, 3 microseconds for 2 KiB, and damage does not slip through
one time in four billion, as it does with a CRC-32, which is often for those who write a million checkpoints an hour.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from typing import Any

import numpy as np

from server.errors import CheckpointRefused, ForeignCheckpoint, TornCheckpoint

MAGIC = b"TGCP"
PREFIX = struct.Struct("<4sH")  # magic, format
STEP = struct.Struct("<Q")
HEADS = {  # by format: version, width, kind, mark of the last, length of the name, sha256
    1: struct.Struct("<IIB3sH2x32s"),
    2: struct.Struct("<QIB3sH2x32s"),
}
MARKS = {1: slice(9, 12), 2: slice(13, 16)}  # by format: where in the head the mark is
GOES_ON = bytes(3)  # in place of the mark of the last
CHECKSUM = 16

INITIAL = 0  # no numbers: the model's own initial state
KINDS: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<f2")}
CODES = {kind: code for code, kind in KINDS.items()}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where one sequence stands.

    Attributes:
        model: the name of the model.
        version: its version.
        sha256: of the model's files, 64 hexadecimal digits: a state means something to this very network alone.
        step: how many steps are done; the next step has this number.
        state: after those steps, [W], float32, float64 or float16. None is the model's initial state.
        mark: of the fence under which this was the last one when the sequence left its stream; GOES_ON: it was not.
    """

    model: str
    version: int
    sha256: str
    step: int
    state: np.ndarray | None
    mark: bytes = GOES_ON


@dataclass(frozen=True)
class Found:
    """The newest checkpoint that can be gone back to (None: there is none), and why newer ones could not.

    `later`: whether one was passed over that is whole, and too late.
    """

    checkpoint: Checkpoint | None
    refused: tuple[CheckpointRefused, ...]
    later: bool = False


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes of one checkpoint.

    Raises:
        ValueError: a state that is no vector of numbers of a known kind, a name above 65,535 bytes.
    """
    if checkpoint.state is None:
        head = _head(checkpoint.model, checkpoint.version, checkpoint.sha256, 0, INITIAL)
        return _sealed(checkpoint.step, *head, b"")
    states = checkpoint.state[None]
    (data,) = encode_many(checkpoint.model, checkpoint.version, checkpoint.sha256, [checkpoint.step], states)
    return data


def encode_many(
    model: str, version: int, sha256: str, steps: Iterable[int], states_NW: np.ndarray, lasts: Iterable[int] = repeat(0)
) -> list[bytes]:
    """The checkpoints of many sequences of one model: the i-th is at `steps[i]` with the state `states_NW[i]`.

    `lasts`: of those that are parked there, the fences under which they are; 0 for those that go on.

    Raises:
        ValueError: as `encode`, or there are not as many steps as states.
    """
    if states_NW.ndim != 2:
        raise ValueError(f"states have the shape {list(states_NW.shape)}; expected [sequences, width]")
    kind = states_NW.dtype.newbyteorder("<")
    if kind not in CODES:
        raise ValueError(f"states are {kind}; expected one of {', '.join(str(k) for k in CODES)}")
    head = _head(model, version, sha256, states_NW.shape[1], CODES[kind])
    rows = memoryview(states_NW.astype(kind, "C", copy=False).tobytes())
    size = states_NW.shape[1] * kind.itemsize
    return [
        _sealed(step, *_marked(*head, last), rows[at * size : (at + 1) * size])
        for (at, step), last in zip(zip(range(len(states_NW)), steps, strict=True), lasts, strict=False)
    ]


def decode(data: bytes) -> Checkpoint:
    """What the bytes of a checkpoint say.

    Raises:
        TornCheckpoint: they are cut short or damaged.
        ForeignCheckpoint: they are something else, or of a format that this server does not read.
    """
    if not data.startswith(MAGIC[: len(data)]):
        raise ForeignCheckpoint(f"{len(data)} bytes that begin with {data[:4].hex()} are no checkpoint of Tidegate")
    if len(data) < PREFIX.size + CHECKSUM or data[-CHECKSUM:] != _checksum(memoryview(data)[:-CHECKSUM]):
        raise TornCheckpoint(f"a checkpoint of {len(data)} bytes is cut short or damaged: its checksum differs")
    (found,) = struct.unpack_from("<H", data, len(MAGIC))
    if found not in HEADS:
        raise ForeignCheckpoint(f"a checkpoint is of format {found}; this server reads formats 1 and 2")
    return _body(memoryview(data)[PREFIX.size : -CHECKSUM], HEADS[found])


def version_of(data: bytes) -> int:
    """The version of the model, without a look at the rest. Raises ForeignCheckpoint: it is of no known format."""
    magic, found = PREFIX.unpack_from(data) if len(data) >= PREFIX.size else (b"", 0)
    head = HEADS.get(found) if magic == MAGIC else None
    if head is None or len(data) < PREFIX.size + STEP.size + head.size:
        raise ForeignCheckpoint(f"{len(data)} bytes are no checkpoint of a format that is read here")
    return int(head.unpack_from(data, PREFIX.size + STEP.size)[0])


def newest(kept: Sequence[bytes], at_most: int | None = None) -> Found:
    """The first of `kept` (newest first, as a store gives them) that is whole and at step `at_most` or before it."""
    refused, later = [], False
    for data in kept:
        try:
            checkpoint = decode(data)
        except CheckpointRefused as error:
            refused.append(error)
        else:
            if at_most is None or checkpoint.step <= at_most:
                return Found(checkpoint, tuple(refused), later)
            later = True
    return Found(None, tuple(refused), later)


def mark_of(fence: int) -> bytes:
    """What stands for a fence in the last checkpoint that was written under it: other fences have other marks."""
    return (fence % (2**24 - 1) + 1).to_bytes(3, "little")


def _marked(format_: int, head: bytes, last: int) -> tuple[int, bytes]:
    if not last:
        return format_, head
    at = MARKS[format_]
    return format_, head[: at.start] + mark_of(last) + head[at.stop :]


def _head(model: str, version: int, sha256: str, width: int, code: int) -> tuple[int, bytes]:
    """The format, and its head."""
    name, content = model.encode(), bytes.fromhex(sha256)
    if len(name) > 0xFFFF or len(content) != 32:
        raise ValueError(f"a name of {len(name)} bytes and a SHA-256 of {len(content)}; expected up to 65,535, and 32")
    format_ = 1 if version < 2**32 else 2
    return format_, HEADS[format_].pack(version, width, code, GOES_ON, len(name), content) + name


def _sealed(step: int, format_: int, head: bytes, state: bytes | memoryview) -> bytes:
    content = b"".join((PREFIX.pack(MAGIC, format_), STEP.pack(step), head, state))
    return content + _checksum(content)


def _checksum(content: bytes | memoryview) -> bytes:
    return blake2b(content, digest_size=CHECKSUM).digest()


def _body(body: memoryview, head: struct.Struct) -> Checkpoint:
    (step,) = STEP.unpack_from(body)
    version, width, code, mark, length, sha256 = head.unpack_from(body, STEP.size)
    at = STEP.size + head.size
    name = bytes(body[at : at + length]).decode()
    state = None if code == INITIAL else _numbers(body[at + length :], KINDS[code])
    assert state is None or len(state) == width, "what the checksum covers was written by _sealed"
    return Checkpoint(name, version, sha256.hex(), step, state, mark)


def _numbers(data: memoryview, kind: np.dtype[Any]) -> np.ndarray:
    """A copy of our own, in this machine's order of bytes."""
    return np.frombuffer(data, kind).astype(kind.newbyteorder("="))
