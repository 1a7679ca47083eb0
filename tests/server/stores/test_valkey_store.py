"""What a real Valkey and the way to it can do to the store there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from valkey.exceptions import ResponseError

from bench.processes.child import free_port
from server.errors import StoreFailed
from server.stores.store import Claim, Claimed, Creation, End, Gone, Hold, Reason, Refused, Swept, Usage, Write
from server.stores.terms import Terms
from server.stores.valkey.store import Item, Scan, ValkeyStore
from tests.valkey_server import RunningValkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

TERMS = Terms(keep=2, retention=100.0, tombstone=50.0, gap=math.inf)
NOW = 1_700_000_000.0
TOKEN = bytes(32)
CREATION = Creation(TOKEN, "ann", "recall")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    """It keeps what it answered to through a crash."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    with RunningValkey(tmp_path_factory.mktemp("valkey"), config) as running:
        yield running


@pytest.fixture
def valkey(logged: RunningValkey) -> RunningValkey:
    logged.client().flushall()
    return logged


@pytest.fixture
def store(valkey: RunningValkey) -> Iterator[ValkeyStore]:
    store = ValkeyStore(valkey.url, TERMS)
    yield store
    store.close()


def write(store: ValkeyStore, step: int, *ids: str) -> list[Refused]:
    return store.write([Write(id_, 1, step, b"%d" % step, CREATION) for id_ in ids or ("s",)], NOW)


def newest(store: ValkeyStore, id_: str = "s") -> int:
    (answer,) = store.read([Claim(id_, TOKEN)], NOW)
    assert isinstance(answer, Claimed), answer
    return int(answer.checkpoints[0])


def test_a_crash_of_valkey_is_said_and_once_it_is_back_the_store_goes_on_with_what_was_kept(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1)
    valkey.kill()
    for _ in range(2):
        with pytest.raises(StoreFailed, match=r"the store at host=127\.0\.0\.1.* cannot be reached: .*refused"):
            write(store, 2)
    valkey.start()
    assert newest(store) == 1
    assert write(store, 2) == []
    assert newest(store) == 2


def test_a_restart_between_two_calls_is_not_noticed(store: ValkeyStore, valkey: RunningValkey) -> None:
    write(store, 1)
    valkey.kill()
    valkey.start()
    assert write(store, 2) == []
    assert newest(store) == 2


def test_a_valkey_that_does_not_answer_is_not_waited_for_longer_than_said_and_no_answer_is_mistaken_later(
    valkey: RunningValkey,
) -> None:
    store = ValkeyStore(valkey.url, TERMS, patience=1.0)
    write(store, 1, "s", "t")
    valkey.pause()
    with pytest.raises(StoreFailed, match="does not answer in time"):
        write(store, 2, "s", "t")
    valkey.go_on()
    assert store.usage() == Usage(2, 4) or store.usage() == Usage(2, 2)  # it may have been carried out
    assert write(store, 3, "s", "t") == []
    assert (newest(store, "s"), newest(store, "t")) == (3, 3)
    store.close()


def test_a_script_that_valkey_has_forgotten_is_sent_again(store: ValkeyStore, valkey: RunningValkey) -> None:
    write(store, 1)
    valkey.client().script_flush()
    assert write(store, 2, *(f"s{n}" for n in range(300))) == []
    assert store.usage().sequences == 301


def test_a_full_memory_is_said_and_nothing_is_half_written(store: ValkeyStore, valkey: RunningValkey) -> None:
    write(store, 1)
    client = valkey.client()
    client.config_set("maxmemory", 1)
    with pytest.raises(StoreFailed, match="takes no writes: its memory is full"):
        write(store, 2)
    assert newest(store) == 1
    client.config_set("maxmemory", 0)
    assert write(store, 2) == []


def test_a_replica_is_not_written_to(store: ValkeyStore, valkey: RunningValkey) -> None:
    write(store, 1)
    client = valkey.client()
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreFailed, match="is a replica, which takes no writes"):
        write(store, 2)
    client.execute_command("REPLICAOF", "NO", "ONE")
    assert write(store, 2) == []


