"""The bytes of a backup, and how sequences are shown and chosen, as values."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.durability.checkpoint import Checkpoint, encode
from server.durability.checkpointer import Checkpointer
from server.durability.outbox import Outbox
from server.durability.registry import Registry
from server.durability.store_thread import StoreThread
from server.durability.upkeep.backup import Reader, Writer
from server.durability.upkeep.listing import Filter, Where, listed
from server.durability.upkeep.upkeep import Upkeep
from server.errors import BadInput
from server.stores import store
from server.stores.memory import MemoryStore
from server.stores.records import Record
from server.stores.terms import Terms

STATE = np.arange(4, dtype=np.float32)


def checkpoint(step: int, version: int = 3) -> bytes:
    return encode(Checkpoint("weather", version, "ab" * 32, step, STATE))


def record(id_: str, *steps: int, owner: str = "ipv4:10.0.0.1 ann", awake: bool = False) -> Record:
    return Record(id_, b"d" * 32, owner, "weather", 7, 100.5, 20.0, awake, tuple(map(checkpoint, steps)), steps)


RECORDS = [
    record("a", 9, 4),
    record("b", 2**40, owner="token:édith", awake=True),
    Record("gone", b"e" * 32, "", "w", 2, 1.0, -3.5, steps=(8,), reason=store.Reason.ENDED),
    Record("unwritten", b"e" * 32, "", "w", 2, 1.0, 3.5, reason=store.Reason.REMOVED),
]


def whole(records: list[Record] = RECORDS) -> bytes:
    writer = Writer()
    return writer.head() + writer.records(records) + writer.end()


@given(st.integers(1, 400))
def test_a_backup_is_read_as_it_was_written_in_pieces_of_any_size(size: int) -> None:
    reader, data, found = Reader(), whole(), []
    for at in range(0, len(data), size):
        found += reader.feed(data[at : at + size])
    reader.finish()
    assert found == RECORDS


def read(data: bytes) -> list[Record]:
    reader = Reader()
    found = reader.feed(data)
    reader.finish()
    return found


@given(st.integers(0, len(whole()) - 1), st.integers(1, 255))
def test_a_backup_with_a_wrong_byte_or_without_its_end_is_refused(at: int, change: int) -> None:
    data = bytearray(whole())
    for damaged in (bytes(data[:at]), bytes([*data[:at], data[at] ^ change, *data[at + 1 :]])):
        with pytest.raises(BadInput):
            read(damaged)


@pytest.mark.parametrize(
    "change",
    [
        {"fence": 2**63 - 1},
        {"fence": -1},
        {"seconds": float("nan")},
        {"since": float("-inf")},
        {"steps": (-4,)},
        {"steps": (2**63 - 1,)},
        {"checkpoints": (b"",) * 257, "steps": tuple(range(257))},
    ],
)
def test_a_backup_with_a_number_that_no_store_has_written_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="record 1 of the backup is damaged"):
        read(whole([replace(record("a", 9), **change)]))


def test_what_follows_the_end_of_a_backup_is_refused() -> None:
    with pytest.raises(BadInput, match="follows the end"):
        Reader().feed(whole() + b"x")


def test_a_sequence_is_shown_with_owner_token_and_address_apart() -> None:
    one, other = listed(RECORDS[0], None), listed(RECORDS[1], None)
    assert (one.label, one.token, one.address) == ("ann", "", "ipv4:10.0.0.1")
    assert (other.label, other.token, other.address) == ("", "édith", "")
    assert (one.version, one.steps, one.checkpointed, one.where) == (3, 9, 9, Where.PARKED)
    assert other.where is Where.OPEN
    assert listed(Record("x", b"", "", "w", 1, 0.0, 0.0, False, (b"rubbish",), (4,)), None).version == 0


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), "ab"),
        (Filter(owner="ann"), "a"),
        (Filter(owner="édith"), "b"),
        (Filter(wheres=frozenset({Where.OPEN})), "b"),
        (Filter(version=4), ""),
        (Filter(idle=21.0), ""),
        (Filter(model="weather", version=3, idle=20.0, ids=frozenset("a")), "a"),
        (Filter(sees=lambda model: model != "weather"), ""),
        (Filter(stranded=lambda one: one.id == "b"), "b"),
    ],
)
def test_a_filter_takes_what_all_of_its_fields_are_true_of(wanted: Filter, found: str) -> None:
    those = [listed(r, None) for r in RECORDS if wanted.may_match(r)]
    assert re.sub(r"\W", "", "".join(one.id for one in those if wanted.matches(one))) == found


async def test_a_large_store_is_read_in_pages_of_a_bounded_size_between_which_the_event_loop_has_turns() -> None:
    kept = MemoryStore(Terms())
    kept.put([replace(RECORDS[0], id=f"s{n}") for n in range(3_000)], 1_000.0)
    registry, outbox, thread = Registry(time.time, time.monotonic), Outbox(), StoreThread(lambda: kept, 60.0)
    await thread.start()
    upkeep = Upkeep(thread, registry, outbox, Checkpointer(thread, registry, outbox, 256, 0.25))
    turns, pages, named = 0, list[int](), frozenset(f"s{n}" for n in range(3_000))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    for wanted in (Filter(), Filter(ids=named)):
        turns = 0
        pages.clear()
        async for page in upkeep.list(wanted, len):
            pages.append(page)
        assert sum(pages) == 3_000
        assert max(pages) <= 250
        assert turns >= len(pages)
    beside.cancel()
    await thread.stop()


class Leaving:
    """Stands for a registry of sequences of which those in `left` have left their streams since they were counted."""

    clock, monotonic = staticmethod(time.time), staticmethod(time.monotonic)

    def __init__(self, ids: list[str], left: set[str]) -> None:
        model = SimpleNamespace(name="weather", version=3)
        self.here = {
            id_: SimpleNamespace(id=id_, owner="token:ann", model=model, slot=-1, steps=3, fence=1) for id_ in ids
        }
        self.left = left

    def ids(self) -> list[str]:
        return list(self.here)

    def those_here(self, ids: list[str]) -> list[Any]:
        return [self.here[id_] for id_ in ids if id_ in self.here and id_ not in self.left]


async def test_what_leaves_its_stream_while_all_are_listed_is_neither_missing_nor_listed_twice() -> None:
    kept, left = MemoryStore(Terms()), {f"s{n}" for n in range(90, 100)}

    async def write() -> None:
        kept.put([record(id_, 3) for id_ in left], 1_000.0)

    thread = StoreThread(lambda: kept, 60.0)
    await thread.start()
    registry: Any = Leaving([f"s{n}" for n in range(200)], left)
    checkpointer: Any = SimpleNamespace(write_soon=write)
    upkeep = Upkeep(thread, registry, Outbox(), checkpointer)
    for ids in (frozenset[str](), frozenset({"s95", "s7", "none"})):
        found = [one.id async for page in upkeep.list(Filter(ids=ids), list) for one in page]
        assert sorted(found) == sorted(ids - {"none"} or registry.here)
    await thread.stop()
