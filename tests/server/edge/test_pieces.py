"""Messages in pieces: whatever an array looks like, its bytes are those that it would have as a whole."""

import numpy as np
import pytest

from server.edge.pieces import PIECE, Numbers, Pieces, made_of

LARGE = np.arange(2**18, dtype=np.float32)
ARRAYS = {
    "flat": LARGE,
    "rows": LARGE.reshape(1_024, 16, 16),
    "long rows": LARGE.reshape(2, 2**17),
    "columns of a table": LARGE.reshape(256, 1_024)[:, 100:900],
    "every other row": LARGE.reshape(256, 1_024)[::2],
    "turned": LARGE.reshape(512, 512).T,
    "the other byte order": LARGE.astype(">f4"),
    "few": LARGE[:3],
    "one": LARGE[7].reshape(()),
    "none": LARGE[:0].reshape(0, 5),
    "none in a row": np.empty((5, 0), np.int8),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("dtype", ["as it is", "<f8"])
def test_the_pieces_of_an_array_are_its_bytes_and_none_is_large(kind: str, dtype: str) -> None:
    x = ARRAYS[kind]
    wanted = np.dtype(dtype) if dtype == "<f8" else x.dtype.newbyteorder("<")
    numbers = Numbers(x, None if dtype == "as it is" else wanted)
    pieces = list(numbers.pieces())
    assert b"".join(pieces) == x.astype(wanted).tobytes()
    assert max(map(len, pieces)) <= PIECE
    assert numbers.size == sum(map(len, pieces))


def test_a_small_message_is_bytes_and_a_large_one_is_made_as_it_is_read() -> None:
    assert made_of([b"a", Numbers(np.array([1], "<u2"))]) == b"a\1\0"
    large = made_of([b"a", Numbers(LARGE), b"b"])
    assert isinstance(large, Pieces)
    assert bytes(large) == b"a" + LARGE.tobytes() + b"b"
    assert len(large) == 2 + LARGE.nbytes