def test_a_wrong_password_is_said_and_never_shown(valkey: RunningValkey) -> None:
    client = valkey.client()
    client.config_set("requirepass", "the right one")
    try:
        wrong = ValkeyStore(valkey.url.replace("://", "://:guess@"), TERMS)
        with pytest.raises(StoreFailed, match="does not let us in") as caught:
            wrong.usage()
        assert "guess" not in str(caught.value)
        with pytest.raises(StoreFailed, match="does not let us in"):
            ValkeyStore(valkey.url, TERMS).usage()
        right = ValkeyStore(valkey.url.replace("://", "://:the%20right%20one@"), TERMS)
        assert write(right, 1) == []
    finally:
        client.config_set("requirepass", "")


def test_an_address_with_tls_never_speaks_in_the_clear(valkey: RunningValkey) -> None:
    store = ValkeyStore(valkey.url.replace("valkey://", "valkeys://"), TERMS, patience=0.5)
    with pytest.raises(StoreFailed, match=r"(?i)cannot be reached: .*ssl|does not answer"):
        store.usage()


def test_all_keys_are_in_one_slot_so_that_a_script_may_touch_them_together(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1, "s", "t}", "{u}")
    client = valkey.client()
    assert {client.execute_command("CLUSTER KEYSLOT", key) for key in client.scan_iter()} == {
        client.execute_command("CLUSTER KEYSLOT", "tidegate")
    }


def test_a_prefix_may_bring_its_own_tag(valkey: RunningValkey) -> None:
    write(ValkeyStore(valkey.url, TERMS, prefix="a:{b}"), 1)
    assert {key.split(b":")[1] for key in valkey.client().scan_iter()} == {b"{b}"}


def test_stores_under_different_prefixes_know_nothing_of_each_other(valkey: RunningValkey) -> None:
    one, two = ValkeyStore(valkey.url, TERMS, prefix="one"), ValkeyStore(valkey.url, TERMS, prefix="two")
    write(one, 1)
    assert two.read([Claim("s", TOKEN)], NOW) == [Gone(Reason.UNKNOWN)]
    assert two.usage() == Usage(0, 0)


def test_nothing_ends_by_itself_and_nothing_but_tombstones_is_left_of_what_is_gone(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1, "kept", "ended", "evicted", "expired")
    client = valkey.client()
    writer = f"{{tidegate}}:writer:{store._writer}".encode()
    assert {key for key in client.scan_iter() if client.pttl(key) != -1} == {writer}
    store.end([End("ended", 1, Reason.ENDED)], NOW)
    store.hold([Hold("evicted", 1, awake=False)], NOW)
    store.evict(1, NOW)
    store.hold([Hold("expired", 1, awake=False)], NOW)
    graves = {f"{{tidegate}}:sequence:{id_}".encode() for id_ in ("ended", "evicted")}
    assert graves < set(client.scan_iter())
    assert store.expire(NOW + 100) == Swept(("expired",), more=False)
    assert graves.isdisjoint(client.scan_iter())
    assert {key for key in client.scan_iter() if client.pttl(key) != -1} == {writer}
    store.end([End("kept", 10**15, Reason.ENDED)], NOW + 100)
    last = {f"{{tidegate}}:{key}".encode() for key in ("sequence:kept", "tombstones", "tombstones:ann")}
    books = {writer, b"{tidegate}:total", b"{tidegate}:time"}
    store.expire(NOW + 149)
    assert set(client.scan_iter()) - {b"{tidegate}:sequence:expired"} == {*last, *books}
    store.expire(NOW + 150)
    assert set(client.scan_iter()) == books
    assert client.get("{tidegate}:total") == b"0"


def test_a_sequence_that_valkey_itself_has_evicted_does_not_stop_the_sweep(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1, "s", "t", "u", "v")
    store.hold([Hold(id_, 1, awake=False) for id_ in "stu"], NOW)
    valkey.client().delete(*(f"{{tidegate}}:sequence:{id_}" for id_ in "stv"))
    assert store.read([Claim("s", TOKEN)], NOW) == [Gone(Reason.UNKNOWN)]
    assert store.evict(1, NOW) == []
    assert store.usage().parked == 2
    assert store.expire(NOW + 100) == Swept(("u",), more=False)
    assert store.expire(NOW + 1_000) == Swept((), more=False)
    assert store.usage().sequences == 0


def sent(store: ValkeyStore, call: Callable[[], object]) -> list[Item]:
    """What a call sends, and carries out."""
    commands: list[Item] = []
    with patch.object(store, "_answers", lambda given: commands.extend(given) or ValkeyStore._answers(store, given)):
        call()
    return commands


