"""The client of the Open Inference Protocol of a hold, at a server that is killed."""

from __future__ import annotations

import asyncio
import random
import shutil
from typing import TYPE_CHECKING

import numpy as np

from bench.processes.child import free_port
from server.edge.oip.stubs import grpc_service_pb2 as pb
from tests.hold import inferring
from tests.hold.cluster import OFTEN
from tests.hold.inferring import Followed, Inferring
from tests.hold.tally import Tally
from tests.running_server import RunningServer
from tests.server.world import SOURCE, versions
from tests.shelf import MODEL
from tests.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from stepgraph.model import LoadedModel

DONE, ASKED = "sequences of the Open Inference Protocol", "requests of the Open Inference Protocol"


class Told(Tally):
    """Has its news waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def count(self, kind: str) -> None:
        super().count(kind)
        self._news.set()

    async def more(self, kind: str, than: int) -> None:
        while self.kinds.get(kind, 0) <= than:
            self._news.clear()
            await self._news.wait()


async def test_its_sequences_go_on_after_a_kill_and_a_wrong_answer_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inferring, "PACE", (0.0, 0.005))
    loaded, port = versions(tmp_path), str(free_port())
    for version, file in ((1, SOURCE), (2, tmp_path / "other.onnx")):
        (tmp_path / "models" / MODEL / str(version)).mkdir(parents=True)
        shutil.copy(file, tmp_path / "models" / MODEL / str(version) / "model.onnx")
    given = ["--port", port, "--store", f"sqlite:{tmp_path / 'kept.sqlite'}", "--keep-versions", "2", *OFTEN[:-2]]
    tally = Told()
    with RunningServer(tmp_path / "models", *given) as first:
        await asyncio.to_thread(first.ready)
        client = Inferring(loaded, lambda: f"127.0.0.1:{port}", random.Random(5), tally)  # noqa: S311 - no secret
        running = asyncio.create_task(client.run())
        await tally.more(ASKED, 20)
        first.process.kill()
    with RunningServer(tmp_path / "models", *given) as second:
        await asyncio.to_thread(second.ready)
        await tally.more(DONE, tally.kinds.get(DONE, 0) + 1)
        assert tally.faults == []
        monkeypatch.setattr(inferring, "Truth", wrong)
        await tally.more(DONE, tally.kinds[DONE] + 2)
    running.cancel()
    assert tally.changed > 0


def test_time_in_which_no_server_answers_is_no_proof_that_a_sequence_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(inferring.time, "monotonic", lambda: now)
    one = Followed("a", 1, np.zeros((3, 3), np.float32), [b"", b"", b""])
    answer = pb.ModelInferResponse(raw_output_contents=[b""])
    one.take(answer)
    now += 60
    assert not one.written
    one.take(answer)
    assert one.written
    one.begin_anew()
    assert (one.at, one.written) == (0, False)


def wrong(loaded: Mapping[int, LoadedModel], version: int) -> Truth:
    """What another state would answer."""
    made = Truth(loaded, version)
    made.states[0] = made.states[0] + 1
    return made
