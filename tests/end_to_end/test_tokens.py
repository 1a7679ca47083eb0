# ruff: noqa: ANN401 - a response is one of many messages; the tests look which
"""A server with tokens on the wire: who may do what, whose a sequence is, and what a token may use."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

import tidegate
from bench.processes.child import free_port
from server.access import token_secret
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import Right
from server.meter import Limits
from tests.raw_stream import NO_TRACE, RawStream, bits, open_, reason, steps
from tests.running_server import RunningServer
from tests.zoo import repository
from tidegate import wire
from tidegate.v1 import sequence_pb2 as pb
from tidegate.v1 import tidegate_pb2, tidegate_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.zoo import Zoo

ROWS = np.random.default_rng(5).standard_normal((40, 1, 3)).astype(np.float32)
NAMES = "ann", "bob", "slow", "hasty", "hurried", "small", "narrow", "watcher", "gru"
SECRETS = {name: token_secret.make() for name in NAMES}
LIMITS = {
    **dict.fromkeys(("slow", "hasty", "hurried"), Limits(steps_per_second=50)),
    "small": Limits(message_bytes=4_000),
    "narrow": Limits(open=2),
}
PREDICT = frozenset({Right.PREDICT})


def token(name: str, **given: Any) -> Token:
    rights = frozenset({Right.OBSERVE}) if name == "watcher" else PREDICT
    models = ("gru*",) if name == "gru" else ("*",)
    limits = LIMITS.get(name, Limits())
    return replace(Token(name, rights, models, (token_secret.digest(SECRETS[name]),), limits=limits), **given)


def file_of(path: Path, *names: str) -> TokenFile:
    file = TokenFile(path)
    with file.change() as tokens:
        tokens |= {name: token(name) for name in names}
    return file


@pytest.fixture(scope="module")
def metrics() -> int:
    return free_port()


@pytest.fixture(scope="module")
def guarded(zoo: Zoo, metrics: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that knows the tokens, and says all that it can say in its log."""
    folder = tmp_path_factory.mktemp("tokens")
    models, file = repository(zoo, folder, "lstm", "gru", "gru-1-batch-every"), file_of(folder / "tokens.json", *NAMES)
    given = "--tokens", str(file.path), "--log-level", "debug", "--metrics-port", str(metrics)
    with RunningServer(models, *given, environment={"GRPC_VERBOSITY": "debug"}) as running:
        yield running.ready()


