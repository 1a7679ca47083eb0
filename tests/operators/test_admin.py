"""What operators do while a server serves: list and end sequences, look after the store, change versions."""

from __future__ import annotations

import asyncio
import shutil
import stat
from itertools import repeat
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

import tidegate
from tests.end_to_end.test_life import add
from tests.torch_models import Spec
from tests.valkey_server import RunningValkey
from tidegate.admin import chosen
from tidegate.admin.calls import BadBackup
from tidegate.v1.admin_pb2 import EndSequencesRequest
from tidegate.v1.admin_pb2 import SequenceFilter as Wanted
from tidegate.v1.admin_pb2_grpc import AdminStub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running_server import RunningServer

ROWS = np.random.default_rng(8).standard_normal((60, 3), dtype=np.float32)


def parked(address: str, owner: str, rows: int, model: str = "lstm") -> tuple[str, str, list[bytes]]:
    """A sequence that took some steps and was left: its id, its token, its answers."""
    with tidegate.connect(address, owner=owner) as client:
        sequence = client.sequence(model, trace=False)
        answers = [sequence.step(row).output.tobytes() for row in ROWS[:rows]]
    with tidegate.connect(address) as client:
        while [one.life for one in client.admin.sequences(chosen([sequence.id]))] != ["parked"]:
            pass  # until the server has seen that its stream has ended
    return sequence.id, sequence.resume_token, answers


def the_rest(address: str, id_: str, token: str, answered: int, version: int = 1) -> list[bytes]:
    with (
        tidegate.connect(address) as client,
        client.resume(id_, token, answered=answered, inputs=lambda n: ROWS[n:answered], trace=False) as sequence,
    ):
        assert sequence.version == version
        return [sequence.step(row).output.tobytes() for row in ROWS[answered:]]


def test_sequences_are_listed_by_what_is_asked_for_and_secrets_are_not_shown(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only).ready()
    id_, token, _ = parked(server.address, "left", 7)
    with tidegate.connect(server.address, owner="here") as client:
        fleet = client.fleet("lstm", 3, trace=False)
        fleet.step(np.zeros((3, 3), np.float32))
        found = {one.id: one for one in client.admin.sequences()}
        assert len(found) == 4
        one = found.pop(id_)
        assert (one.model, one.version, one.steps, one.life, one.owner) == ("lstm", 1, 7, "parked", "left")
        assert (one.checkpointed, one.here, one.moves_to, one.stranded) == (7, False, 0, False)
        assert one.address.startswith("ipv4:127.0.0.1")
        assert one.checkpoint_bytes > 0
        assert token not in repr(one)
        assert {(each.life, each.steps, each.here, each.owner) for each in found.values()} == {
            ("open", 1, True, "here")
        }
        listed = lambda **by: sorted(each.id for each in client.admin.sequences(chosen(**by)))  # noqa: E731
        assert listed(life=["parked"]) == listed(owner="left") == listed(ids=[id_]) == [id_]
        assert listed(life=["open"], model="lstm", version=1) == sorted(found)
        nobody = {"model": "gru"}, {"version": 2}, {"idle_seconds": 3_600.0}, {"ids": ["none"]}, {"stranded": True}
        assert [listed(**by) for by in nobody] == [[]] * 5
        fleet.close()


def test_an_ended_sequence_is_told_to_its_client_and_a_parked_one_is_gone_for_a_reason(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only).ready()
    id_, token, _ = parked(server.address, "left", 3)
    with tidegate.connect(server.address) as client, tidegate.connect(server.address) as operator:
        ended, other = client.sequence("lstm", trace=False), client.sequence("lstm", trace=False)
        ended.step(ROWS[0])
        with pytest.raises(tidegate.Refused, match="would end every sequence"):
            list(operator.admin.end(chosen()))
        assert list(operator.admin.end(chosen(["none"]))) == []
        assert sorted(operator.admin.end(chosen([ended.id, id_]))) == sorted([ended.id, id_])
        with pytest.raises(tidegate.SequenceLost, match="was ended by who runs the server") as lost:
            ended.step(ROWS[1])
        assert lost.value.reason == "SEQUENCE_ENDED"
        other.step(ROWS[0])
        with pytest.raises(tidegate.SequenceLost, match="was ended by who runs the server"):
            client.resume(id_, token, answered=3)
        assert [one.id for one in operator.admin.sequences()] == [other.id]


UNKNOWN_FIELD = b"\xba\x3e\x03abc"  # number 999, as a newer client may have it


