"""A client of the Open Inference Protocol that counts its steps, and whose answers are all compared."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from server.edge.oip.stubs import grpc_service_pb2 as pb
from tests.shelf import MODEL
from tests.truth import Truth

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from stepgraph.model import LoadedModel
    from tests.hold.tally import Tally

FEATURES = 3
LONG = 150  # steps of a sequence at most
PACE = (0.02, 0.2)  # seconds between two requests
AGAIN = 0.1  # seconds after a request that was not answered
PATIENCE = 5.0  # seconds for an answer
WRITTEN = 10.0  # seconds in which a sequence was answered: after that the store has long known it
LOST = 240.0  # seconds without an answer, after which a sequence counts as lost
FOR_NOW = {"", "DRAINING", "CHECKPOINT_GONE", "TAKEN_OVER", "STORE_UNAVAILABLE", "MODEL_NOT_READY", "TOO_MANY_STREAMS",
           "TOO_MANY_SEQUENCES", "TOO_MANY_OF_OWNER", "SEQUENCE_RUNNING"}  # fmt: skip


class Inferring:
    """One sequence after the other, at any server. `address` says where one is now."""

    def __init__(
        self, loaded: Mapping[int, LoadedModel], address: Callable[[], str], chance: random.Random, tally: Tally
    ) -> None:
        self._loaded, self._address, self._chance, self._tally = loaded, address, chance, tally

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._sequence()
            self._tally.count("sequences of the Open Inference Protocol")

    async def _sequence(self) -> None:
        version, count = self._chance.choice((1, 2)), self._chance.randint(1, LONG)
        truth = Truth(self._loaded, version)
        rows = np.array([[self._chance.gauss(0, 1) for _ in range(FEATURES)] for _ in range(count)], np.float32)
        for row in rows:
            truth.take(row)
        one = Followed(f"hold-{self._chance.getrandbits(64):x}", version, rows, truth.outputs)
        while one.at < count:
            try:
                async with grpc.aio.insecure_channel(self._address()) as channel:
                    await self._follow(one, channel)
            except grpc.aio.AioRpcError as error:
                if not self._goes_on(one, error):
                    return
                await asyncio.sleep(AGAIN)

    async def _follow(self, one: Followed, channel: grpc.aio.Channel) -> None:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        while one.at < len(one.rows):
            answer = await infer(one.request(self._chance.choice((1, 1, 1, 7))), timeout=PATIENCE)
            if not one.take(answer):
                self._tally.fault(f"{one.id}: the answer to step {one.at} differs, by the Open Inference Protocol")
            self._tally.count("requests of the Open Inference Protocol")
            await asyncio.sleep(self._chance.uniform(*PACE))

    def _goes_on(self, one: Followed, error: grpc.aio.AioRpcError) -> bool:
        """Whether the sequence does, after a refusal or a loss; what must not be is a fault."""
        reason, said = reason_of(error), error.details() or ""
        if (told := re.search(r"the sequence takes step (\d+) next", said)) is not None:
            one.at = int(told[1])
        elif reason == "UNKNOWN_SEQUENCE" and not one.written:
            one.begin_anew()
        elif reason == "SEQUENCE_ENDED" and one.ending:
            return False  # the answer to its last request was lost
        elif reason not in FOR_NOW or one.lost:
            self._tally.fault(f"{one.id} is lost at step {one.at}, by the Open Inference Protocol: {reason} {said}")
            return False
        return True


class Followed:
    """One sequence as its client knows it."""

    def __init__(self, id_: str, version: int, rows: np.ndarray, outputs: list[bytes]) -> None:
        self.id, self.rows = id_, rows
        self.at = 0  # the step of the next request
        self.ending = False  # it was asked to end
        self._version, self._outputs = version, outputs
        self._count = 1  # steps of the request that was sent last
        self._first = 0.0  # when its first answer came
        self._last = time.monotonic()  # when it had an answer last

    @property
    def written(self) -> bool:
        """Whether the store must know it: time in which no server answered proves nothing."""
        return self._first > 0 and self._last - self._first > WRITTEN

    @property
    def lost(self) -> bool:
        """Whether it had no answer for too long."""
        return time.monotonic() - self._last > LOST

    def begin_anew(self) -> None:
        """Its server was killed before it was written."""
        self.at, self._first = 0, 0.0

    def request(self, count: int) -> pb.ModelInferRequest:
        """Its next steps."""
        rows = self.rows[self.at : self.at + count]
        self._count = len(rows)
        self.ending = self.at + len(rows) == len(self.rows)
        made = pb.ModelInferRequest(
            model_name=MODEL, model_version=str(self._version), raw_input_contents=[rows.tobytes()]
        )
        made.inputs.add(name="x", datatype="FP32", shape=[1, *rows.shape])
        made.parameters["sequence_id"].string_param = self.id
        made.parameters["sequence_step"].int64_param = self.at
        made.parameters["sequence_start"].bool_param = not self.at
        made.parameters["sequence_restart"].bool_param = not self.at  # the answer to the first start may be lost
        made.parameters["sequence_end"].bool_param = self.ending
        return made

    def take(self, answer: pb.ModelInferResponse) -> bool:
        """Takes up an answer; whether it is the right one."""
        right = b"".join(self._outputs[self.at : self.at + self._count])
        same = answer.raw_output_contents[0] == right and answer.parameters["sequence_step"].int64_param == self.at
        self.at += self._count
        self._last = time.monotonic()
        self._first = self._first or self._last
        return same


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in a status; "" if the server gave none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
