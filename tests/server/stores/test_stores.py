"""What every store does: one conformance test, for all of them."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.durability.checkpoint import Checkpoint, encode, newest
from server.errors import ForeignCheckpoint, StoreFailed, TornCheckpoint
from server.stores.memory import MemoryStore
from server.stores.open import described, open_store
from server.stores.sqlite.store import SqliteStore
from server.stores.store import (
    Claim,
    Claimed,
    Creation,
    End,
    Evicted,
    Gone,
    Hold,
    Reason,
    Refused,
    Store,
    Swept,
    Terms,
    Usage,
    Write,
)
from server.stores.valkey.store import ValkeyStore
from tests.valkey_server import RunningValkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TERMS = Terms(keep=3, retention=100.0, tombstone=50.0, lease=200.0, gap=math.inf)
NOW = 1_700_000_000.0
TOKEN = hashlib.sha256(b"the secret of the client").digest()
OTHER = hashlib.sha256(b"another secret").digest()
CREATION = Creation(TOKEN, "ann", "recall")


class Backend(Protocol):
    """Opens stores on the same data, as several servers would."""

    def __call__(self) -> Store: ...


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    with RunningValkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Backend]]:
    """Each call gives a backend without any data."""
    number = itertools.count()
    with ExitStack() as stack:

        def backend(terms: Terms = TERMS) -> Backend:
            place = f"at{next(number)}"
            match request.param:
                case "memory":
                    shared = MemoryStore(terms)
                    opened: Callable[[], Store] = lambda: shared  # noqa: E731 # as the ones below
                case "sqlite":
                    opened = lambda: SqliteStore(tmp_path / place, terms)  # noqa: E731
                case _:
                    running: RunningValkey = request.getfixturevalue("valkey")
                    running.client().flushall()
                    opened = lambda: ValkeyStore(running.url, terms, prefix=place)  # noqa: E731

            def opens() -> Store:
                store = opened()
                stack.callback(store.close)
                return store

            return opens

        yield backend


@pytest.fixture
def backend(fresh: Callable[[], Backend]) -> Backend:
    return fresh()


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend()


every = pytest.mark.parametrize("fresh", ["memory", "sqlite", "valkey"], indirect=True)
lasting = pytest.mark.parametrize("fresh", ["sqlite", "valkey"], indirect=True)


def data(step: int, of: str = "") -> bytes:
    return f"{of} after {step} steps".encode()


def created(store: Store, *ids: str, now: float = NOW, owner: str = "ann", step: int = 0, awake: bool = True) -> None:
    creation = Creation(TOKEN, owner, "recall")
    assert store.write([Write(id_, 1, step, data(step, id_), creation, awake=awake) for id_ in ids], now) == []


def parked(store: Store, *ids: str, now: float = NOW, owner: str = "ann", step: int = 0) -> None:
    created(store, *ids, now=now, owner=owner, step=step, awake=False)


def hold(store: Store, id_: str, fence: int = 1, now: float = NOW, *, awake: bool = True) -> list[Refused]:
    return store.hold([Hold(id_, fence, awake)], now)


def claimed(store: Store, id_: str, now: float = NOW, digest: bytes = TOKEN) -> Claimed:
    (fence,) = store.claim([Claim(id_, digest)], now)
    answer = seen(store, id_, now, digest)
    assert isinstance(answer, Claimed), answer
    assert answer.fence == fence
    return answer


def seen(store: Store, id_: str, now: float = NOW, digest: bytes = TOKEN) -> Claimed | Gone:
    (answer,) = store.read([Claim(id_, digest)], now)
    return answer


def steps(store: Store, id_: str, now: float = NOW) -> list[int]:
    answer = seen(store, id_, now)
    assert isinstance(answer, Claimed), answer
    return [int(found.split()[-2]) for found in answer.checkpoints]


def write(store: Store, step: int, fence: int = 1, now: float = NOW, id_: str = "s") -> list[Refused]:
    return store.write([Write(id_, fence, step, data(step))], now)


# What is kept


@every
def test_the_newest_checkpoints_of_a_sequence_are_kept_and_given_newest_first(store: Store) -> None:
    created(store, "s")
    for step in (64, 128, 192, 256):
        assert write(store, step) == []
    answer = claimed(store, "s")
    assert answer.checkpoints == (data(256), data(192), data(128))
    assert (answer.owner, answer.model) == ("ann", "recall")


@every
def test_reading_changes_nothing(store: Store) -> None:
    created(store, "s")
    first, second = seen(store, "s"), seen(store, "s", NOW + 99)
    assert first == second == Claimed(1, "ann", "recall", (data(0, "s"),))
    assert write(store, 64, fence=1) == []
    assert seen(store, "s", NOW + 100) == seen(store, "s", NOW + 100)


@every
def test_the_same_step_replaces_what_was_kept_of_it(store: Store) -> None:
    created(store, "s")
    write(store, 64)
    assert store.write([Write("s", 1, 64, b"other")], NOW) == []
    assert claimed(store, "s").checkpoints == (b"other", data(0, "s"))


@every
def test_a_write_after_a_rewind_removes_the_later_steps(store: Store) -> None:
    created(store, "s")
    for step in (64, 128):
        write(store, step)
    assert write(store, 80) == []
    assert steps(store, "s") == [80, 64, 0]
    assert write(store, 70) == []
    assert steps(store, "s") == [70, 64, 0]
    assert write(store, 0) == []
    assert steps(store, "s") == [0]
    assert store.usage() == Usage(1, len(data(0)))


@every
def test_one_batch_may_hold_many_checkpoints_of_a_sequence(store: Store) -> None:
    creation = Creation(TOKEN, "ann", "recall")
    batch = [Write("s", 1, step, data(step), creation) for step in (0, 64, 128, 192, 256, 100)]
    assert store.write(batch, NOW) == []
    assert steps(store, "s") == [100]
    assert store.write([Write("s", 1, step, data(step)) for step in (101, 102, 103, 104)], NOW) == []
    assert steps(store, "s") == [104, 103, 102]
    assert store.usage() == Usage(1, sum(len(data(step)) for step in (104, 103, 102)))


@every
def test_checkpoints_to_spare_stay_beside_the_newest_and_go_once_they_are_not_spared(store: Store) -> None:
    created(store, "s")
    for step in (64, 128, 192, 256, 320):
        assert store.write([Write("s", 1, step, data(step), spare=(64, 128, 7))], NOW) == []
    assert steps(store, "s") == [320, 256, 192, 128, 64]
    assert store.write([Write("s", 1, 384, data(384), spare=(128,))], NOW) == []
    assert steps(store, "s") == [384, 320, 256, 128]
    assert store.write([Write("s", 1, 100, data(100), spare=(128, 384))], NOW) == []
    assert steps(store, "s") == [100]
    assert store.usage() == Usage(1, len(data(100)))


@every
def test_steps_beyond_what_a_double_counts_as_neighbours_to_a_million_are_kept_in_order(store: Store) -> None:
    created(store, "s")
    for step in (999_999, 1_000_000, 2**50, 2**50 + 1):
        assert write(store, step) == []
    assert steps(store, "s") == [2**50 + 1, 2**50, 1_000_000]


@every
def test_a_checkpoint_of_a_megabyte_is_kept_to_the_byte(store: Store) -> None:
    large = np.random.default_rng(0).bytes(2**20)
    store.write([Write("s", 1, 0, large, CREATION)], NOW)
    assert claimed(store, "s").checkpoints == (large,)
    assert store.usage() == Usage(1, 2**20)


@every
@pytest.mark.parametrize("name", ["", "Gezeiten-Ω-潮汐-🌊", "with spaces: and {braces}\r\n", "a\0b", "x" * 5_000])
def test_any_text_is_an_id_an_owner_and_a_model(store: Store, name: str) -> None:
    assert (
        store.write([Write(name, 1, 5, b"5", Creation(TOKEN, name, name)), Write("s", 1, 6, b"6", CREATION)], NOW) == []
    )
    assert seen(store, name) == Claimed(1, name, name, (b"5",))
    assert store.usage(name) == Usage(1, 1)
    assert hold(store, name, awake=False) == []
    assert store.usage(name) == Usage(1, 1, 1)
    assert store.end([End(name, 0, Reason.ENDED)], NOW) == [Refused(name, Reason.FENCED, 1)]
    assert store.evict(5, NOW, owner=name) == [Evicted(name, name, 1, Reason.EVICTED)]
    assert seen(store, name) == Gone(Reason.EVICTED, name, 5)


@every
def test_ten_thousand_are_written_claimed_and_ended_at_once(store: Store) -> None:
    ids = [f"sequence {number}" for number in range(10_000)]
    creation = Creation(TOKEN, "ann", "recall")
    assert store.write([Write(id_, 1, n, data(n), creation) for n, id_ in enumerate(ids)], NOW) == []
    assert store.usage() == Usage(10_000, sum(len(data(n)) for n in range(10_000)))
    lost = set(range(0, 10_000, 777))
    fence = int(NOW * 1_000)
    store.claim([Claim(ids[n], TOKEN) for n in sorted(lost)], NOW)
    again = store.write([Write(id_, 1, n + 64, data(n + 64)) for n, id_ in enumerate(ids)], NOW)
    assert again == [Refused(ids[n], Reason.FENCED, fence) for n in sorted(lost)]
    claims = [Claim(id_, TOKEN) for id_ in ids]
    assert store.claim(claims, NOW) == [fence + (n in lost) for n in range(10_000)]
    for n, answer in enumerate(store.read(claims, NOW)):
        expected = (data(n),) if n in lost else (data(n + 64), data(n))
        assert answer == Claimed(fence + (n in lost), "ann", "recall", expected)
    refused = store.end([End(id_, fence, Reason.ENDED) for id_ in ids], NOW)
    assert refused == [Refused(ids[n], Reason.FENCED, fence + 1) for n in sorted(lost)]
    assert store.usage().sequences == len(lost)


@every
def test_an_empty_batch_is_no_matter(store: Store) -> None:
    assert store.write([], NOW) == store.claim([], NOW) == store.read([], NOW) == store.end([], NOW) == []
    assert store.usage() == store.usage("ann") == Usage(0, 0)
    assert store.evict(10, NOW) == []
    assert store.evict(10, NOW, owner="ann") == []
    assert store.expire(NOW) == Swept((), more=False)
    assert store.hold([], NOW) == []


@every
def test_a_store_does_not_mind_torn_and_foreign_checkpoints_and_the_one_before_them_is_found(store: Store) -> None:
    whole = encode(Checkpoint("recall", 1, "1f" * 32, 64, np.ones(8, np.float32)))
    contents = [(64, whole), (128, whole[:-5]), (192, b"something else")]
    store.write([Write("s", 1, step, content, CREATION) for step, content in contents], NOW)
    found = newest(claimed(store, "s").checkpoints)
    assert found.checkpoint is not None
    assert found.checkpoint.step == 64
    assert [type(error) for error in found.refused] == [ForeignCheckpoint, TornCheckpoint]


# Whose it is


@every
def test_a_write_of_an_unknown_sequence_without_a_birth_is_refused(store: Store) -> None:
    assert write(store, 64) == [Refused("s", Reason.UNKNOWN, 0)]
    assert seen(store, "s") == Gone(Reason.UNKNOWN)
    assert store.claim([Claim("s", TOKEN)], NOW) == [Gone(Reason.UNKNOWN)]
    assert store.end([End("s", 1, Reason.ENDED)], NOW) == [Refused("s", Reason.UNKNOWN, 0)]


@every
def test_who_has_another_token_gets_nothing_and_learns_nothing(store: Store) -> None:
    created(store, "s", "ended", step=64)
    store.end([End("ended", 1, Reason.ENDED)], NOW)
    for id_ in ("s", "ended"):
        for digest in (OTHER, b"", TOKEN[:-1]):
            assert seen(store, id_, digest=digest) == Gone(Reason.NOT_YOURS)
            assert store.claim([Claim(id_, digest)], NOW) == [Gone(Reason.NOT_YOURS)]
    assert write(store, 128, fence=1) == []


@every
def test_once_another_server_has_claimed_a_sequence_its_former_owner_can_neither_write_nor_end_it(
    backend: Backend,
) -> None:
    former, later = backend(), backend()
    created(former, "s", "t")
    fence = claimed(later, "s").fence
    assert fence > 1
    assert former.write([Write("s", 1, 64, b"late"), Write("t", 1, 64, data(64))], NOW) == [
        Refused("s", Reason.FENCED, fence)
    ]
    assert former.end([End("s", 1, Reason.ENDED)], NOW) == [Refused("s", Reason.FENCED, fence)]
    assert steps(former, "s") == [0]
    assert steps(later, "t") == [64, 0]
    assert write(later, 64, fence) == []
    assert seen(former, "s") == Claimed(fence, "ann", "recall", (data(64), data(0, "s")))


@every
def test_claims_take_turns_and_each_outdoes_all_before_it(backend: Backend) -> None:
    servers = [backend(), backend()]
    created(servers[0], "s")
    fences = [1]
    for turn in range(6):
        fences.append(claimed(servers[turn % 2], "s").fence)
        assert [write(server, 64, fences[-2]) != [] for server in servers] == [True, True]
        assert write(servers[turn % 2], 64, fences[-1]) == []
    assert fences == sorted(set(fences))
    twice = servers[0].claim([Claim("s", TOKEN), Claim("s", TOKEN)], NOW)
    assert twice == [fences[-1] + 1, fences[-1] + 2]


@every
def test_of_a_list_that_is_claimed_all_are_taken_or_none(backend: Backend) -> None:
    owner, other = backend(), backend()
    many = [f"sequence {number}" for number in range(300)]
    created(owner, *many, "ended", "late")
    owner.end([End("ended", 1, Reason.ENDED)], NOW)
    claimed(owner, "late", NOW + 10)
    whole = [Claim(id_, TOKEN) for id_ in many]
    for spoilt, why in (
        (Claim("nobody", TOKEN), Gone(Reason.UNKNOWN)),
        (Claim("ended", TOKEN), Gone(Reason.ENDED, "recall", 0)),
        (Claim("late", TOKEN), Gone(Reason.FENCED, "recall", 0)),
        (Claim(many[0], OTHER), Gone(Reason.NOT_YOURS)),
    ):
        for at in (0, 150, 300):
            answers = other.claim([*whole[:at], spoilt, *whole[at:]], NOW + 12, asked=NOW + 1)
            assert answers.pop(at) == why
            assert answers == [1] * 300
    assert owner.write([Write(id_, 1, 64, data(64)) for id_ in many], NOW) == []
    assert steps(owner, "late", NOW + 10) == [0]
    assert other.claim(whole, NOW + 1) == [int(NOW + 1) * 1_000] * 300
    refused = owner.write([Write(id_, 1, 128, data(128)) for id_ in many], NOW)
    assert [one.reason for one in refused] == [Reason.FENCED] * 300


@every
def test_a_claim_that_the_store_carries_out_after_a_later_one_is_refused(backend: Backend) -> None:
    hanging, later = backend(), backend()
    created(later, "s")
    owner = claimed(later, "s", NOW + 5)
    assert hanging.claim([Claim("s", TOKEN)], NOW + 6, asked=NOW) == [Gone(Reason.FENCED, "recall", 0)]
    assert write(later, 64, owner.fence) == []
    assert hanging.claim([Claim("s", OTHER)], NOW + 6, asked=NOW) == [Gone(Reason.NOT_YOURS)]
    (fence,) = hanging.claim([Claim("s", TOKEN)], NOW + 6, asked=NOW + 4.5)  # clocks may differ a little
    assert isinstance(fence, int)
    assert fence > owner.fence


@every
@pytest.mark.parametrize("jump", [-3_600.0, -180.0, 180.0, 3_600.0])
def test_clocks_that_jump_or_differ_refuse_no_claim_and_no_write(backend: Backend, jump: float) -> None:
    server, other = backend(), backend()
    created(server, "s")
    fence = claimed(server, "s").fence
    assert write(server, 64, fence, NOW + jump) == []
    (later,) = other.claim([Claim("s", TOKEN)], NOW + jump + 3, asked=NOW + jump)
    assert isinstance(later, int), later
    assert later > fence
    assert write(server, 128, fence, NOW + 1) == [Refused("s", Reason.FENCED, later)]
    assert write(other, 128, later, NOW + jump) == []
    assert claimed(server, "s", NOW + 1).fence > later


@every
def test_a_claim_that_a_crash_made_the_store_forget_is_outdone_by_the_next_one(
    fresh: Callable[[], Backend],
) -> None:
    before, after = fresh()(), fresh()()
    created(before, "s")
    created(after, "s")
    forgotten = claimed(before, "s", NOW + 1)
    assert claimed(after, "s", NOW + 2).fence > forgotten.fence


@every
def test_a_store_that_lost_everything_is_filled_again_by_who_runs_the_sequences(backend: Backend) -> None:
    former, later = backend(), backend()
    assert later.write([Write("s", 5, 128, data(128), CREATION)], NOW) == []
    assert former.write([Write("s", 4, 64, data(64), CREATION)], NOW) == [Refused("s", Reason.FENCED, 5)]
    assert seen(later, "s") == Claimed(5, "ann", "recall", (data(128),))


@every
def test_a_store_that_forgot_a_claim_learns_of_it_from_the_next_write(backend: Backend) -> None:
    former, later = backend(), backend()
    created(former, "s")
    assert write(later, 64, fence=7) == []
    assert write(former, 64, fence=6) == [Refused("s", Reason.FENCED, 7)]


@every
def test_a_write_that_was_carried_out_and_not_answered_does_no_harm_again(store: Store) -> None:
    batch = [Write("s", 1, 0, data(0), CREATION), Write("s", 1, 64, data(64), CREATION), Write("gone", 1, 0, b"")]
    first = store.write(batch, NOW)
    before = seen(store, "s"), store.usage()
    assert store.write(batch[1:], NOW) == first == [Refused("gone", Reason.UNKNOWN, 0)]
    assert (seen(store, "s"), store.usage()) == before


@every
def test_a_second_birth_under_another_token_is_refused(store: Store) -> None:
    created(store, "s")
    stranger = Write("s", 9, 64, b"stranger's", Creation(OTHER, "eve", "recall"))
    assert store.write([stranger], NOW) == [Refused("s", Reason.NOT_YOURS, 1)]
    assert seen(store, "s") == Claimed(1, "ann", "recall", (data(0, "s"),))
    assert store.usage("eve") == Usage(0, 0)


# How it ends


@every
def test_an_ended_sequence_has_its_reason_and_no_checkpoints(store: Store) -> None:
    created(store, "s", "t", step=64)
    assert store.end([End("s", 1, Reason.ENDED)], NOW) == []
    gone = Gone(Reason.ENDED, "recall", 64)
    assert seen(store, "s") == gone
    assert store.claim([Claim("s", TOKEN)], NOW) == [gone]
    assert write(store, 128) == [Refused("s", Reason.ENDED, 1)]
    assert store.write([Write("s", 9, 128, data(128), CREATION)], NOW) == [Refused("s", Reason.ENDED, 1)]
    assert store.usage() == store.usage("ann") == Usage(1, len(data(64, "t")))


@every
def test_an_end_that_was_carried_out_and_not_answered_does_no_harm_again(store: Store) -> None:
    created(store, "s")
    for _ in range(2):
        assert store.end([End("s", 3, Reason.ENDED), End("s", 3, Reason.ENDED)], NOW) == []
    assert store.end([End("s", 3, Reason.EVICTED)], NOW) == [Refused("s", Reason.ENDED, 3)]
    assert store.end([End("s", 4, Reason.ENDED)], NOW) == [Refused("s", Reason.ENDED, 3)]
    assert store.usage() == Usage(0, 0)


@every
def test_a_reason_is_forgotten_in_time_and_the_id_is_free_then(store: Store) -> None:
    created(store, "s")
    store.end([End("s", 1, Reason.ENDED)], NOW)
    assert seen(store, "s", NOW + 49) == Gone(Reason.ENDED, "recall", 0)
    assert seen(store, "s", NOW + 50) == Gone(Reason.UNKNOWN)
    assert store.write([Write("s", 1, 7, b"7", Creation(OTHER, "bob", "recall"))], NOW + 51) == []
    store.expire(NOW + 51)
    assert seen(store, "s", NOW + 51, OTHER) == Claimed(1, "bob", "recall", (b"7",))
    store.end([End("s", 1, Reason.ENDED)], NOW + 52)
    assert seen(store, "s", NOW + 53, OTHER) == Gone(Reason.ENDED, "recall", 7)


@every
def test_a_parked_sequence_expires_after_the_retention_swept_or_not(store: Store) -> None:
    parked(store, "s", "t")
    write(store, 64, now=NOW + 60)
    assert isinstance(seen(store, "t", NOW + 99), Claimed)
    expired = Gone(Reason.EXPIRED, "recall", 0)
    for _ in range(2):
        assert seen(store, "t", NOW + 100) == expired
        assert store.claim([Claim("t", TOKEN)], NOW + 100) == [expired]
        store.expire(NOW + 100)
    assert write(store, 64, now=NOW + 100, id_="t") == [Refused("t", Reason.EXPIRED, 1)]
    assert hold(store, "t", now=NOW + 100) == [Refused("t", Reason.EXPIRED, 1)]
    assert store.end([End("t", 1, Reason.ENDED)], NOW + 100) == [Refused("t", Reason.EXPIRED, 1)]
    assert steps(store, "s", NOW + 100) == [64, 0]
    assert store.usage() == Usage(1, len(data(64) + data(0, "s")))
    store.expire(NOW + 150)
    assert seen(store, "t", NOW + 150) == Gone(Reason.UNKNOWN)


@every
def test_a_claim_begins_the_retention_anew_and_reading_does_not(store: Store) -> None:
    parked(store, "s", "t")
    assert hold(store, "s", claimed(store, "s", NOW + 99).fence, NOW + 99, awake=False) == []
    seen(store, "t", NOW + 99)
    assert store.expire(NOW + 150) == Swept(("t",), more=False)
    assert isinstance(seen(store, "s", NOW + 150), Claimed)
    assert seen(store, "t", NOW + 150) == Gone(Reason.EXPIRED, "recall", 0)


@every
@pytest.mark.parametrize("revive", ["write", "hold"])
def test_what_its_owner_comes_back_to_before_it_is_swept_has_not_expired(store: Store, revive: str) -> None:
    parked(store, "s")
    later = NOW + 8 * 86_400
    assert (write(store, 64, now=later) if revive == "write" else hold(store, "s", now=later)) == []
    assert store.expire(later) == Swept((), more=False)
    assert isinstance(seen(store, "s", later), Claimed)


@every
def test_sweeping_does_a_bounded_amount_of_work_and_says_whether_there_is_more(store: Store) -> None:
    parked(store, *(f"s{n:03}" for n in range(250)))
    parked(store, "young", now=NOW + 1)
    assert store.expire(NOW + 99, 100) == Swept((), more=False)
    swept = store.expire(NOW + 100, 100)
    assert (len(set(swept.expired)), swept.more) == (100, True)
    assert store.usage().sequences == 151
    swept = store.expire(NOW + 100, 149)
    assert (len(set(swept.expired)), swept.more) == (149, True)
    assert store.expire(NOW + 100, 149) == Swept(("s249",), more=False)
    assert store.usage() == Usage(1, len(data(0, "young")), 1)
    assert store.expire(NOW + 100) == Swept((), more=False)


@every
def test_a_sweep_says_that_there_is_more_as_long_as_old_reasons_are_left(store: Store) -> None:
    ids = [f"s{n}" for n in range(25)]
    created(store, *ids)
    store.end([End(id_, 1, Reason.ENDED) for id_ in ids], NOW)
    assert store.expire(NOW + 49, 10) == Swept((), more=False)
    assert [store.expire(NOW + 50, 10).more for _ in range(4)] == [True, True, False, False]


@every
def test_two_servers_that_sweep_the_same_count_each_sequence_once(backend: Backend) -> None:
    servers = [backend(), backend()]
    parked(servers[0], *(f"s{n}" for n in range(20)))
    swept = [id_ for turn in range(6) for id_ in servers[turn % 2].expire(NOW + 100, 7).expired]
    assert sorted(swept) == sorted(f"s{n}" for n in range(20))
    assert servers[1].usage() == Usage(0, 0)


# Who is awake


@every
def test_what_is_awake_is_counted_apart_and_neither_expires_nor_makes_room(backend: Backend) -> None:
    store, other = backend(), backend()
    created(store, "awake", "asleep")
    assert store.usage() == Usage(2, len(data(0, "awake") + data(0, "asleep")))
    assert hold(store, "asleep", awake=False) == []
    assert other.usage("ann") == other.usage() == Usage(2, len(data(0, "awake") + data(0, "asleep")), 1)
    other.expire(NOW)
    assert other.expire(NOW + 150) == Swept(("asleep",), more=False)
    assert other.evict(5, NOW + 150) == other.evict(5, NOW + 150, owner="ann") == []
    assert isinstance(seen(other, "awake", NOW + 150), Claimed)
    assert other.usage() == other.usage("ann") == Usage(1, len(data(0, "awake")))


@every
def test_writing_claiming_and_waking_make_a_parked_sequence_awake_again(store: Store) -> None:
    for wake in (
        lambda: write(store, 64),
        lambda: hold(store, "s"),
        lambda: store.claim([Claim("s", TOKEN)], NOW),
    ):
        store.end([End("s", 10**15, Reason.ENDED)], NOW)
        store.expire(NOW + 50)
        parked(store, "s", now=NOW + 50)
        assert store.usage().parked == store.usage("ann").parked == 1
        wake()
        assert store.usage().parked == store.usage("ann").parked == 0
        assert store.evict(1, NOW) == []


@every
def test_a_sequence_counts_as_parked_once_its_owner_is_silent_for_the_lease_and_is_awake_again_when_it_is_not(
    store: Store,
) -> None:
    created(store, "s", "renewed")
    hold(store, "renewed", now=NOW + 1)
    assert store.expire(NOW + 199) == Swept((), more=False)
    assert store.usage().parked == 0
    assert store.expire(NOW + 200) == Swept((), more=False, owners=frozenset({"ann"}))
    assert store.usage().parked == store.usage("ann").parked == 1
    assert isinstance(seen(store, "s", NOW + 299), Claimed)  # its retention began when it was found to be parked
    assert hold(store, "s", now=NOW + 200) == []
    assert store.usage().parked == 0
    store.expire(NOW + 400)
    assert [victim.id for victim in store.evict(5, NOW + 400)] == ["renewed", "s"]


@every
def test_leases_that_end_together_are_seen_to_in_portions(store: Store) -> None:
    created(store, *(f"s{n}" for n in range(25)))
    assert [store.expire(NOW + 200, 10).more for _ in range(3)] == [True, True, False]
    assert store.usage().parked == 25


@every
def test_the_longest_jump_of_a_clock_sweeps_nothing_that_is_awake(store: Store) -> None:
    created(store, "s")
    later = NOW + 365 * 86_400
    for _ in range(3):
        assert store.expire(later).expired == ()
    assert write(store, 64, now=later) == []
    assert write(store, 128) == []  # and back


@every
def test_holding_says_of_each_sequence_whether_it_is_still_the_callers(backend: Backend) -> None:
    store, other = backend(), backend()
    created(store, "mine", "taken", "ended", "evicted")
    hold(store, "evicted", awake=False)
    other.evict(1, NOW)
    store.end([End("ended", 1, Reason.ENDED)], NOW)
    fence = claimed(other, "taken").fence
    for awake in (True, False):
        holds = [Hold(id_, 1, awake) for id_ in ("mine", "taken", "ended", "evicted", "unknown")]
        assert store.hold(holds, NOW) == [
            Refused("taken", Reason.FENCED, fence),
            Refused("ended", Reason.ENDED, 1),
            Refused("evicted", Reason.EVICTED, 1),
            Refused("unknown", Reason.UNKNOWN, 0),
        ]
    assert store.usage().parked == 1


@every
def test_holding_what_is_parked_already_does_not_begin_its_retention_anew(store: Store) -> None:
    parked(store, "s")
    assert hold(store, "s", now=NOW + 99, awake=False) == []
    assert store.expire(NOW + 100) == Swept(("s",), more=False)


# Who makes room


@every
def test_those_parked_for_longest_make_room_first(store: Store) -> None:
    for number in range(7):
        parked(store, f"s{number}", now=NOW + number)
    created(store, "awake", now=NOW - 50)
    store.write([Write("s0", 1, 64, data(64), awake=False)], NOW + 10)
    hold(store, "s1", claimed(store, "s1", NOW + 11).fence, NOW + 11, awake=False)
    seen(store, "s2", NOW + 12)
    hold(store, "s3", now=NOW + 12)
    evicted = store.evict(3, NOW + 13)
    assert [victim.id for victim in evicted] == ["s2", "s4", "s5"]
    assert evicted[0] == Evicted("s2", "ann", len(data(0, "s2")), Reason.EVICTED)
    assert seen(store, "s2", NOW + 14) == Gone(Reason.EVICTED, "recall", 0)
    assert write(store, 64, id_="s2", now=NOW + 14) == [Refused("s2", Reason.EVICTED, 1)]
    assert [victim.id for victim in store.evict(9, NOW + 14)] == ["s6", "s0", "s1"]
    assert store.usage() == Usage(2, len(data(0, "awake") + data(0, "s3")))


@every
def test_an_owner_over_the_limit_makes_room_with_sequences_of_their_own(store: Store) -> None:
    parked(store, "a1", "a2", owner="ann")
    parked(store, "b1", now=NOW + 1, owner="bob")
    parked(store, "b2", now=NOW + 2, owner="bob")
    assert [victim.id for victim in store.evict(1, NOW + 3, owner="bob")] == ["b1"]
    assert store.usage("bob") == Usage(1, len(data(0, "b2")), 1)
    assert store.usage("ann") == Usage(2, len(data(0, "a1") + data(0, "a2")), 2)
    assert store.evict(0, NOW + 3) == store.evict(1, NOW + 3, owner="nobody") == []
    assert store.usage().sequences == 3


@every
def test_of_thousands_that_are_awake_none_is_taken(store: Store) -> None:
    created(store, *(f"s{number:04}" for number in range(2_500)))
    parked(store, "t", "u", now=NOW + 1)
    assert {victim.id for victim in store.evict(5, NOW + 2)} == {"t", "u"}
    assert store.usage().sequences == 2_500


@every
def test_a_sequence_past_its_retention_makes_room_as_expired(store: Store) -> None:
    parked(store, "s")
    parked(store, "t", now=NOW + 1)
    assert [(v.id, v.reason) for v in store.evict(2, NOW + 100)] == [("s", Reason.EXPIRED), ("t", Reason.EVICTED)]
    assert seen(store, "s", NOW + 101) == Gone(Reason.EXPIRED, "recall", 0)


@every
def test_what_everything_and_each_owner_takes_is_counted(store: Store) -> None:
    created(store, "a", owner="ann")
    created(store, "b", "c", owner="bob")
    store.write([Write("a", 1, step, bytes(step)) for step in (100, 200, 300)], NOW)
    assert store.usage("ann") == Usage(1, 600)
    assert store.usage() == Usage(3, 600 + len(data(0, "b") + data(0, "c")))
    store.write([Write("a", 1, 250, bytes(5))], NOW)
    assert store.usage("ann") == Usage(1, 305)
    store.end([End("b", 1, Reason.ENDED), End("a", 1, Reason.ENDED)], NOW)
    assert store.usage("ann") == Usage(0, 0)
    assert store.usage() == store.usage("bob") == Usage(1, len(data(0, "c")))


# What lasts


@lasting
def test_a_new_process_finds_everything(backend: Backend) -> None:
    first = backend()
    created(first, "s", "ended")
    parked(first, "evicted", "parked")
    write(first, 64)
    fence = claimed(first, "s").fence
    first.end([End("ended", 1, Reason.ENDED)], NOW)
    first.evict(1, NOW)
    usage = first.usage()
    first.close()
    second = backend()
    assert second.usage() == usage
    assert (usage.sequences, usage.parked) == (2, 1)
    assert write(second, 128, fence=1) == [Refused("s", Reason.FENCED, fence)]
    assert seen(second, "s") == Claimed(fence, "ann", "recall", (data(64), data(0, "s")))
    assert seen(second, "ended") == Gone(Reason.ENDED, "recall", 0)
    assert seen(second, "evicted") == Gone(Reason.EVICTED, "recall", 0)


@lasting
def test_a_store_that_was_closed_opens_by_itself(store: Store) -> None:
    created(store, "s")
    store.close()
    assert steps(store, "s") == [0]


IDS = st.sampled_from(["a", "b", "c"])
FENCES = st.integers(1, 4)
STEPS = st.integers(0, 9)
MOVES = st.one_of(
    st.tuples(
        st.just("write"),
        IDS,
        FENCES,
        st.lists(STEPS, min_size=1, max_size=5),
        st.booleans(),
        st.sets(STEPS),
        st.booleans(),
    ),
    st.tuples(st.just("claim"), IDS, st.sampled_from([TOKEN, OTHER]), st.sampled_from([0.0, 10.0])),
    st.tuples(st.just("hold"), IDS, FENCES, st.booleans()),
    st.tuples(st.just("end"), IDS, FENCES, st.sampled_from([Reason.ENDED, Reason.EVICTED])),
    st.tuples(st.just("expire"), st.integers(1, 3)),
    st.tuples(st.just("evict"), st.integers(1, 2), st.sampled_from([None, "ann", "bob"])),
)


def moved(store: Store, move: tuple, now: float) -> object:  # type: ignore[type-arg] # one of the above
    match move:
        case ("write", id_, fence, at, creation, spare, awake):
            owner = Creation(TOKEN, "ann" if id_ < "c" else "bob", "recall") if creation else None
            return store.write([Write(id_, fence, step, bytes(step), owner, tuple(spare), awake) for step in at], now)
        case ("claim", id_, digest, ago):
            return store.claim([Claim(id_, digest)], now, now - ago)
        case ("hold", id_, fence, awake):
            return store.hold([Hold(id_, fence, awake)], now)
        case ("end", id_, fence, reason):
            return store.end([End(id_, fence, reason)], now)
        case ("expire", limit):
            swept = store.expire(now, limit)
            return swept.expired, swept.owners
        case ("evict", count, owner):
            return store.evict(count, now, owner=owner)
    raise AssertionError(move)


@lasting
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(MOVES, st.sampled_from([0.001, 7.0, 60.0, 160.0])), max_size=25))
def test_whatever_happens_a_store_answers_as_the_one_in_memory_does(
    fresh: Callable[[], Backend],
    moves: list[tuple[tuple, float]],  # type: ignore[type-arg]
) -> None:
    backend, plain = fresh(), MemoryStore(TERMS)
    servers = itertools.cycle(both := [backend(), backend()])
    now = 1.0
    for server in (plain, *both):
        server.expire(now)  # they look at the time
    for move, later in moves:
        now += later
        store = next(servers)
        assert moved(store, move, now) == moved(plain, move, now), move
        for used, expected in (
            (store.usage(), plain.usage()),
            *((store.usage(owner), plain.usage(owner)) for owner in ("ann", "bob")),
        ):
            assert (used, used.tombstones) == (expected, expected.tombstones)
        claims = [Claim(id_, TOKEN) for id_ in "abc"]
        assert store.read(claims, now) == plain.read(claims, now)


@pytest.mark.parametrize(
    "wrong", [{"keep": 0}, {"keep": 256}, {"retention": 0.0}, {"tombstone": -1.0}, {"lease": 0.0}, {"gap": 0.0}]
)
def test_terms_that_no_store_can_keep_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected to keep 1 to 255, a retention, a lease and a gap above 0 s"):
        Terms(**wrong)


# Where it is


def test_an_address_says_which_store_it_is(tmp_path: Path, valkey: RunningValkey) -> None:
    client = valkey.client()
    client.flushall()
    assert isinstance(open_store("memory:", TERMS), MemoryStore)
    for url in (f"sqlite:{tmp_path / 'store'}", f"{valkey.url}/3?prefix=elsewhere&socket_timeout=1"):
        store = open_store(url, TERMS)
        created(store, "s")
        assert store.terms == TERMS
        store.close()
    assert (tmp_path / "store").read_bytes().startswith(b"SQLite format 3")
    assert client.dbsize() == 0
    client.execute_command("SELECT", 3)
    assert all(key.startswith(b"{elsewhere}:") for key in client.scan_iter())
    client.flushdb()


@pytest.mark.parametrize("url", ["", "memory", "sqlite:///x", "postgres://x", "valkey:x", "tidegate.db"])
def test_an_address_of_nothing_is_refused_with_those_that_there_are(url: str) -> None:
    with pytest.raises(StoreFailed, match="is no address of a store; expected memory:, sqlite:FILE, valkey://"):
        open_store(url, TERMS)


@pytest.mark.parametrize(
    "url",
    ["valkey://host?no_such_option=1", "valkey://host?socket_timeout=soon", "redis://host:x", "valkey://host/one"],
)
def test_an_address_with_a_mistake_is_refused(url: str) -> None:
    with pytest.raises(StoreFailed, match="the address of the store cannot be understood"):
        open_store(url, TERMS)


@pytest.mark.parametrize("password", ["12/34", "12?34", "12#34", "98@12/34", "ab/cd", "ab[cd"])
def test_a_password_that_an_address_cannot_hold_is_refused_and_not_said(password: str) -> None:
    url = f"valkey://user:{password}@host:6379/0"
    with pytest.raises(StoreFailed, match=r"expected a port up to 65535, and / \? # @ \[ \] in a pass") as refused:
        open_store(url, TERMS)
    said = f"{refused.value} {described(url)}"
    assert not any(part in said for part in re.split(r"[/?#@\[]", password))


# What was lost


@every
def test_a_store_whose_data_is_all_there_has_lost_nothing(backend: Backend) -> None:
    store, other = backend(), backend()
    for step in range(3):
        assert store.losses() == other.losses() == 0
        created(store, "s", step=step)
        hold(other, "s")
    store.close()
    assert store.losses() == 0


# How old something is

PATIENT = Terms(keep=3, retention=100.0, tombstone=100.0, lease=100.0, gap=10.0)
YEAR = 365 * 86_400.0


@every
@pytest.mark.parametrize("jump", [86_400.0, -86_400.0, YEAR, -YEAR])
def test_a_clock_that_jumps_by_days_deletes_nothing_and_parks_nothing(
    fresh: Callable[..., Backend], jump: float
) -> None:
    backend = fresh(PATIENT)
    store = backend()
    parked(store, "parked")
    created(store, "awake", "ended")
    store.end([End("ended", 1, Reason.ENDED)], NOW)
    for server in (store, backend()):
        for now in (NOW + jump, NOW, NOW + jump):
            assert server.expire(now) == Swept((), more=False)
    assert isinstance(seen(store, "parked", NOW + jump), Claimed)
    assert seen(store, "ended", NOW + jump) == Gone(Reason.ENDED, "recall", 0)
    assert store.usage().parked == 1
    assert store.evict(5, NOW + jump) == [Evicted("parked", "ann", len(data(0, "parked")), Reason.EVICTED)]


@every
def test_what_was_seen_to_pass_ages_and_the_time_without_a_server_does_not(fresh: Callable[..., Backend]) -> None:
    backend = fresh(PATIENT)
    store = backend()
    parked(store, "s")
    for passed in range(5, 50, 5):
        assert store.expire(NOW + passed).expired == ()
    later = backend()
    assert later.expire(NOW + 50 * 86_400).expired == () or later is store
    found = {passed: later.expire(NOW + 50 * 86_400 + passed).expired for passed in range(5, 70, 5)}
    assert [passed for passed, expired in found.items() if expired] == [45 if later is store else 55]


@every
def test_calls_that_were_asked_for_in_another_order_than_they_come_age_nothing(fresh: Callable[..., Backend]) -> None:
    store = fresh(PATIENT)()
    parked(store, "s")
    for _ in range(50):
        assert isinstance(seen(store, "s", NOW + 1), Claimed)
        assert store.expire(NOW + 6) == Swept((), more=False)
    passed = next(passed for passed in range(5, 200, 5) if store.expire(NOW + passed).expired)
    assert passed == 100


@every
def test_servers_with_clocks_that_differ_do_not_age_anything_together(fresh: Callable[..., Backend]) -> None:
    backend = fresh(PATIENT)
    servers = [backend(), backend(), backend()]
    if servers[0] is servers[1]:
        pytest.skip("one server in all")
    parked(servers[0], "s")
    for server, clock in zip(servers, (NOW, NOW + YEAR, NOW - YEAR), strict=True):
        server.expire(clock)
    for passed in range(5, 100, 5):
        for server, clock in zip(servers, (NOW, NOW + YEAR, NOW - YEAR), strict=True):
            assert server.expire(clock + passed).expired == (), passed
    assert servers[1].expire(NOW + YEAR + 100).expired == ("s",)


@every
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 1), st.floats(0, 9), st.sampled_from([0.0, 0.0, 0.0, 3_600.0, -3_600.0, YEAR, -YEAR])),
        min_size=1,
        max_size=40,
    )
)
def test_however_clocks_jump_nothing_is_gone_before_its_time_and_a_jump_costs_no_more_than_the_gap(
    fresh: Callable[..., Backend], turns: list[tuple[int, float, float]]
) -> None:
    backend = fresh(PATIENT)
    servers, clocks = [backend(), backend()], [NOW, NOW + 1_000_000]
    parked(servers[0], "s")
    servers[1].expire(clocks[1])
    passed, jumps, gone = 0.0, 0, False
    for which, seconds, jump in turns:
        passed, clocks = passed + seconds, [clock + seconds for clock in clocks]
        clocks[which] += jump
        jumps += jump != 0 or servers[0] is servers[1]
        gone = bool(servers[which].expire(clocks[which]).expired) or gone
        assert not gone or passed + PATIENT.gap * jumps >= PATIENT.retention


# Whose give way, and what is remembered


@every
def test_the_owner_with_the_most_parked_sequences_gives_way_first(store: Store) -> None:
    parked(store, "v1", "v2", owner="victim")
    for n in range(40):
        parked(store, f"x{n:02}", now=NOW + 1 + n, owner="stranger")
    parked(store, *(f"w{n}" for n in range(5)), now=NOW + 99, owner="other")
    assert [one.id for one in store.evict(30, NOW + 99)] == [f"x{n:02}" for n in range(30)]
    assert {one.owner for one in store.evict(5, NOW + 99)} == {"stranger"}
    assert Counter(one.owner for one in store.evict(6, NOW + 99)) == {"stranger": 3, "other": 3}
    assert [one.id for one in store.evict(2, NOW + 99)] == ["v1", "v2"]  # nobody stands out any more
    assert store.usage() == Usage(4, store.usage().bytes, 4)


@every
def test_of_many_owners_with_about_as_many_each_those_parked_for_longest_give_way(store: Store) -> None:
    for n in reversed(range(20)):
        parked(store, f"a{n}", f"b{n}", now=NOW + 20 - n, owner=f"owner {n}")
    assert [one.owner for one in store.evict(4, NOW + 30)] == ["owner 19", "owner 19", "owner 18", "owner 18"]


@every
@pytest.mark.parametrize("names", [1, 700])
def test_an_address_gives_way_for_all_of_its_owners_however_many_it_names(store: Store, names: int) -> None:
    parked(store, *(f"h{n}" for n in range(20)), owner="ipv4:10.0.0.1 ann")
    births = [Creation(TOKEN, f"ipv4:10.0.0.66 {n}", "recall") for n in range(names)]
    store.write([Write(f"x{n}", 1, 1, b"", births[n % names], awake=False) for n in range(1_200)], NOW + 1)
    evicted = Counter(one.owner.split()[0] for _ in range(3) for one in store.evict(350, NOW + 2))
    assert evicted == {"ipv4:10.0.0.66": 1_050}
    assert store.usage("ipv4:10.0.0.1 ann").parked == 20


@every
def test_it_is_known_which_owners_of_an_account_have_how_many_parked(store: Store) -> None:
    assert list(store.parked_by("token:mill")) == []
    parked(store, "a", "b", owner="token:mill")
    parked(store, "c", owner="token:mill ann")
    parked(store, "d", owner="token:mill2")
    created(store, "e", owner="token:mill")
    assert [tuple(one) for one in store.parked_by("token:mill")] == [("token:mill", 2), ("token:mill ann", 1)]
    assert [tuple(one) for one in store.parked_by("token:mill2")] == [("token:mill2", 1)]


@every
def test_within_an_address_the_owner_with_the_most_gives_way_first(store: Store) -> None:
    parked(store, "a1", "a2", owner="ipv4:10.0.0.1 ann")
    parked(store, *(f"b{n}" for n in range(10)), now=NOW + 1, owner="ipv4:10.0.0.1")
    assert [one.id for one in store.evict(5, NOW + 2)] == [f"b{n}" for n in range(5)]
    parked(store, *(f"c{n}" for n in range(5)), now=NOW + 3, owner="ipv4:10.0.0.1 bob")
    assert Counter(one.owner for one in store.evict(6, NOW + 4)) == {"ipv4:10.0.0.1": 3, "ipv4:10.0.0.1 bob": 3}


@every
def test_of_each_owner_only_so_many_tombstones_are_kept_the_last_ones(fresh: Callable[..., Backend]) -> None:
    store = fresh(Terms(tombstones=3, gap=math.inf))()
    created(store, "other", owner="bob")
    store.end([End("other", 1, Reason.ENDED)], NOW)
    for n in range(3):
        created(store, f"a{n}", f"b{n}", now=NOW + n)
        store.end([End(f"{of}{n}", 1, Reason.ENDED) for of in "ab"], NOW + n)
    found = [seen(store, f"{of}{n}", NOW + 3) for n in range(3) for of in "ab"]
    assert found == [Gone(Reason.UNKNOWN)] * 3 + [Gone(Reason.ENDED, "recall", 0)] * 3
    assert seen(store, "other", NOW + 3) == Gone(Reason.ENDED, "recall", 0)
    assert [store.usage().tombstones, store.usage("ann").tombstones, store.usage("bob").tombstones] == [4, 3, 1]
    created(store, *(f"c{n}" for n in range(9)), now=NOW + 4)
    store.end([End(f"c{n}", 1, Reason.ENDED) for n in range(9)], NOW + 4)
    assert [n for n in range(9) if seen(store, f"c{n}", NOW + 5) != Gone(Reason.UNKNOWN)] == [6, 7, 8]
    assert (store.usage().tombstones, store.usage("ann").tombstones) == (4, 3)


@every
def test_tombstones_are_forgotten_the_oldest_first_and_their_ids_are_free(store: Store) -> None:
    for n in range(5):
        created(store, f"s{n}", now=NOW + n)
        store.end([End(f"s{n}", 1, Reason.ENDED)], NOW + n)
    before = store.usage().taken
    assert (store.forget(0, NOW + 5), store.forget(2, NOW + 5)) == (0, 2)
    assert [seen(store, f"s{n}", NOW + 5).reason for n in range(5)] == [Reason.UNKNOWN] * 2 + [Reason.ENDED] * 3
    assert store.usage().tombstones == store.usage("ann").tombstones == 3
    assert store.usage().taken <= before
    created(store, "s0", now=NOW + 6)
    assert store.forget(9, NOW + 6) == 3
    assert (store.usage().tombstones, store.usage("ann").tombstones) == (0, 0)
    assert steps(store, "s0", NOW + 6) == [0]


@lasting
def test_what_a_store_says_that_all_takes_is_about_what_it_takes(store: Store, request: pytest.FixtureRequest) -> None:
    def really() -> float:
        if isinstance(store, ValkeyStore):
            return float(request.getfixturevalue("valkey").client().info("memory")["used_memory"])
        return float(store.usage().taken)

    empty = really()
    creation = Creation(TOKEN, "ann", "recall")
    ids = [hashlib.sha256(b"%d" % n).hexdigest()[:32] for n in range(5_000)]
    store.write([Write(id_, 1, 64, bytes(2_000), creation) for id_ in ids], NOW)
    assert 0.7 < store.usage().taken / (really() - empty) < 1.4
    assert store.usage().taken > store.usage().bytes
    store.end([End(id_, 1, Reason.ENDED) for id_ in ids], NOW)
    assert 0.6 < store.usage().taken / (really() - empty) < 1.6
    assert store.usage().taken > 5_000 * 100


# Begun anew -----------------------------------------------------------------------------------------------------------

ANEW = Creation(TOKEN, "ann", "recall", anew=True)


@every
@pytest.mark.parametrize("gone", [False, True])
def test_a_sequence_begins_anew_under_the_id_of_one_before_that_is_kept_or_gone(backend: Backend, gone: bool) -> None:
    store = backend()
    created(store, "a", "b", step=3)
    assert store.write([Write("a", 1, 4, data(4), spare=(3,))], NOW) == []
    if gone:
        assert store.end([End("a", 1, Reason.ENDED)], NOW) == []
    assert store.write([Write("a", 2, 0, data(0), ANEW), Write("a", 2, 1, data(1), ANEW)], NOW) == []
    (found,) = store.read([Claim("a", TOKEN)], NOW)
    assert found == Claimed(2, "ann", "recall", (data(1), data(0)))
    assert store.usage("ann") == Usage(2, sum(map(len, (data(0), data(1), data(3, "b")))))


@every
def test_who_had_it_before_is_refused_once_a_sequence_has_begun_anew(backend: Backend) -> None:
    store = backend()
    created(store, "a", step=3)
    assert store.write([Write("a", 2, 1, data(1), ANEW)], NOW) == []
    assert store.write([Write("a", 1, 4, data(4))], NOW) == [Refused("a", Reason.FENCED, 2)]
    assert store.end([End("a", 1, Reason.ENDED)], NOW) == [Refused("a", Reason.FENCED, 2)]


@every
def test_nothing_begins_anew_with_another_digest_or_under_no_newer_fence(backend: Backend) -> None:
    store = backend()
    created(store, "a", step=3)
    stranger = Creation(OTHER, "ann", "recall", anew=True)
    assert store.write([Write("a", 2, 0, data(0), stranger)], NOW) == [Refused("a", Reason.NOT_YOURS, 1)]
    assert store.write([Write("a", 1, 4, data(4), ANEW)], NOW) == []
    (found,) = store.read([Claim("a", TOKEN)], NOW)
    assert found == Claimed(1, "ann", "recall", (data(4), data(3, "a")))
    assert store.end([End("a", 1, Reason.ENDED)], NOW) == []
    assert store.write([Write("a", 1, 0, data(0), ANEW)], NOW) == [Refused("a", Reason.ENDED, 1)]
    assert store.write([Write("a", 2, 0, data(0), stranger)], NOW) == [Refused("a", Reason.ENDED, 1)]