def shows(name: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {SECRETS[name]}")]


def stream(server: RunningServer, name: str) -> RawStream:
    return RawStream(server.address, metadata=shows(name))


@asynccontextmanager
async def stub(server: RunningServer) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield tidegate_pb2_grpc.TidegateStub(channel)


def refusal(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    info, status = ErrorInfo(), rpc_status.from_call(caught.value)
    assert status is not None
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason


def wait_of(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> float:
    info, status = RetryInfo(), rpc_status.from_call(caught.value)
    assert status is not None
    assert status.details[1].Unpack(info)
    return info.retry_delay.ToTimedelta().total_seconds()


def prediction(model: str, rows: int = 1) -> tidegate_pb2.PredictRequest:
    inputs = [wire.encode("", np.zeros((rows, 3), np.float32))]
    return tidegate_pb2.PredictRequest(model=model, inputs=inputs, trace=NO_TRACE)


def resume(opened: Any, answered: int, **fields: Any) -> pb.StreamRequest:
    ids, secret_ = opened.sequence_ids, opened.resume_token
    return pb.StreamRequest(resume=pb.Resume(sequence_ids=ids, resume_token=secret_, answered=[answered], **fields))


# Who may do what ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "Bearer " + token_secret.make())],
        [("authorization", SECRETS["ann"])],
        [("authorization", "Basic " + SECRETS["ann"])],
        [("authorization", "Bearer mill")],
        [("authorization", "Bearer " + SECRETS["ann"][:-1])],
    ],
)
async def test_without_a_token_no_call_is_answered_but_those_of_health(
    guarded: RunningServer, metadata: list[tuple[str, str]]
) -> None:
    said = list[tuple[grpc.StatusCode, str]]()
    async with stub(guarded) as calls, RawStream(guarded.address, metadata=metadata) as raw:
        asked = [
            calls.ListModels(tidegate_pb2.ListModelsRequest(), metadata=metadata),
            calls.DescribeModel(tidegate_pb2.DescribeModelRequest(model="lstm"), metadata=metadata),
            calls.Predict(prediction("lstm"), metadata=metadata),
            raw.hear(),
        ]
        for call in asked:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            said.append(refusal(refused))
    assert set(said) == {(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")}
    async with grpc.aio.insecure_channel(guarded.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        status = (await health.Check(health_pb2.HealthCheckRequest(), metadata=metadata)).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError, match="token"):
            await reflect(metadata=metadata).read()  # nothing is written, so it is told why
        answer = await reflect(iter([question]), metadata=shows("watcher")).read()
        assert answer.list_services_response.service


async def test_a_client_without_a_token_hears_why_whenever_its_call_ends(guarded: RunningServer) -> None:
    for _ in range(30):  # gRPC itself often says only that it could not write
        async with tidegate.AsyncClient(guarded.address, timeout=240) as client:
            with pytest.raises(tidegate.AccessDenied, match="asks for a token"):
                await client.sequence("lstm")


async def test_a_model_that_a_token_may_not_use_is_as_one_that_is_not_there(guarded: RunningServer) -> None:
    said = list[tuple[Any, str]]()
    async with stub(guarded) as calls, stream(guarded, "gru") as raw:
        listed = await calls.ListModels(tidegate_pb2.ListModelsRequest(), metadata=shows("gru"))
        every = await calls.ListModels(tidegate_pb2.ListModelsRequest(), metadata=shows("ann"))
        assert {model.name for model in listed.models} == {m.name for m in every.models if m.name.startswith("gru")}
        for name in ("lstm", "nothing"):
            for call in (
                calls.DescribeModel(tidegate_pb2.DescribeModelRequest(model=name), metadata=shows("gru")),
                calls.Predict(prediction(name), metadata=shows("gru")),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                said.append(refusal(refused))
            said.append((grpc.StatusCode.PERMISSION_DENIED, reason(await raw.ask(open_(0, name)))))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await calls.DescribeModel(tidegate_pb2.DescribeModelRequest(model="gru-none"), metadata=shows("gru"))
        assert refusal(refused) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
        assert "lstm" not in refused.value.details()
    assert set(said) == {(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")}


async def test_who_may_observe_sees_the_models_and_takes_no_step(guarded: RunningServer) -> None:
    async with stub(guarded) as calls, stream(guarded, "watcher") as raw:
        assert (await calls.ListModels(tidegate_pb2.ListModelsRequest(), metadata=shows("watcher"))).models
        for call in (calls.Predict(prediction("lstm"), metadata=shows("watcher")), raw.hear()):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refusal(refused) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_no_secret_is_in_the_log_the_metrics_or_the_list_of_processes(
    guarded: RunningServer, metrics: int
) -> None:
    wrong = token_secret.make()
    async with stub(guarded) as calls, stream(guarded, "ann") as raw:
        opened = await raw.ask(open_(0, trace=NO_TRACE))
        await raw.ask(resume(opened, 99, handle=5))
        for shown in (shows("ann"), [("authorization", f"Bearer {wrong}")]):
            with pytest.raises(grpc.aio.AioRpcError):
                await calls.Predict(prediction("nothing"), metadata=shown)
    guarded.line("what is no token here came from")  # which its reader may not have read yet
    with urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=120) as page:  # noqa: ASYNC210
        shown = page.read().decode()
    process = Path(f"/proc/{guarded.process.pid}")
    for name in ("cmdline", "environ"):
        shown += (process / name).read_bytes().decode(errors="replace")
    shown += guarded.log
    hidden = [wrong, opened.resume_token, *SECRETS.values()]
    assert not any(text in shown for text in (*hidden, *map(token_secret.digest, hidden)))


# Whose a sequence is --------------------------------------------------------------------------------------------------


async def test_neither_id_nor_resume_token_lets_another_token_into_a_sequence(guarded: RunningServer) -> None:
    async with stream(guarded, "ann") as ann, stream(guarded, "bob") as bob:
        opened = await ann.ask(open_(0, trace=NO_TRACE, owner="bob"))
        expected = await ann.run(0, 0, ROWS[:2])
        for _ in range(2):
            assert reason(await bob.ask(resume(opened, 1, handle=3))) == "WRONG_TOKEN"
        forged = resume(opened, 1, handle=3)  # what is hashed for a token, as the resume token of one without
        forged.resume.resume_token += "\0ann"
        assert reason(await bob.ask(forged)) == "WRONG_TOKEN"
        for request in (
            steps(0, 2, ROWS[2]),
            pb.StreamRequest(rewind=pb.Rewind(handle=0, step=0)),
            pb.StreamRequest(read_state=pb.ReadState(handle=0)),
            pb.StreamRequest(close=pb.Close(handle=0)),
        ):
            assert reason(await bob.ask(request)) == "UNKNOWN_HANDLE"
        assert len(await ann.run(0, 2, ROWS[2:3])) == 1
        async with stream(guarded, "ann") as again:
            resumed = await again.ask(resume(opened, 0, trace=NO_TRACE))
            assert list(resumed.next_steps) == [0]
            assert await again.run(0, 0, ROWS[:2]) == expected


@pytest.mark.parametrize("store", ["sqlite"])
async def test_a_sequence_belongs_to_its_token_across_restarts_and_one_without_a_token_to_who_can_resume_it(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path, store: str
) -> None:
    tokens = file_of(tmp_path / "tokens.json", "ann", "bob").path
    given = "--store", f"{store}:{tmp_path / 'kept.db'}"
    before = start(lstm_only, *given).ready()
    async with RawStream(before.address) as raw:
        public = await raw.ask(open_(0, trace=NO_TRACE))
        await raw.run(0, 0, ROWS[:3])
    before.terminate()
    before.wait()
    with_tokens = start(lstm_only, *given, "--tokens", str(tokens)).ready()
    async with stream(with_tokens, "ann") as ann:
        hers = await ann.ask(open_(0, trace=NO_TRACE))
        expected = await ann.run(0, 0, ROWS[:4])
        assert list((await ann.ask(resume(public, 3, handle=7))).next_steps) == [3]
    with_tokens.terminate()
    with_tokens.wait()
    after = start(lstm_only, *given, "--tokens", str(tokens)).ready()
    async with stream(after, "bob") as bob, stream(after, "ann") as ann:
        assert reason(await bob.ask(resume(hers, 4))) == "WRONG_TOKEN"
        step = next(iter((await ann.ask(resume(hers, 3, trace=NO_TRACE))).next_steps))
        assert await ann.run(0, step, ROWS[step:4]) == expected[step:]
    after.terminate()
    after.wait()
    without = start(lstm_only, *given).ready()
    async with RawStream(without.address) as raw:
        assert reason(await raw.ask(resume(hers, 4))) == "WRONG_TOKEN"
        assert list((await raw.ask(resume(public, 3))).next_steps) == [3]


async def test_streams_of_a_token_that_is_removed_end_and_its_sequences_go_on_when_it_is_back(
    start: Callable[..., RunningServer], lstm_only: Path, tmp_path: Path
) -> None:
    file = file_of(tmp_path / "tokens.json", "ann", "bob")
    server = start(lstm_only, "--tokens", str(file.path)).ready()
    other = grpc.aio.insecure_channel(server.address).stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    triton = other(metadata=shows("ann"))
    async with stream(server, "ann") as ann, stream(server, "bob") as bob:
        await triton.write(b"")
        await triton.read()  # what is wrong with it
        opened = await ann.ask(open_(0, trace=NO_TRACE))
        await bob.ask(open_(0, trace=NO_TRACE))
        expected = await ann.run(0, 0, ROWS[:4])
        with file.change() as tokens:
            del tokens["ann"]
        with pytest.raises(grpc.aio.AioRpcError, match="token 'ann' was removed") as ended:
            await ann.hear()
        with pytest.raises(grpc.aio.AioRpcError, match="token 'ann' was removed"):
            await triton.read()
        assert refusal(ended) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert len(await bob.run(0, 0, ROWS[:1])) == 1
        new = token_secret.make()
        with file.change() as tokens:
            tokens["ann"] = token("ann", digests=(token_secret.digest(new),))
        async with RawStream(server.address, metadata=[("authorization", f"bearer {new}")]) as again:
            step = next(iter((await again.ask(resume(opened, 3, trace=NO_TRACE))).next_steps))
            assert await again.run(0, step, ROWS[step:4]) == expected[step:]


# What a token may use -------------------------------------------------------------------------------------------------


async def test_who_sends_steps_too_fast_gets_every_answer_later_and_the_same(guarded: RunningServer) -> None:
    async with stream(guarded, "ann") as ann, stream(guarded, "slow") as slow:
        for raw in (ann, slow):
            await raw.ask(open_(0, trace=NO_TRACE))
        expected = await ann.run(0, 0, ROWS)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(2):
            await slow.say(*(steps(0, at, row) for at, row in enumerate(ROWS)))
            assert [bits(await slow.hear()) for _ in ROWS] == expected
            await slow.ask(pb.StreamRequest(close=pb.Close(handle=0)))
            await slow.ask(open_(0, trace=NO_TRACE))
        assert loop.time() - began > (2 * len(ROWS) - 51) / 50


async def test_who_predicts_too_fast_is_told_when_to_come_again(guarded: RunningServer) -> None:
    async with stub(guarded) as calls:
        await calls.Predict(prediction("lstm", 5_000), metadata=shows("hasty"))
        with pytest.raises(grpc.aio.AioRpcError, match="token 'hasty' takes 50 steps a second") as refused:
            await calls.Predict(prediction("lstm"), metadata=shows("hasty"))
    assert refusal(refused) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_FAST")
    assert 1 < wait_of(refused) < 101


async def test_a_client_that_predicts_too_fast_waits_as_long_as_it_is_told_and_gets_its_answer(
    guarded: RunningServer,
) -> None:
    async with tidegate.AsyncClient(guarded.address, token=SECRETS["slow"]) as client:
        answers = [await client.predict("lstm", np.zeros((60, 3), np.float32)) for _ in range(2)]
        assert len({answer.output.tobytes() for answer in answers}) == 1
    async with tidegate.AsyncClient(guarded.address, token=SECRETS["hurried"], resume_within=0.1) as client:
        await client.predict("lstm", np.zeros((5_000, 3), np.float32))
        with pytest.raises(tidegate.ServerBusy, match="takes 50 steps a second") as refused:
            await client.predict("lstm", np.zeros((60, 3), np.float32))
    assert refused.value.retry_after > 0.1


async def test_a_message_that_is_larger_than_the_token_allows_is_refused_and_changes_nothing(
    guarded: RunningServer,
) -> None:
    async with stub(guarded) as calls, stream(guarded, "small") as raw:
        opened = await raw.ask(open_(0, trace=NO_TRACE))
        assert opened.max_message_bytes == 4_000
        refused = await raw.ask(steps(0, 0, np.zeros((400, 3), np.float32)))
        assert (reason(refused), list(refused.handles), list(refused.expected_steps)) == ("TOO_LARGE", [0], [0])
        assert len(await raw.run(0, 0, ROWS[:1])) == 1
        with pytest.raises(grpc.aio.AioRpcError, match="4000 is the limit of token 'small'") as caught:
            await calls.Predict(prediction("lstm", 400), metadata=shows("small"))
        assert refusal(caught) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")


async def test_a_token_has_no_more_sequences_open_than_it_may_under_whatever_names(guarded: RunningServer) -> None:
    async with stream(guarded, "narrow") as raw, stream(guarded, "narrow") as other:
        await raw.ask(open_(0, owner="one"))
        await other.ask(open_(0, owner="two"))
        refused = await raw.ask(open_(1, owner="three"))
        assert reason(refused) == "TOO_MANY_OF_OWNER"
        assert refused.error.retry_after_ms == 1_000
        await other.ask(pb.StreamRequest(close=pb.Close(handle=0)))
        assert isinstance(await raw.ask(open_(1, owner="three")), pb.Opened)