def test_what_a_network_held_back_is_not_carried_out_after_a_later_call(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1)
    held_back = [
        *sent(store, lambda: write(store, 2)),
        *sent(store, lambda: store.hold([Hold("s", 1, awake=False)], NOW)),
        *sent(store, lambda: store.claim([Claim("s", TOKEN)], NOW)),
        *sent(store, lambda: store.end([End("t", 1, Reason.ENDED)], NOW)),
    ]
    write(store, 1, "t")
    fence = int(NOW * 1_000)
    store.write([Write("s", fence, 3, b"3")], NOW)
    kept, usage = store.read([Claim("s", TOKEN), Claim("t", TOKEN)], NOW), store.usage()
    late = valkey.client()
    for command in held_back:
        if not {"fences", "read"} & set(command):  # what only looks
            with pytest.raises(ResponseError, match="LATE a later call was carried out already"):
                late.execute_command(*command)
    assert (store.read([Claim("s", TOKEN), Claim("t", TOKEN)], NOW), store.usage()) == (kept, usage)
    assert store.write([Write("s", fence, 4, b"4")], NOW) == []


def test_a_claim_that_a_network_held_back_takes_a_sequence_from_nobody(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1)
    other = ValkeyStore(valkey.url, TERMS)

    def claimed_meanwhile(commands: Sequence[Item]) -> list[Any]:
        if "claim" in commands[0]:
            other.claim([Claim("s", TOKEN)], NOW)
        return ValkeyStore._answers(store, commands)

    with patch.object(store, "_answers", claimed_meanwhile):
        assert store.claim([Claim("s", TOKEN)], NOW) == [Gone(Reason.FENCED, "recall", 1)]
    (owner,) = other.read([Claim("s", TOKEN)], NOW)
    assert isinstance(owner, Claimed)
    assert other.write([Write("s", owner.fence, 2, b"2")], NOW) == []
    other.close()


def test_a_full_memory_stops_nobody_from_holding_expiring_and_evicting(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1, "awake", "silent", "old", "parked")
    store.hold([Hold("old", 1, awake=False)], NOW)
    store.hold([Hold("parked", 1, awake=False)], NOW + 50)
    client = valkey.client()
    client.config_set("maxmemory", 1)
    try:
        assert store.expire(NOW + 100) == Swept(("old",), more=False)
        assert [victim.id for victim in store.evict(1, NOW + 100)] == ["parked"]
        assert store.hold([Hold("awake", 1, awake=True), Hold("unknown", 1, awake=True)], NOW + 600) == [
            Refused("unknown", Reason.UNKNOWN, 0)
        ]
        assert store.expire(NOW + 600) == Swept((), more=False, owners=frozenset({"ann"}))
        assert store.expire(NOW + 600) == Swept((), more=False)
        assert store.usage() == Usage(2, 2, 1)
    finally:
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize("ranked", [False, True])
def test_what_was_written_before_there_were_leases_is_parked_until_its_owner_writes_or_claims_it(
    store: ValkeyStore, valkey: RunningValkey, ranked: bool
) -> None:
    client, at = valkey.client(), "{tidegate}:"
    for id_ in "st":
        entry = {"digest": TOKEN, "owner": "ann", "model": "recall", "fence": 1, "touched": NOW, "steps": 7, "bytes": 1}
        client.hset(f"{at}sequence:{id_}", mapping=entry)
        client.hset(f"{at}checkpoint:{id_}", "7", b"7")
        client.zadd(f"{at}touched", {id_: NOW})
        client.zadd(f"{at}owner:ann", {id_: NOW})
        client.incrby(f"{at}total", 1)
        client.hincrby(f"{at}bytes", "ann", 1)
    if ranked:
        client.zadd(f"{at}parked", {"ann": 2})
        client.set(f"{at}time", repr(NOW))
    assert store.usage() == store.usage("ann") == Usage(2, 2, 2)
    assert store.read([Claim("s", TOKEN)], NOW) == [Claimed(1, "ann", "recall", (b"7",))]
    assert store.write([Write("s", 1, 8, b"8")], NOW + 1) == []
    assert store.usage() == store.usage("ann") == Usage(2, 3, 1)
    assert not client.exists(f"{at}parked")
    for key in ("owners:ann", "addresses"):
        assert client.zrange(at + key, 0, -1, withscores=True) == [(b"ann", 1.0)]
    assert [victim.id for victim in store.evict(5, NOW + 1)] == ["t"]
    assert store.usage() == store.usage("ann") == Usage(1, 2)


