# ruff: noqa: ANN401 - stands in for a store
"""A Resume of many: all are claimed in one call of the store, and what is kept of them is read in portions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.durability import checkpoint, takeover
from server.stores.memory import MemoryStore
from server.stores.store import Claim, End, Reason
from tests.server.durability.test_crowds import COUNT, Crowd
from tidegate import wire
from tidegate.v1 import error_pb2
from tidegate.v1 import sequence_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORTION = 100


@pytest.fixture
def crowd(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    """Open on stream 0 at server 0; stream 1 is at server 1."""
    monkeypatch.setattr(takeover, "PORTION", PORTION)
    crowd = Crowd(tmp_path_factory.getbasetemp(), monkeypatch)
    crowd.world.cut(1)
    crowd.world.connect(1, 1)
    yield crowd
    assert not crowd.world.faults, crowd.world.faults
    crowd.world.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which claims and reads are asked of the store, and of how many sequences."""
    calls: list[tuple[str, int]] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(store: MemoryStore, claims: Any, *given: Any) -> Any:
            calls.append((name, len(claims)))
            return real(store, claims, *given)

        return call

    for name in ("claim", "read"):
        monkeypatch.setattr(MemoryStore, name, counted(name, getattr(MemoryStore, name)))
    return calls


def begin(crowd: Crowd, calls: list[tuple[str, int]]) -> None:
    """Stream 1 resumes all; they are claimed, and two portions are read of what is kept of them."""
    crowd.say(1, **crowd.resume())
    crowd.world.quiet()
    while ("claim", COUNT) not in calls:
        crowd.world.work(1, 1)
    crowd.world.work(1, 1)
    assert calls[-3:] == [("claim", COUNT), *[("read", PORTION)] * 2]
    assert not crowd.hear(1)


def reasons(heard: list[pb.StreamResponse]) -> dict[int, str]:
    """Of those that are lost, by handle."""
    return {
        handle: error_pb2.Reason.Name(each.released.error.reason).removeprefix("REASON_")
        for each in heard
        for handle in each.released.handles
    }


