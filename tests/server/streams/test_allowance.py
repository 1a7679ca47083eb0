"""The streams of one address share what may wait for it; those of other addresses have their own."""

from __future__ import annotations

from contextlib import ExitStack

from server.streams.allowance import Allowances

MIB = 2**20


def test_a_few_streams_of_an_address_may_have_what_one_stream_may() -> None:
    allowances = Allowances(4 * MIB, 64 * MIB)
    with ExitStack() as open_:
        given = [open_.enter_context(allowances.one("ipv4:10.0.0.1")) for _ in range(16)]
        assert {allowance.size for allowance in given} == {4 * MIB}


def test_many_streams_of_an_address_share_what_the_address_may_have_and_leave_others_theirs() -> None:
    allowances = Allowances(4 * MIB, 64 * MIB)
    with ExitStack() as open_:
        first = open_.enter_context(allowances.one("ipv4:10.0.0.1"))
        with ExitStack() as more:
            for _ in range(127):
                more.enter_context(allowances.one("ipv4:10.0.0.1"))
            other = open_.enter_context(allowances.one("ipv4:10.0.0.2"))
            assert first.size == MIB // 2
            assert other.size == 4 * MIB
        assert first.size == 4 * MIB


def test_all_addresses_together_are_bounded_and_have_equal_parts() -> None:
    allowances = Allowances(4 * MIB, 16 * MIB)
    with ExitStack() as open_:
        first = open_.enter_context(allowances.one("ipv4:10.0.0.1"))
        with ExitStack() as more:
            others = [more.enter_context(allowances.one(f"ipv4:10.0.1.{n}")) for n in range(63)]
            assert {allowance.size for allowance in (first, *others)} == {MIB}
        assert first.size == 4 * MIB
