"""Where records begin, however the bytes are cut."""

import random

from server.edge.http2.secure import Records


def test_however_the_bytes_are_cut_each_record_is_counted_once_and_at_most_64_in_a_part() -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    lengths = [chance.choice((0, 1, 22, 300)) for _ in range(200)]
    data = b"".join(b"\x17\x03\x03" + length.to_bytes(2, "big") + b"\xff" * length for length in lengths)
    for most in (3, 7, 1_000, len(data)):
        records, count, joined, at = Records(), 0, b"", 0
        while at < len(data):
            size = chance.randint(1, most)
            for part, begun in records.parts(memoryview(data)[at : at + size]):
                assert begun <= 64
                joined, count = joined + bytes(part), count + begun
            at += size
        assert (joined, count) == (data, len(lengths))
