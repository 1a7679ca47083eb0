"""All that a store has, read in pages, and put into another one: the same for every kind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.stores.records import Outcome, Record
from server.stores.sqlite.store import SqliteStore
from server.stores.store import Claim, Claimed, End, Gone, Hold, Reason, Store, Write
from server.stores.terms import Terms
from tests.server.stores.test_stores import (
    CREATION,
    NOW,
    OTHER,
    TERMS,
    TOKEN,
    Backend,
    backend,
    data,
    every,
    fresh,
    store,
    valkey,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["backend", "fresh", "store", "valkey"]  # fixtures


def pages(store: Store, limit: int, now: float = NOW) -> list[Record]:
    found, page = list[Record](), store.page(None, limit, now)
    while page.cursor is not None:
        found += page.records
        page = store.page(page.cursor, limit, now)
    return sorted([*found, *page.records], key=lambda record: record.id)


def filled(store: Store) -> None:
    """Twenty parked ones with two checkpoints, one awake, one that its client has ended."""
    for step in (3, 7):
        store.write(
            [
                Write(f"s{n:02}", 1, step, data(step, f"s{n}"), CREATION if step == 3 else None, awake=False)
                for n in range(20)
            ],
            NOW,
        )
    store.write([Write("t", 1, 5, data(5), CREATION), Write("u", 1, 9, data(9), CREATION)], NOW)
    store.end([End("u", 1, Reason.ENDED)], NOW)


@every
def test_pages_hold_everything_once_with_all_checkpoints_however_long_they_are(store: Store) -> None:
    filled(store)
    for limit in (1, 7, 100):
        found = pages(store, limit, NOW + 10.0)
        assert [record.id for record in found] == [f"s{n:02}" for n in range(20)] + ["t", "u"]
        first, awake, stone = found[0], found[-2], found[-1]
        assert (first.steps, first.checkpoints) == ((7, 3), (data(7, "s0"), data(3, "s0")))
        assert (first.digest, first.owner, first.model, first.fence, first.awake) == (TOKEN, "ann", "recall", 1, False)
        assert (awake.awake, awake.steps) == (True, (5,))
        assert (stone.reason, stone.steps, stone.checkpoints) == (Reason.ENDED, (9,), ())
        assert store.records(["t", "none"], NOW + 10.0)[0].id == "t"
        assert stone.seconds == pytest.approx(50.0, abs=11.0)


@every
def test_what_comes_and_goes_between_two_pages_takes_nothing_else_with_it(store: Store) -> None:
    filled(store)
    page = store.page(None, 5, NOW)
    found = {record.id for record in page.records}
    for n in range(0, 20, 2):
        store.end([End(f"s{n:02}", 1, Reason.ENDED)], NOW)
    store.write([Write(f"new{n}", 1, 1, data(1), CREATION) for n in range(50)], NOW)
    while page.cursor is not None:
        page = store.page(page.cursor, 5, NOW)
        found |= {record.id for record in page.records}
    assert {f"s{n:02}" for n in range(1, 20, 2)} <= found


@every
def test_records_go_from_one_store_into_another_and_back_without_loss(
    fresh: Callable[..., Backend], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    one, other = fresh()(), SqliteStore(tmp_path / "other", TERMS)
    request.addfinalizer(other.close)
    filled(one)
    before = pages(one, 100)
    assert set(other.put(before, NOW)) == {Outcome.PUT}
    parked = [replace(record, awake=False) for record in before]
    assert [replace(record, since=0, seconds=0) for record in pages(other, 3)] == [
        replace(record, since=0, seconds=0) for record in parked
    ]
    assert replace(other.usage(), taken=0) == replace(one.usage(), taken=0, parked=21)
    (fence,) = other.claim([Claim("s03", TOKEN)], NOW + 1)
    (claimed,) = other.read([Claim("s03", TOKEN)], NOW + 1)
    assert isinstance(claimed, Claimed)
    assert claimed.fence == fence == int((NOW + 1) * 1_000)
    assert claimed.checkpoints == (data(7, "s3"), data(3, "s3"))
    assert other.read([Claim("u", TOKEN)], NOW) == [Gone(Reason.ENDED, "recall", 9)]
    assert one.put(pages(other, 100), NOW)[:3] == [Outcome.PUT] * 3


@every
def test_what_is_newer_awake_or_anothers_is_not_overwritten_and_what_has_ended_does_not_come_back(store: Store) -> None:
    filled(store)
    old = {record.id: record for record in pages(store, 100)}
    store.claim([Claim("s00", TOKEN)], NOW + 1)  # a higher fence
    store.hold([Hold("s00", int(1000 * (NOW + 1)), awake=False)], NOW + 1)
    store.write([Write("s01", 1, 8, data(8), awake=False)], NOW + 2)  # touched later
    store.claim([Claim("s02", TOKEN)], NOW + 1)  # awake
    store.end([End("s03", 1, Reason.ENDED)], NOW + 1)
    foreign = replace(old["s04"], digest=OTHER)
    kept = [old[id_] for id_ in ("s00", "s01", "s02", "s03")]
    assert store.put([*kept, foreign], NOW + 5) == [*[Outcome.KEPT] * 3, Outcome.GONE, Outcome.KEPT]
    newer = replace(old["s05"], fence=2, checkpoints=(data(90),), steps=(90,))
    assert store.put([newer], NOW + 5) == [Outcome.PUT]
    assert store.read([Claim("s05", TOKEN)], NOW + 5) == [Claimed(2, "ann", "recall", (data(90),))]
    fallen = replace(old["u"], id="s06", fence=1)
    assert store.put([fallen], NOW + 5) == [Outcome.PUT]
    assert store.read([Claim("s06", TOKEN)], NOW + 5) == [Gone(Reason.ENDED, "recall", 7)]
    anew = replace(old["s03"], fence=2)
    assert store.put([anew], NOW + 5) == [Outcome.PUT]
    store.end([End("s03", 2, Reason.ENDED)], NOW + 5)
    usage = store.usage()
    assert (usage.sequences, usage.parked) == (19, 17)
    assert usage.bytes == sum(len(d) for record in pages(store, 50) for d in record.checkpoints)


@every
def test_the_retention_of_what_was_put_goes_on_from_where_it_was(fresh: Callable[[Terms], Backend]) -> None:
    store = fresh(replace(TERMS, retention=100.0))()
    record = Record("x", TOKEN, "ann", "recall", 1, NOW - 60.0, 60.0, False, (data(4),), (4,))
    store.write([Write("y", 1, 1, data(1), CREATION, awake=False)], NOW)
    assert store.put([record], NOW) == [Outcome.PUT]
    assert [evicted.id for evicted in store.evict(1, NOW)] == ["x"]
    assert store.put([replace(record, id="z")], NOW) == [Outcome.PUT]
    assert store.expire(NOW + 41.0).expired == ("z",)


@every
def test_that_an_operator_has_ended_a_sequence_is_known_afterwards(store: Store) -> None:
    filled(store)
    store.end([End("s00", 1, Reason.REMOVED)], NOW)
    assert store.read([Claim("s00", TOKEN)], NOW) == [Gone(Reason.REMOVED, "recall", 7)]
