"""The life of a server: start, serve, drain, stop; and of its models while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import tidegate
from bench.processes.child import free_port
from server.operations import lifecycle
from server.settings import Settings
from tests.hostile_models import endless, filling
from tests.raw_stream import RawStream, close, open_, reason
from tests.torch_models import Spec, write
from tidegate.v1 import model_pb2, sequence_pb2, tidegate_pb2
from tidegate.v1.tidegate_pb2_grpc import TidegateStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import onnx

    from tests.running_server import RunningServer
    from tests.zoo import Zoo

ROWS = np.random.default_rng(5).normal(size=(30, 3)).astype(np.float32)
NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING
SERVICE = "tidegate.v1.Tidegate"
EAGER = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]


async def watch(channel: grpc.aio.Channel, service: str = SERVICE) -> AsyncIterator[int]:
    """The health of a service, whenever it changes."""
    request = health_pb2.HealthCheckRequest(service=service)
    async for answer in health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True):
        yield answer.status


async def checked(channel: grpc.aio.Channel) -> int:
    """The health of the whole server now."""
    return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())).status


async def following(states: AsyncIterator[int]) -> int:
    async with asyncio.timeout(120):
        return await anext(states)


def put(models: Path, name: str, model: onnx.ModelProto) -> None:
    """Brings a model into a repository as a whole file at once."""
    path = models / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.with_name("new").write_bytes(model.SerializeToString())
    path.with_name("new").rename(path)


async def test_it_is_serving_once_every_model_was_tried_while_what_takes_long_goes_on_loading(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    put(lstm_only, "a-slow", endless())
    port = free_port()
    server = start(lstm_only, "--port", str(port), "--poll-seconds", "1000", environment={"TIDEGATE_CACHE": "off"})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", EAGER) as channel:

        async def statuses() -> dict[str, int]:
            models = (await TidegateStub(channel).ListModels(tidegate_pb2.ListModelsRequest())).models
            return {m.name: m.status for m in models}

        watched = [watch(channel, service) for service in (SERVICE, "")]
        first = [await following(states) for states in watched]
        await asyncio.to_thread(server.line, "loading a-slow version 1")
        assert (await statuses())["a-slow"] == model_pb2.MODEL_STATUS_LOADING
        async with RawStream(f"127.0.0.1:{port}") as stream:
            said = [reason(await stream.ask(open_(model=name))) for name in ("a-slow", "not-here")]
        if await checked(channel) == NOT_SERVING:  # all of that came in the seconds of the first try
            assert first == [NOT_SERVING] * 2
            assert said == ["MODEL_NOT_READY"] * 2, "nothing is final yet"
        for status, states in zip(first, watched, strict=True):
            assert status == SERVING or await following(states) == SERVING
        await asyncio.to_thread(server.ready)
        assert await statuses() == {"a-slow": model_pb2.MODEL_STATUS_LOADING, "lstm": model_pb2.MODEL_STATUS_READY}
        async with RawStream(f"127.0.0.1:{port}") as stream:
            assert reason(await stream.ask(open_(model="not-here"))) == "UNKNOWN_MODEL"
        os.kill(await asyncio.to_thread(server.job), signal.SIGKILL)
        await asyncio.to_thread(server.line, "refused a-slow version 1")
        assert (await statuses())["a-slow"] == model_pb2.MODEL_STATUS_REFUSED


async def test_a_server_that_is_asked_to_stop_lets_open_sequences_finish(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--grace-seconds", "1000", fresh=True).ready()
    async with grpc.aio.insecure_channel(server.address) as channel, RawStream(server.address) as stream:
        states = watch(channel)
        assert await following(states) == SERVING
        await stream.ask(open_(0, count=2))
        heard = await stream.run(0, 0, ROWS[:5])
        server.terminate()
        assert await following(states) == NOT_SERVING
        assert reason(await stream.ask(open_(5))) == "DRAINING"
        heard += await stream.run(0, 5, ROWS[5:])
        assert await stream.run(1, 0, ROWS) == heard
        async with RawStream(server.address) as late:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await late.hear()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        closed = await stream.ask(close(0, 2))
        assert list(closed.steps) == [30, 30]
        assert await stream.rest() == []
        await states.aclose()
    assert await asyncio.to_thread(server.wait) == 0
    assert "Traceback" not in server.log


async def test_a_stream_that_does_not_end_is_cut_when_the_grace_is_over(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--grace-seconds", "0.3").ready()
    async with RawStream(server.address) as stream:
        await stream.ask(open_())
        server.terminate()
        assert await asyncio.to_thread(server.wait) == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.hear()
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert "Traceback" not in server.log


async def test_those_who_watch_its_health_do_not_keep_a_server_from_stopping(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--grace-seconds", "1000").ready()
    async with grpc.aio.insecure_channel(server.address) as channel:
        states = watch(channel)
        assert await following(states) == SERVING
        server.terminate()
        assert await following(states) == NOT_SERVING
        assert await asyncio.to_thread(server.wait) == 0


def test_a_server_without_clients_stops_at_once(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    server = start(lstm_only, "--grace-seconds", "1000", fresh=True).ready()
    server.terminate()
    assert server.wait() == 0
    assert "stopped" in server.log


async def test_a_stock_tool_can_ask_what_is_served(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        async def ask(**fields: str) -> reflection_pb2.ServerReflectionResponse:
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**fields)]))
            return await anext(aiter(call))

        listed = {service.name for service in (await ask(list_services="")).list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= listed
        assert (await ask(file_containing_symbol=SERVICE)).file_descriptor_response.file_descriptor_proto


# Models come and go.


def add(spec: Spec, models: Path, name: str, version: int) -> None:
    """As a training run does: written beside, then moved into its place."""
    write(spec, models.parent / "beside" / "model.onnx")
    (models / name).mkdir(exist_ok=True)
    (models.parent / "beside").rename(models / name / str(version))


async def test_a_new_version_serves_new_sequences_and_open_ones_stay_with_theirs(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    async with RawStream(server.address) as stream:
        assert (await stream.ask(open_(0, count=2))).version == 1
        expected = await stream.run(0, 0, ROWS)
        heard = await stream.run(1, 0, ROWS[:10])
        add(Spec(hidden=4, seed=50), lstm_only, "lstm", 2)
        await asyncio.to_thread(server.line, "serving lstm version 2")
        heard += await stream.run(1, 10, ROWS[10:20])
        assert (await stream.ask(open_(2))).version == 2
        assert await stream.run(2, 0, ROWS) != expected
        heard += await stream.run(1, 20, ROWS[20:])
        assert heard == expected
        assert "unloading" not in server.log
        await stream.ask(close(0, 2))
        await asyncio.to_thread(server.line, "unloading lstm version 1")
        await stream.run(2, len(ROWS), ROWS)


async def test_a_new_model_is_served_and_one_that_is_gone_is_not(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    async with RawStream(server.address) as stream:
        assert reason(await stream.ask(open_(model="new"))) == "UNKNOWN_MODEL"
        add(Spec("gru", seed=51), lstm_only, "new", 3)
        await asyncio.to_thread(server.line, "serving new version 3")
        assert (await stream.ask(open_(model="new"))).version == 3
        await stream.ask(open_(1))
        (lstm_only / "lstm").rename(lstm_only.parent / "away")
        while not isinstance(event := await stream.ask(open_(2)), sequence_pb2.Failure):
            await stream.ask(close(2))
        assert reason(event) == "UNKNOWN_MODEL"
        await stream.run(1, 0, ROWS)  # what is open goes on


async def test_a_new_version_that_is_refused_leaves_the_old_one_serving(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    (lstm_only / "lstm" / "2").mkdir()
    (lstm_only / "lstm" / "2" / "model.onnx").write_bytes(b"half a mod")
    await asyncio.to_thread(server.line, "refused lstm version 2")
    async with RawStream(server.address) as stream:
        assert (await stream.ask(open_(0))).version == 1
        assert reason(await stream.ask(open_(1, version=2))) == "MODEL_REFUSED"


async def test_a_file_that_is_replaced_is_loaded_again(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    async with tidegate.AsyncClient(server.address) as client:
        before = (await client.describe("lstm")).sha256
        seen = len(server.lines)
        write(Spec(seed=52), lstm_only.parent / "other.onnx")
        (lstm_only.parent / "other.onnx").replace(lstm_only / "lstm" / "1" / "model.onnx")
        await asyncio.to_thread(server.line, "serving lstm version 1", seen)
        assert (await client.describe("lstm")).sha256 != before


async def test_several_versions_are_served_where_that_is_set(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    for version in (2, 3):
        add(Spec(seed=version), lstm_only, "lstm", version)
    server = start(lstm_only, "--keep-versions", "2").ready()
    async with RawStream(server.address) as stream:
        assert (await stream.ask(open_(0))).version == 3
        assert (await stream.ask(open_(1, version=2))).version == 2
        assert reason(await stream.ask(open_(2, version=1))) == "UNKNOWN_VERSION"


@pytest.mark.usefixtures("server")  # lstm is in the cache then, and takes none of the few seconds
async def test_files_that_fill_the_memory_or_never_end_are_listed_as_refused_and_others_served(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    for name, model in {"fill": filling([2**32, 1, 1, 1]), "hang": endless()}.items():
        put(lstm_only, name, model)
    server = start(lstm_only, "--load-seconds", "4", "--load-memory-mib", "512").ready()
    async with tidegate.AsyncClient(server.address) as client, client.sequence("lstm") as sequence:
        models = {model.name: model for model in await client.models()}
        assert "more than 512 MiB of memory, at node 'expand' (Expand)" in models["fill"].reason
        assert "more than 4 s" in models["hang"].reason
        assert (await sequence.step(ROWS[0])).step == 0


async def test_a_crash_of_what_looks_into_a_file_refuses_that_file_and_disturbs_nobody(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    server = start(lstm_only, "--poll-seconds", "0.05").ready()
    async with tidegate.AsyncClient(server.address) as client, client.sequence("lstm") as sequence:
        assert (await sequence.step(ROWS[0])).step == 0
        put(lstm_only, "crash", endless())
        os.kill(await asyncio.to_thread(server.job), signal.SIGSEGV)
        await asyncio.to_thread(server.line, "refused crash version 1: onnx or onnxruntime ends with signal")
        assert (await sequence.step(ROWS[1])).step == 1
        models = {model.name: model for model in await client.models()}
        assert "signal 11 (Segmentation fault)" in models["crash"].reason


def test_a_server_that_is_asked_to_stop_while_it_looks_into_a_file_does_so_at_once(
    start: Callable[..., RunningServer], tmp_path: Path
) -> None:
    put(tmp_path, "hang", endless())
    put(tmp_path, "hang-too", endless())
    server = start(tmp_path, "--load-seconds", "1000", fresh=True)
    job = server.job()
    server.terminate()
    assert server.wait() == 0
    assert not Path(f"/proc/{job}").exists()
    assert "Traceback" not in server.log


def test_a_file_larger_than_all_memory_is_refused_unread_and_holds_up_neither_a_start_nor_a_stop(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    for name in ("model.onnx", "model.toml"):
        put(lstm_only, f"huge-{name[-4:]}", endless())
        with (lstm_only / f"huge-{name[-4:]}" / "1" / name).open("ab") as file:
            file.truncate(2**40)
    server = start(lstm_only, "--load-memory-mib", "512").ready()
    server.line("refused huge-onnx version 1: the file has 1,048,576 MiB")
    server.line("refused huge-toml version 1: looking into the file takes more than 512 MiB of memory")
    server.terminate()
    assert server.wait() == 0


async def test_models_that_cannot_be_served_are_listed_with_the_reason_and_others_served(
    server: RunningServer, zoo: Zoo
) -> None:
    async with tidegate.AsyncClient(server.address) as client:
        models = {model.name: model for model in await client.models()}
    refused = {name: model.reason for name, model in models.items() if model.reason}
    assert refused.keys() == {"both-ways", "no-state", "mixing", "garbage"}
    assert "bidirectional" in refused["both-ways"]
    assert "LSTM" in refused["both-ways"]
    assert "no RNN, LSTM or GRU node" in refused["no-state"]
    assert "mixes steps" in refused["mixing"]
    assert "cannot be read as an ONNX model" in refused["garbage"]
    assert set(zoo.networks) | {"pair"} == models.keys() - refused.keys()


# What the process says when it cannot start.


def test_a_port_that_is_taken_is_one_clear_line(start: Callable[..., RunningServer], lstm_only: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = start(lstm_only, "--port", str(port), fresh=True)
        assert server.wait() == 1
    errors = [line for line in server.lines if "ERROR" in line]
    assert len(errors) == 1, server.log
    assert f"cannot listen on 127.0.0.1:{port}" in errors[0]
    assert "Traceback" not in server.log


def test_a_repository_that_is_not_there_is_one_clear_line(start: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = start(tmp_path / "nothing", fresh=True)
    assert server.wait() == 1
    assert len(server.lines) == 1, server.log
    assert "is not a folder" in server.log


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-batch", "0"), "--max-batch is 0"),
        (("--max-batch", "many"), "--max-batch"),
        (("--port", "70000"), "--port is 70000"),
        (("--log-level", "loud"), "--log-level"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_a_wrong_setting_is_told_with_status_2(
    start: Callable[..., RunningServer], lstm_only: Path, arguments: tuple[str, ...], words: str
) -> None:
    server = start(lstm_only, *arguments, fresh=True)
    assert server.wait() == 2
    assert words in server.log
    assert "Traceback" not in server.log


async def test_settings_come_from_the_environment_too_and_one_names_an_observer_of_all_answers(
    start: Callable[..., RunningServer], lstm_only: Path
) -> None:
    settings = {"MAX_SEQUENCES": "3", "LOG_LEVEL": "debug", "OBSERVER": "examples.observer:Largest"}
    server = start(lstm_only, environment={f"TIDEGATE_{name}": value for name, value in settings.items()}).ready()
    async with RawStream(server.address) as stream:
        assert reason(await stream.ask(open_(0, count=4))) == "TOO_MANY_SEQUENCES"
        opened = await stream.ask(open_(0, count=3))
        await stream.run(1, 0, ROWS[:1])
    server.line(
        rf"examples\.observer: model lstm, output \S+: \S+, in the answer to step 0 of {opened.sequence_ids[1]}$"
    )


@pytest.mark.parametrize("name", ["examples.observer", "examples.observer:Smallest", "nowhere:Largest", ":Largest"])
async def test_an_observer_that_cannot_be_made_stops_the_server_with_one_sentence(name: str) -> None:
    with pytest.raises(OSError, match="expected MODULE:CLASS, which can be imported"):
        lifecycle.Server(Settings(observer=name))


async def test_an_empty_repository_is_served_and_says_so(start: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = start(tmp_path).ready()
    async with tidegate.AsyncClient(server.address) as client:
        assert await client.models() == ()
        with pytest.raises(tidegate.UnknownModel, match="none"):
            await client.describe("lstm")