def test_of_a_large_resume_one_call_claims_all_and_no_call_reads_more_than_a_portion(
    crowd: Crowd, calls: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = [0]
    decode, work = checkpoint.decode, crowd.world.servers[1].desk.work

    def counted(data: bytes) -> Any:
        decoded[-1] += 1
        return decode(data)

    def carried_out() -> None:
        decoded.append(0)
        work()

    monkeypatch.setattr(checkpoint, "decode", counted)
    monkeypatch.setattr(crowd.world.servers[1].desk, "work", carried_out)
    crowd.say(1, **crowd.resume())
    crowd.world.quiet()
    crowd.world.work(1)
    (opened,) = crowd.hear(1)
    assert list(opened.opened.next_steps) == [1] * COUNT
    portions = [("read", PORTION)] * (COUNT // PORTION)
    assert calls == [*portions, ("claim", COUNT), *portions]
    assert max(decoded) == PORTION


def test_what_others_ask_of_the_store_while_a_crowd_is_resumed_stands_behind_one_portion(
    crowd: Crowd, calls: list[tuple[str, int]]
) -> None:
    begin(crowd, calls)
    asked = crowd.world.loop.create_task(crowd.world.servers[1].keeper._store.ask(lambda s: s.usage()))
    crowd.world.quiet()
    crowd.world.work(1, 2)  # the portion that was asked for before, and this
    assert asked.done()
    assert not crowd.hear(1)
    crowd.world.work(1)
    assert [one.WhichOneof("response") for one in crowd.hear(1)] == ["opened"]


def test_a_server_that_is_killed_after_it_has_claimed_a_crowd_leaves_all_of_it_to_the_next_resume(
    crowd: Crowd, calls: list[tuple[str, int]]
) -> None:
    begin(crowd, calls)
    crowd.world.kill(1)
    crowd.world.connect(1, 1)
    crowd.say(1, **crowd.resume())
    crowd.world.quiet()
    crowd.world.work(1)
    (opened,) = crowd.hear(1)
    assert list(opened.opened.next_steps) == [1] * COUNT


def test_of_two_servers_that_resume_the_same_crowd_the_last_to_claim_has_all_of_it(
    crowd: Crowd, calls: list[tuple[str, int]]
) -> None:
    begin(crowd, calls)
    crowd.world.now += 0.1
    again = crowd.resume()["resume"]
    again.handle = COUNT
    crowd.say(0, resume=again)
    crowd.world.quiet()
    while not (opened := crowd.hear(1)):  # a call of the one store, a call of the other
        for at in range(2):
            crowd.world.work(at, 1)
    assert [one.WhichOneof("response") for one in opened] == ["opened"]
    crowd.world.work(0)
    assert "opened" in [one.WhichOneof("response") for one in crowd.hear(0)]
    crowd.say(1, fleet=crowd.fleet(1))
    crowd.world.quiet()
    crowd.world.write(1)
    assert reasons(crowd.hear(1)) == dict.fromkeys(range(COUNT), "TAKEN_OVER")
    crowd.world.write(0)
    assert reasons(crowd.hear(0)) == {}
    assert len(crowd.server.keeper._registry) == COUNT


@pytest.mark.parametrize("how", ["TAKEN_OVER", "SEQUENCE_ENDED"])
def test_one_of_a_crowd_that_is_gone_before_it_was_read_again_is_lost_alone_and_before_its_first_step(
    crowd: Crowd, calls: list[tuple[str, int]], how: str
) -> None:
    id_, digest = crowd.opened.sequence_ids[-1], crowd.server.keeper._registry.get(crowd.opened.sequence_ids[-1]).digest
    begin(crowd, calls)
    crowd.world.now += 0.1
    (newer,) = crowd.world.store.claim([Claim(id_, digest)], crowd.world.now)
    if how == "SEQUENCE_ENDED":
        crowd.world.store.end([End(id_, newer, Reason.ENDED)], crowd.world.now)
    crowd.world.work(1)
    (opened,) = crowd.hear(1)
    assert len(opened.opened.sequence_ids) == COUNT
    crowd.say(1, fleet=crowd.fleet(1))
    crowd.world.quiet()
    crowd.world.work(1)
    heard = crowd.hear(1)
    assert reasons(heard) == {COUNT - 1: how}
    assert not any(one.fleet.handles for one in heard)
    fleet = crowd.fleet(1)
    fleet.handles, fleet.steps = fleet.handles[:-4], fleet.steps[:-8]
    fleet.inputs[0].CopyFrom(wire.encode("x", np.ones((COUNT - 1, 3), np.float32)))
    crowd.say(1, fleet=fleet)
    crowd.world.quiet()
    (answers,) = crowd.hear(1)
    assert len(answers.fleet.handles) == 4 * (COUNT - 1)
    assert len(crowd.world.servers[1].keeper._registry) == COUNT - 1


def test_a_store_that_fails_after_a_claim_refuses_the_resume_which_holds_nothing_and_can_be_asked_for_again(
    crowd: Crowd, calls: list[tuple[str, int]]
) -> None:
    begin(crowd, calls)
    crowd.world.store.mood = "dead"
    crowd.world.work(1)
    (refused,) = crowd.hear(1)
    assert refused.failure.error.reason == error_pb2.REASON_STORE_UNAVAILABLE
    other = crowd.world.servers[1]
    assert (len(other.keeper._registry), other.shelf.models[1].slots.in_use) == (0, 0)
    crowd.world.store.mood = "fine"
    crowd.say(1, **crowd.resume())
    crowd.world.quiet()
    crowd.world.work(1)
    (opened,) = crowd.hear(1)
    assert list(opened.opened.next_steps) == [1] * COUNT