def test_a_node_of_a_cluster_without_our_slot_is_refused(tmp_path: Path) -> None:
    message = "is a node of a cluster, and not the one with our keys; expected one primary"
    config = {"cluster-enabled": "yes", "cluster-port": free_port()}  # else 10,000 above the other
    with RunningValkey(tmp_path, config) as running, pytest.raises(StoreFailed, match=message):
        ValkeyStore(running.url, TERMS).usage()


# What was lost, and which failures are definite


@pytest.mark.parametrize("first", ["a write", "a hold", "nothing"])
def test_a_valkey_that_was_emptied_is_seen_at_once_by_each_server(
    store: ValkeyStore, valkey: RunningValkey, first: str
) -> None:
    other = ValkeyStore(valkey.url, TERMS)
    write(store, 1)
    write(other, 1, "t")
    valkey.client().flushall()
    for one in (store, other):
        if first == "a write":
            write(one, 2)
        elif first == "a hold":
            one.hold([Hold("s", 1, awake=True)], NOW)
        assert (one.losses(), one.losses()) == (1, 1)
    write(store, 3)
    assert (store.losses(), other.losses()) == (1, 1)
    other.close()


def test_a_valkey_that_came_back_with_what_it_was_a_while_ago_is_seen_to_have_lost_data(
    store: ValkeyStore, valkey: RunningValkey
) -> None:
    write(store, 1)
    before = valkey.client().get(f"{{tidegate}}:writer:{store._writer}")
    write(store, 2)
    valkey.client().set(f"{{tidegate}}:writer:{store._writer}", before)
    assert store.losses() == 1


def test_a_full_memory_does_not_look_like_data_that_was_lost(store: ValkeyStore, valkey: RunningValkey) -> None:
    write(store, 1)
    client = valkey.client()
    client.config_set("maxmemory", 1)
    try:
        for _ in range(3):
            store.hold([Hold("unknown", 1, awake=True)], NOW)
        assert store.losses() == 0
    finally:
        client.config_set("maxmemory", 0)


def test_what_valkey_refuses_and_what_was_never_sent_fails_definitely_and_a_missing_answer_does_not(
    valkey: RunningValkey,
) -> None:
    store = ValkeyStore(valkey.url, TERMS, patience=2.0)
    client = valkey.client()

    def definite() -> bool:
        with pytest.raises(StoreFailed) as failed:
            write(store, 1, *(f"s{n}" for n in range(300)))
        return failed.value.definite

    client.config_set("maxmemory", 1)
    assert definite()
    client.config_set("maxmemory", 0)
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert definite()
    client.execute_command("REPLICAOF", "NO", "ONE")
    write(store, 1)
    valkey.pause()
    assert not definite()
    valkey.go_on()
    write(store, 1)
    valkey.kill()
    assert [definite() for _ in range(3)] == [False, True, True]
    valkey.start()
    write(store, 2)
    store.close()


def test_a_damaged_sequence_is_set_aside_said_once_and_the_others_expire(
    store: ValkeyStore, valkey: RunningValkey, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ["a", "b", "c", "d", "e"]
    write(store, 1, *ids)
    store.hold([Hold(id_, 1, awake=False) for id_ in ids], NOW)
    client, at = valkey.client(), "{tidegate}:sequence:"
    client.hset(f"{at}a", "touched", "soon")
    client.hdel(f"{at}b", "steps")
    client.delete(f"{at}d")
    client.set(f"{at}d", "a text")
    claims = [Claim(id_, TOKEN) for id_ in ids]
    assert [isinstance(answer, Claimed) for answer in store.read(claims, NOW)] == [False, False, True, False, True]
    swept = [*store.expire(NOW + 50).expired, *store.expire(NOW + 100).expired]
    write(store, 1, "a")
    assert store.expire(NOW + 101) == Swept((), more=False)
    assert swept == ["c", "e"]
    assert (store.usage().sequences, store.usage().parked) == (1, 0)
    assert len(caplog.records) == 3
    assert {key.rpartition(b":")[2] for key in client.scan_iter("{tidegate}:damaged:*")} == {b"a", b"b", b"d"}


def test_what_a_scan_finds_twice_is_given_once() -> None:
    scan = Scan()
    assert [scan.new(found) for found in ([b"a", b"b", b"a"], [b"b", b"c"], [])] == [[b"a", b"b"], [b"c"], []]
