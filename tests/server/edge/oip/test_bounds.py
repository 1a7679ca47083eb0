"""What requests and answers of the Open Inference Protocol take counts for their client until the answer has left."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from server.caller import Caller
from server.edge.fields import Cut, cut
from server.edge.oip import requests
from server.edge.oip.dialect import OipDialect, Visit
from server.edge.oip.inference import Inference
from server.edge.oip.responses import Made
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.errors import BadInput, OverLimit
from server.settings import Settings
from server.streams.allowance import Allowance
from tidegate import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.edge.exchanges.dialect import Whole

CALLER, OTHER = Caller("ipv4:10.0.0.1"), Caller("ipv4:10.0.0.2")
ANSWER = bytes(50_000)
MIB = 2**20


class Fake:
    """An Inference whose answers come when the test says so."""

    def __init__(self) -> None:
        self.sequences = self
        self.waiting = list[Any]()
        self.taken = 0

    def counted(self, _: object, done: Any) -> Any:  # noqa: ANN401 - as it came
        return done

    def expected(self, _: object) -> int:
        return len(ANSWER)

    def reserve(self, _: Caller, size: int) -> Callable[[], None]:
        self.taken += size
        return lambda: self.release(CALLER, size)

    def release(self, _: Caller, size: int) -> None:
        self.taken -= size

    def ask(self, _: Caller, asked: object, _place: object, _user: object, done: Any, *, company: bool) -> object:  # noqa: ANN401, ARG002
        self.waiting.append(done)
        return object()

    def prepared(self, caller: Caller, asked: Any, done: Any) -> object:  # noqa: ANN401, ARG002
        if asked.model != "m":
            done(OverLimit("no"))
            return None
        return object()

    async def predict(self, caller: Caller, asked: object, done: Any) -> int:  # noqa: ANN401, ARG002
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append(answer.set_result)
        left = self.reserve(caller, len(ANSWER))
        try:
            done(await answer)
        except asyncio.CancelledError:
            left()
            raise
        return len(ANSWER)

    def refused(self, caller: Caller, error: object) -> None: ...

    def let_go(self, _: object, __: object, done: Callable[[], None]) -> None:
        done()

    def __len__(self) -> int:
        return 0


class Bench:
    """A stream, and what it emits."""

    def __init__(self, size: int) -> None:
        self.fake, self.sent = Fake(), list["Whole"]()
        writer: Any = SimpleNamespace(answer=lambda *_, **__: ANSWER)
        self.visit = Visit(cast("Any", self.fake), writer, CALLER, Allowance(size), self.sent.append)

    def ask(self, sequence: int = 0, id_: str = "", model: str = "m") -> None:
        message = pb.ModelInferRequest(model_name=model, id=id_)
        if sequence:
            message.parameters["sequence_id"].int64_param = sequence
        OipDialect().take(requests.reader(MIB)(message.SerializeToString()), self.visit, company=False)

    async def answer(self) -> None:
        await asyncio.sleep(0)  # a prediction begins
        made: Any = object.__new__(Made)
        with suppress(asyncio.InvalidStateError):  # it was cancelled
            self.fake.waiting.pop(0)(made)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.mark.parametrize("sequence", [0, 7], ids=["prediction", "sequence"])
async def test_an_answer_counts_from_when_it_is_asked_for_until_it_has_left(sequence: int) -> None:
    bench = Bench(len(ANSWER))
    bench.ask(sequence)
    assert bench.visit.full
    await bench.answer()
    (sent,) = bench.sent
    assert (bench.visit.full, bench.visit.idle, bench.fake.taken) == (True, False, len(ANSWER))
    bench.visit.written(sent.size)
    assert (bench.visit.full, bench.visit.idle, bench.fake.taken) == (False, True, 0)


@pytest.mark.parametrize("sequence", [0, 7], ids=["prediction", "sequence"])
async def test_what_was_not_read_when_its_client_left_counts_no_more(sequence: int) -> None:
    bench = Bench(MIB)
    for _ in range(2):
        bench.ask(sequence)
    await bench.answer()
    bench.visit.abandon()
    await bench.answer()  # of a sequence; a prediction is cancelled
    assert not bench.fake.taken


def test_a_request_that_waits_counts_with_all_of_its_message() -> None:
    bench = Bench(MIB)
    bench.ask(7, "i" * 900_000)
    assert not bench.visit.full
    bench.ask(7, "i" * 100_000)
    assert bench.visit.full


def test_large_answers_of_sequences_that_an_address_does_not_read_are_bounded_and_leave_others_theirs() -> None:
    settings = Settings(address_mib=8.0)
    backend: Any = SimpleNamespace(settings=settings, keeper=None, repository=None)
    backend.turns = SimpleNamespace(line=lambda: None)
    inference = Inference(backend)
    held = [inference.reserve(CALLER, 4 * MIB) for _ in range(2)]
    with pytest.raises(OverLimit, match="8 MiB of answers from your address were not read yet, and 8 MiB is the limit"):
        inference.reserve(CALLER, MIB)
    inference.reserve(CALLER, 1_000)
    inference.reserve(OTHER, 4 * MIB)
    held[0]()
    inference.reserve(CALLER, 4 * MIB)


def test_numbers_that_lie_on_the_wire_as_in_memory_are_taken_as_they_lie() -> None:
    for kind, field, dtype in (
        ("FP64", "fp64_contents", "<f8"),
        ("FP32", "fp32_contents", "<f4"),
        ("BOOL", "bool_contents", "?"),
    ):
        values = (np.arange(6) % 2).astype(dtype).reshape(2, 3)
        message = pb.ModelInferRequest()
        tensor = message.inputs.add(name="x", datatype=kind, shape=values.shape)
        getattr(tensor.contents, field).extend(values.ravel().tolist())
        tensor.contents.MergeFromString(b"\xf8\x7f\x01")  # a field that nobody knows
        ((name, x),) = requests.asked(cut(pb.ModelInferRequest, message.SerializeToString())).inputs
        assert (name, x.dtype, x.base is not None) == ("x", values.dtype, True)
        np.testing.assert_array_equal(x, values)


async def test_predictions_that_are_refused_take_no_turn_of_the_event_loop_of_their_own() -> None:
    """Or all those that one turn took would be refused together in the next."""
    bench = Bench(MIB)
    for _ in range(100):
        bench.ask(model="unknown")
    assert len(bench.sent) == 100
    assert not bench.visit._predictions


def _typed(kind: str, field: str, values: np.ndarray) -> bytes:
    message = pb.ModelInferRequest()
    tensor = message.inputs.add(name="x", datatype=kind, shape=values.shape)
    getattr(tensor.contents, field).extend(values.ravel().tolist())
    tensor.contents.MergeFromString(b"\xf8\x7f\x01")  # a field that nobody knows
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *((f"INT{bits}", "int_contents") for bits in (8, 16, 32)),
        *((f"UINT{bits}", "uint_contents") for bits in (8, 16, 32)),
        ("INT64", "int64_contents"),
        ("UINT64", "uint64_contents"),
    ],
)
def test_whole_numbers_come_as_they_were_and_those_that_do_not_fit_are_named(kind: str, field: str) -> None:
    dtype = requests.TYPES[kind]
    bounds = np.iinfo(dtype)
    values = np.array([[0, 1, 127, 100], [bounds.max, bounds.max - 1, bounds.min, bounds.min // 2]], dtype)
    for some in (values, values[:, :0]):
        ((_, x),) = requests.asked(cut(pb.ModelInferRequest, _typed(kind, field, some))).inputs
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, some)
    if dtype.itemsize < 4:
        for odd in (bounds.max + 1, *([bounds.min - 1] if bounds.min else [])):
            with pytest.raises(BadInput, match=f"'x' is {kind} and holds {odd}; {bounds.min} to {bounds.max} fit"):
                requests.asked(cut(pb.ModelInferRequest, _typed(kind, field, np.array([1, odd, 2]))))


def test_whole_numbers_of_a_typed_content_are_taken_without_making_an_object_of_each() -> None:
    """Which would take longer than all else."""

    def quickest(call: Callable[[], object]) -> float:
        began = [(time.process_time(), call(), time.process_time()) for _ in range(5)]
        return min(end - start for start, _, end in began)

    message = cut(pb.ModelInferRequest, _typed("INT64", "int64_contents", np.arange(120_000) % 100))
    values = message.message.inputs[0].contents.int64_contents
    assert quickest(lambda: requests.asked(message)) < quickest(lambda: np.array(values))


def test_a_million_numbers_in_a_typed_content_are_read() -> None:
    values = np.arange(1_000_000, dtype=np.float32)
    ((_, x),) = requests.asked(cut(pb.ModelInferRequest, _typed("FP32", "fp32_contents", values))).inputs
    np.testing.assert_array_equal(x, values)


class _Unread(list[Any]):
    """A list that is not to be looked through."""

    def __iter__(self) -> Any:  # noqa: ANN401 # a fake's
        raise AssertionError

    def __len__(self) -> int:
        return 100_000


def test_contents_and_axes_are_counted_before_they_are_looked_at() -> None:
    request = cast("Any", SimpleNamespace(inputs=[1], raw_input_contents=_Unread()))
    with pytest.raises(BadInput, match="100000 raw contents came for 1 inputs"):
        requests.asked(Cut(request, {}))
    with pytest.raises(wire.WireError, match="has 100000 axes"):
        wire.decode(cast("Any", SimpleNamespace(name="x", type=1, shape=_Unread())))
