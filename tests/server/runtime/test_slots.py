from __future__ import annotations

import re
import resource
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import OverLimit
from server.runtime.slots import SlotTable
from tidegate.v1.error_pb2 import REASON_TOO_MANY_SEQUENCES

INITIAL = np.array([1, 2, 3], np.float32)


def test_a_slot_begins_with_the_initial_state_also_when_it_is_taken_again() -> None:
    table = SlotTable(INITIAL, 4)
    slots = table.reserve(3)
    table.restore(slots, INITIAL, 0)
    table.scatter(slots, np.full((3, 3), 9, np.float32), 1)
    table.give_back(slots[:2].tolist())
    again = table.reserve(2)
    table.restore(again, INITIAL, 0)
    np.testing.assert_array_equal(table.gather(again), np.tile(INITIAL, (2, 1)))
    np.testing.assert_array_equal(table.gather(slots[2:]), [[9, 9, 9]])


def test_slots_that_are_only_reserved_are_written_when_one_row_is_put_into_all() -> None:
    table = SlotTable(INITIAL, 4)
    slots = table.reserve(3)
    table.restore(slots[:2], INITIAL + 1, 7)
    np.testing.assert_array_equal(table.gather(slots), [INITIAL + 1, INITIAL + 1, np.zeros(3)])
    assert table.done[slots].tolist() == [7, 7, 0]
    table.give_back(slots.tolist())
    assert sorted(table.reserve(4).tolist()) == [0, 1, 2, 3]


def test_what_is_gathered_is_a_copy() -> None:
    table = SlotTable(INITIAL, 2)
    slots = table.reserve(2)
    table.restore(slots, INITIAL, 0)
    table.gather(slots)[:] = 0
    np.testing.assert_array_equal(table.gather(slots), np.tile(INITIAL, (2, 1)))


def test_too_many_slots_are_refused_and_none_is_taken() -> None:
    table = SlotTable(INITIAL, 4)
    table.reserve(3)
    with pytest.raises(OverLimit) as caught:
        table.reserve(2)
    assert caught.value.reason == REASON_TOO_MANY_SEQUENCES
    assert table.in_use == 3
    table.reserve(1)


def test_memory_is_reserved_and_not_used() -> None:
    before = resident_mib()
    table = SlotTable(np.zeros(2_048, np.float32), 65_536)  # 512 MiB
    table.restore(table.reserve(3), np.zeros(2_048, np.float32), 0)
    assert table.in_use == 3
    assert resident_mib() - before < 50


def test_rows_lie_in_small_pages_so_that_the_first_write_to_one_is_quick() -> None:
    table = SlotTable(np.zeros(2_048, np.float32), 65_536)
    table.restore(table.reserve(300), np.zeros(2_048, np.float32), 0)  # 2.3 MiB: a huge page, if there were one
    address = table.row(0).ctypes.data
    flags = next(line for line in mapping(address) if line.startswith("VmFlags:"))
    assert "nh" in flags.split()


def mapping(address: int) -> list[str]:
    """What the kernel says of the memory at an address."""
    lines = Path("/proc/self/smaps").read_text(encoding="ascii").splitlines()
    heads = [at for at, line in enumerate(lines) if re.match("[0-9a-f]+-[0-9a-f]+ ", line)]
    for at, following in pairwise([*heads, len(lines)]):
        first, last = (int(end, 16) for end in lines[at].split()[0].split("-"))
        if first <= address < last:
            return lines[at:following]
    raise LookupError(address)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.sampled_from("abc")), max_size=30))
def test_no_slot_is_taken_twice_and_each_counts_for_who_took_it(moves: list[tuple[bool, int, str]]) -> None:
    table = SlotTable(INITIAL, 12)
    taken: list[int] = []
    whose: dict[int, str] = {}
    for take, count, account in moves:
        if take and count <= table.room(account):
            fresh = table.reserve(count, account).tolist()
            taken += fresh
            whose.update(dict.fromkeys(fresh, account))
        elif not take:
            table.give_back(taken[:count])
            taken = taken[count:]
        assert table.in_use == len(taken) == len(set(taken))
        for each in "abc":
            assert table.of(each).tolist() == sorted(slot for slot in taken if whose[slot] == each)
    table.give_back(taken)
    assert not table.in_use
    assert not table._accounts
    assert not table._numbers


def test_the_last_eighth_is_for_accounts_that_have_few() -> None:
    table = SlotTable(INITIAL, 256, of_one=224)
    many = table.reserve(224, "a"), table.reserve(2, "b")
    with pytest.raises(OverLimit, match="226 of this model take steps, and the last 30 are for who has few") as caught:
        table.reserve(1, "b")
    assert caught.value.reason == REASON_TOO_MANY_SEQUENCES
    few = [table.reserve(2, f"few {n}") for n in range(15)]
    with pytest.raises(OverLimit, match="1 more would make 257 of this model, and 256 is the limit"):
        table.reserve(1, "late")
    table.give_back(many[0][:100].tolist())
    table.reserve(100, "a")
    assert len(few) == 15
