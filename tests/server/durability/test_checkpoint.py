from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from server.durability.checkpoint import GOES_ON, Checkpoint, decode, encode, encode_many, mark_of, newest
from server.errors import CheckpointRefused, ForeignCheckpoint, TornCheckpoint

SHA256 = "1f" * 32
CHECKPOINT = Checkpoint("recall", 7, SHA256, 1_234_567, np.array([1.5, -2.25, 1e-30], np.float32))


def same(a: Checkpoint, b: Checkpoint) -> bool:
    if a.state is None or b.state is None:
        return a.state is b.state and replace(a, state=None) == replace(b, state=None)
    return (
        (a.model, a.version, a.sha256, a.step) == (b.model, b.version, b.sha256, b.step)
        and a.state.dtype == b.state.dtype
        and a.state.shape == b.state.shape
        and a.state.tobytes() == b.state.tobytes()
    )


KINDS = st.sampled_from([np.dtype(kind) for kind in ("<f2", "<f4", "<f8", ">f4", ">f8")])
STATES = KINDS.flatmap(lambda kind: arrays(kind, st.integers(0, 40)))


@given(st.text(max_size=20), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), STATES)
def test_a_checkpoint_is_read_as_it_was_written_to_the_bit(
    model: str, version: int, step: int, state: np.ndarray
) -> None:
    found = decode(encode(Checkpoint(model, version, SHA256, step, state)))
    assert same(found, Checkpoint(model, version, SHA256, step, state.astype(state.dtype.newbyteorder("="))))
    assert found.state is not None
    found.state[:] = 0  # the reader's own


def test_the_initial_state_is_none_and_takes_no_numbers() -> None:
    initial = Checkpoint("recall", 7, SHA256, 0, None)
    found = decode(encode(initial))
    assert found.state is None
    assert (found.model, found.version, found.sha256, found.step) == ("recall", 7, SHA256, 0)
    assert len(encode(initial)) < 100


def test_many_are_encoded_as_each_alone() -> None:
    states = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    for given_states in (states, np.asfortranarray(states), np.repeat(states, 2, 0)[::2]):
        found = encode_many("recall", 7, SHA256, range(64, 69), given_states)
        assert found == [encode(Checkpoint("recall", 7, SHA256, 64 + n, states[n])) for n in range(5)]


def test_steps_and_states_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        encode_many("recall", 7, SHA256, [1, 2], np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match=re.escape("states are int64; expected one of float32, float64, float16")):
        encode_many("recall", 7, SHA256, [1], np.zeros((1, 4), np.int64))
    with pytest.raises(ValueError, match=re.escape("states have the shape [4]; expected [sequences, width]")):
        encode_many("recall", 7, SHA256, [1], np.zeros(4, np.float32))


def test_a_checkpoint_that_is_cut_anywhere_is_torn() -> None:
    data = encode(CHECKPOINT)
    for length in range(len(data)):
        with pytest.raises(TornCheckpoint, match="cut short or damaged"):
            decode(data[:length])
    with pytest.raises(TornCheckpoint):
        decode(data + b"\0")


def test_no_flipped_bit_goes_unnoticed() -> None:
    data = encode(CHECKPOINT)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(CheckpointRefused):
                decode(bytes(damaged))


def test_what_is_no_checkpoint_is_foreign() -> None:
    with pytest.raises(ForeignCheckpoint, match="17 bytes that begin with 53514c69 are no checkpoint of Tidegate"):
        decode(b"SQLite format 3\0\0")


def test_a_whole_checkpoint_of_a_later_format_is_foreign() -> None:
    from server.durability.checkpoint import _checksum

    content = bytearray(encode(CHECKPOINT)[:-16])
    struct.pack_into("<H", content, 4, 3)
    with pytest.raises(ForeignCheckpoint, match="of format 3; this server reads formats 1 and 2"):
        decode(bytes(content) + _checksum(content))


def test_the_bytes_of_format_1_stay_what_they_are() -> None:
    data = encode(Checkpoint("m", 2, SHA256, 3, np.array([1, -2], np.float32)))
    fields = {
        "magic": "54474350",
        "format": "0100",
        "step": "0300000000000000",
        "version": "02000000",
        "width": "02000000",
        "kind": "01000000",
        "length of the name": "01000000",
        "sha256": SHA256,
        "name": "6d",
        "state": "0000803f000000c0",
    }
    content = "".join(fields.values())
    assert data[:-16].hex() == content
    assert data[-16:] == hashlib.blake2b(bytes.fromhex(content), digest_size=16).digest()


def test_a_version_that_needs_more_than_32_bits_is_kept_and_no_other_changes_its_bytes() -> None:
    dated = replace(CHECKPOINT, version=20231128083000)
    assert same(decode(encode(dated)), dated)
    assert [encode(replace(CHECKPOINT, version=v))[4] for v in (2**32 - 1, 2**32)] == [1, 2]


def test_the_newest_whole_checkpoint_at_or_before_a_step_is_found() -> None:
    old, middle, late = (encode(replace(CHECKPOINT, step=step)) for step in (64, 128, 192))
    assert newest([late, middle, old]).checkpoint.step == 192
    assert newest([late, middle, old], 191).checkpoint.step == 128
    assert newest([late, middle, old], 128).checkpoint.step == 128
    assert newest([late, middle, old], 63).checkpoint is None
    assert newest([]).checkpoint is None


def test_torn_and_foreign_ones_are_passed_over_and_reported() -> None:
    old, late = (encode(replace(CHECKPOINT, step=step)) for step in (64, 192))
    found = newest([b"something", late[:-1], old])
    assert found.checkpoint.step == 64
    assert [type(error) for error in found.refused] == [ForeignCheckpoint, TornCheckpoint]


def test_a_checkpoint_says_under_which_fence_it_was_the_last_and_a_server_before_reads_it_all_the_same() -> None:
    states = np.ones((3, 4), np.float32)
    goes_on, last, other = encode_many("m", 1, SHA256, [1, 2, 3], states, [0, 7, 8])
    assert [decode(data).mark for data in (goes_on, last, other)] == [GOES_ON, mark_of(7), mark_of(8)]
    assert len({GOES_ON, mark_of(7), mark_of(8)}) == 3
    assert len(goes_on) == len(last)
    (large,) = encode_many("m", 2**40, SHA256, [1], states[:1], [7])
    assert (decode(large).version, decode(large).mark, decode(large).sha256) == (2**40, mark_of(7), SHA256)