ODD = Wanted(), Wanted(lives=[0]), Wanted(lives=[99]), Wanted(lives=[1, 99]), Wanted(idle_seconds=-1)
NO_TIME = Wanted(idle_seconds=float("nan"))


@pytest.mark.parametrize("given", [UNKNOWN_FIELD, *(one.SerializeToString() for one in (*ODD, NO_TIME))])
def test_a_filter_that_this_server_does_not_understand_ends_nothing(server: RunningServer, given: bytes) -> None:
    asked = EndSequencesRequest(filter=Wanted.FromString(given))
    with tidegate.connect(server.address) as client, client.sequence("lstm", trace=False) as sequence:
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
            list(AdminStub(channel).EndSequences(asked))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        sequence.step(ROWS[0])


def test_without_a_store_what_is_open_is_listed_and_ended(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    server = start(lstm_only, "--store", "none").ready()
    with tidegate.connect(server.address) as client:
        sequence, other = client.sequence("lstm", trace=False), client.sequence("lstm", trace=False)
        assert len(list(client.admin.sequences())) == 2
        assert client.admin.store().kind == "none"
        assert list(client.admin.end(chosen([sequence.id]))) == [sequence.id]
        with pytest.raises(tidegate.SequenceLost, match="was ended by who runs the server"):
            sequence.step(ROWS[0])
        other.step(ROWS[0])
        with pytest.raises(tidegate.Refused, match="keeps no checkpoints"):
            client.admin.check()


async def test_the_client_for_asyncio_has_the_same_calls(server: RunningServer) -> None:
    async with (
        tidegate.AsyncClient(server.address) as client,
        client.sequence("lstm", trace=False) as sequence,
    ):
        await sequence.step(ROWS[0])
        found = [one async for one in client.admin.sequences(chosen([sequence.id]))]
        assert [one.id for one in found] == [sequence.id]
        assert (await client.admin.store()).answers
        assert [version.version for version in (await client.admin.versions("lstm")).versions] == [1]


@pytest.mark.parametrize("kinds", ["sqlite to valkey", "valkey to sqlite"])
def test_a_backup_of_a_running_server_goes_into_another_kind_of_store_and_clients_resume_there_bit_for_bit(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, valkey: RunningValkey, kinds: str
) -> None:
    valkey.client().flushall()
    stores = [f"sqlite:{tmp_path / 'store.sqlite'}", valkey.url]
    source, target = stores if kinds.startswith("sqlite") else reversed(stores)
    first = start(lstm_only, "--store", source).ready()
    with tidegate.connect(first.address) as client, client.sequence("lstm", trace=False) as sequence:
        expected = [sequence.step(row).output.tobytes() for row in ROWS]
    left = [parked(first.address, "left", 10 + n) for n in range(3)]
    with tidegate.connect(first.address) as client:
        still = client.sequence("lstm", trace=False)
        heard = [still.step(row).output.tobytes() for row in ROWS[:20]]
        assert client.admin.back_up(tmp_path / "backup") == (tmp_path / "backup").stat().st_size
        assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600  # it holds states
        second = start(lstm_only, "--store", target).ready()
        with tidegate.connect(second.address) as other:
            restored = other.admin.restore(tmp_path / "backup")
            assert restored.restored >= 4  # and perhaps that the first was closed
            assert restored.kept == restored.gone == 0
            check = other.admin.check()
            assert (check.sequences, check.parked, check.faults) == (4, 4, ())
            assert check.versions == {("lstm", 1): 4}
            for id_, token, answers in left:
                assert answers + the_rest(second.address, id_, token, len(answers)) == expected
            assert heard + the_rest(second.address, still.id, still.resume_token, 20) == expected
            again = other.admin.restore(tmp_path / "backup")
            assert again.restored == again.kept == 0  # all were closed since


def test_a_damaged_backup_changes_nothing(start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path) -> None:
    server = start(lstm_only).ready()
    parked(server.address, "left", 3)
    with tidegate.connect(server.address) as client:
        client.admin.back_up(tmp_path / "whole")
        list(client.admin.end(chosen(owner="left")))
        whole = (tmp_path / "whole").read_bytes()
        for damaged in (whole[:-5], whole[:20] + b"x" + whole[21:], b"", b"no backup at all"):
            (tmp_path / "damaged").write_bytes(damaged)
            with pytest.raises(BadBackup, match="is no backup of a store"):
                client.admin.restore(tmp_path / "damaged")
        assert not list(client.admin.sequences())


def test_a_rollback_keeps_the_memory_of_open_and_parked_sequences(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05", "--store", f"sqlite:{tmp_path / 'store'}").ready()
    add(Spec(hidden=8, layers=2, seed=50), lstm_only, "lstm", 2)
    server.line("serving lstm version 2")
    id_, token, _ = parked(server.address, "left", 10)
    with tidegate.connect(server.address) as client, client.sequence("lstm", trace=False) as open_:
        for row in ROWS[:10]:
            open_.step(row)
        assert open_.version == 2
        fleet = client.fleet("lstm", 3, state=open_.state(), trace=False)
        fleet.step(np.stack([ROWS[10]] * 3))
        state = open_.state()
        versions = client.admin.move("lstm", 2, 1)
        assert versions.moves == {2: 1}
        server.line("open sequences of lstm version 2 are to be resumed")
        with client.sequence("lstm", state=state, trace=False) as truth:
            assert truth.version == 1
            expected = [truth.step(row).output.tobytes() for row in ROWS[10:]]
        assert [open_.step(row).output.tobytes() for row in ROWS[10:]] == expected
        assert open_.version == 1
        after = fleet.step(np.stack([ROWS[11]] * 3)).output[1].tobytes()
        assert (fleet.version, after == expected[1]) == (1, False)  # one step of it was taken with version 2
        fleet.close()
        (listed,) = client.admin.sequences(chosen([id_]))
        assert (listed.version, listed.moves_to, listed.stranded) == (2, 1, False)
        shutil.rmtree(lstm_only / "lstm" / "2")
        assert the_rest(server.address, id_, token, 10, version=1) == expected


async def test_of_a_deleted_version_that_open_sequences_keep_in_memory_the_log_says_how_long_it_can_be_resumed(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    add(Spec(hidden=8, layers=2, seed=50), lstm_only, "lstm", 2)
    await asyncio.to_thread(server.line, "serving lstm version 2")
    id_, token, _ = await asyncio.to_thread(parked, server.address, "left", 4)
    async with tidegate.AsyncClient(server.address) as client:
        sequence = await client.sequence("lstm", trace=False)
        await sequence.step(ROWS[0])
        shutil.rmtree(lstm_only / "lstm" / "2")
        await asyncio.to_thread(server.line, "lstm version 2 is gone.*: 2. They go on as long as this server has it in")
        again = await client.resume(id_, token, answered=4, trace=False)
        await again.step(ROWS[4])
        await again.close()
    await asyncio.to_thread(server.line, "lstm version 2 is gone.*: 1. They cannot be resumed until it is put back")


async def test_a_deleted_folder_strands_nobody_without_saying_so(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    add(Spec(hidden=8, layers=2, seed=50), lstm_only, "lstm", 2)
    await asyncio.to_thread(server.line, "serving lstm version 2")
    id_, token, _ = await asyncio.to_thread(parked, server.address, "left", 4)
    shutil.rmtree(lstm_only / "lstm" / "2")
    await asyncio.to_thread(server.line, "lstm version 2 is gone, and is needed by sequences: 1. They cannot be")
    async with tidegate.AsyncClient(server.address) as client:
        stranded = [one async for one in client.admin.sequences(chosen(stranded=True))]
        assert [one.id for one in stranded] == [id_]
        check = await client.admin.check()
        assert check.stranded == {("lstm", 2)}
        await client.admin.move("lstm", 2, 1)
        assert not [one async for one in client.admin.sequences(chosen(stranded=True))]
    assert len(await asyncio.to_thread(the_rest, server.address, id_, token, 4)) == len(ROWS) - 4


def test_a_sequence_that_is_open_at_another_server_is_ended_there_with_what_that_one_writes_next(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path
) -> None:
    store = f"sqlite:{tmp_path / 'store'}"
    here, there = (start(lstm_only, "--store", store).ready() for _ in range(2))
    with tidegate.connect(there.address) as client, tidegate.connect(here.address) as operator:
        sequence = client.sequence("lstm", trace=False)
        sequence.step(ROWS[0])
        while not [one for one in operator.admin.sequences(chosen(life=["open"])) if not one.here]:
            sequence.step(ROWS[0])  # until it is in the store
        assert list(operator.admin.end(chosen([sequence.id]))) == [sequence.id]
        with pytest.raises(tidegate.SequenceLost, match="was ended by who runs the server"):
            list(sequence.stream(repeat(ROWS[0]), window=1))
