"""What waits for a store that does not answer is bounded in bytes, fairly between clients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.durability import outbox
from server.durability.outbox import Once, Outbox
from server.durability.snapshot import Snapshot


def leaving(owner: str, count: int = 1) -> Snapshot:
    model: Any = None
    who: Any = tuple(SimpleNamespace(owner=owner, digest=owner.encode()) for _ in range(count))
    return Snapshot(model, who, np.zeros(count), np.zeros((count, 8)), np.zeros((count, 3)))


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    monkeypatch.setattr(outbox, "_MOST", 10 * (64 + outbox._EACH))
    return Outbox()


def test_the_client_that_has_most_waiting_gives_up_its_oldest(box: Outbox) -> None:
    honest = [leaving("ipv4:10.0.0.1 ann") for _ in range(3)]
    greedy = [leaving(f"ipv4:10.0.0.2 {at}", 2) for at in range(20)]  # many names, one address
    box.add((*honest, *greedy))
    assert box.take() == [honest[0], greedy[-3], *honest[1:], *greedy[-2:]]
    assert not box


def test_a_write_takes_so_many_at_a_time_the_first_of_each_client_first(box: Outbox) -> None:
    mine, yours = [leaving("a", 2) for _ in range(3)], [leaving("b", 2)]
    box.add([*mine, *yours])
    assert box.take(3) == [mine[0], *yours]
    assert box.take(3) == mine[1:]
    assert not box


def test_what_is_being_written_or_could_not_be_is_waited_for_by_who_has_its_token_alone(box: Outbox) -> None:
    box.add([leaving("a", 2), leaving("a")])
    taken = box.take()
    assert box.concerns({b"a"})
    assert not box.concerns({b"b"})
    box.put_back(taken)
    for one in box.take():
        assert box.concerns({b"a"})
        box.written(one)
    assert not box.concerns({b"a"})
    greedy = [leaving("a", 2) for _ in range(20)]
    box.add(greedy)
    for one in box.take():
        box.written(one)
    assert not box.concerns({b"a"}), "what was dropped is waited for by nobody"


def test_what_could_not_be_written_keeps_its_place_before_what_left_since(box: Outbox) -> None:
    first, second, other = leaving("a"), leaving("a"), leaving("b")
    box.add([first, other])
    taken = box.take()
    box.add([second])
    box.put_back(taken)
    assert box.take() == [first, other, second]


def test_who_waits_for_a_write_is_told_when_it_will_not_come_soon(box: Outbox) -> None:
    told = list[int]()
    for at in range(11):  # one more than there is room for
        box.add([replace(leaving("a"), told=partial(told.append, at))])
    assert told == [0]
    box.wait_no_more()
    assert sorted(told[1:]) == list(range(1, 11))


def test_however_many_have_much_waiting_who_has_little_is_in_one_of_the_next_writes() -> None:
    greedy = [leaving(f"a{at}", 64) for at in range(16) for _ in range(3)]
    mine = leaving("honest")
    box_of_all = Outbox()
    box_of_all.add([*greedy, mine])
    assert mine not in box_of_all.take(1_024)
    assert mine in box_of_all.take(1_024)


def test_a_client_that_cannot_be_told_that_it_is_written_keeps_no_other_from_being_told(
    box: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    told = list[str]()

    def broken() -> None:
        raise RuntimeError("broken")

    parked = [replace(leaving("a"), told=Once(broken)), replace(leaving("b"), told=Once(partial(told.append, "b")))]
    box.add(parked)
    for one in box.take():
        box.written(one)
    for closed, then in zip((leaving("c"), leaving("d")), (broken, partial(told.append, "d")), strict=True):
        named: Any = [SimpleNamespace(id="i", fence=1, digest=one.digest) for one in closed.sequences]
        assert box.end(named, Once(then))
    box.ended(2)
    assert told == ["b", "d"]
    assert not box
    assert not box._digests
    assert caplog.text.count("what waited for the store failed") == 2
