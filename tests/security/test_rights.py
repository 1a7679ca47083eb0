"""Every call of every service on the port: what right it needs, as docs/secure.md says, whoever asks for what model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2

from server.access import token_secret
from server.access.token import Token
from server.access.token_file import TokenFile
from server.caller import Right
from tests.running_server import RunningServer
from tests.zoo import Zoo, repository
from tidegate.v1 import admin_pb2, error_pb2, sequence_pb2, tidegate_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

# ruff: noqa: ANN401 - methods are described by protobuf, which has no types for that
PREDICT, OBSERVE, ADMINISTER = Right
STEPS, CHANGES = frozenset({PREDICT}), frozenset({ADMINISTER})
ANY = frozenset(Right)
OPERATORS = frozenset({OBSERVE, ADMINISTER})
SERVICES = {
    admin_pb2: "Admin",
    tidegate_pb2: "Tidegate",
    service_pb2: "GRPCInferenceService",
    health_pb2: "Health",
    reflection_pb2: "ServerReflection",
}
EVERYBODY = {"Check", "Watch"}  # health
NEEDS = {
    # tidegate.v1.Tidegate
    "Stream": STEPS,
    "Predict": STEPS,
    "ListModels": ANY,
    "DescribeModel": ANY,
    # tidegate.v1.Admin
    "ListSequences": OPERATORS,
    "DescribeStore": OPERATORS,
    "CheckStore": OPERATORS,
    "ListVersions": OPERATORS,
    **dict.fromkeys(("EndSequences", "BackUpStore", "RestoreStore", "ChangeVersions"), CHANGES),
    # inference.GRPCInferenceService
    **dict.fromkeys(("ModelInfer", "ModelStreamInfer"), STEPS),
    "ModelStatistics": OPERATORS,
    **dict.fromkeys(("RepositoryModelLoad", "RepositoryModelUnload"), CHANGES),
    **dict.fromkeys(("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex"), ANY),
    **dict.fromkeys(("ModelReady", "ModelMetadata", "ModelConfig", "TraceSetting", "LogSettings"), ANY),
    **dict.fromkeys((f"{kind}SharedMemory{do}" for kind in ("System", "Cuda") for do in ("Status", "Register")), ANY),
    **dict.fromkeys((f"{kind}SharedMemoryUnregister" for kind in ("System", "Cuda")), ANY),
    # grpc.reflection.v1alpha
    "ServerReflectionInfo": ANY,
}
OF_ALL_MODELS = {"DescribeStore", "CheckStore", "BackUpStore", "RestoreStore"}  # refused to who has rights for some
REFUSED = "UNAUTHENTICATED", "PERMISSION_DENIED"


def methods() -> Iterator[tuple[str, str, Any]]:
    for module, service in SERVICES.items():
        described = module.DESCRIPTOR.services_by_name[service]
        for method in described.methods:
            yield described.full_name, method.name, method


METHODS = [pytest.param(service, method, id=method.name) for service, _, method in methods()]
SECRETS = {name: token_secret.make() for name in ("predict", "observe", "administer", "elsewhere")}


@pytest.fixture(scope="module")
def port(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A server with a token for each right alone, and one with all rights for other models."""
    folder = tmp_path_factory.mktemp("rights")
    file = TokenFile(folder / "tokens.json")
    with file.change() as tokens:
        for name, shown in SECRETS.items():
            rights, models = (ANY, ("other*",)) if name == "elsewhere" else (frozenset({Right(name)}), ("*",))
            tokens[name] = Token(name, rights, models, (token_secret.digest(shown),))
    with RunningServer(repository(zoo, folder, "lstm"), "--tokens", str(file.path)) as server:
        server.ready()
        with grpc.insecure_channel(server.address) as channel:
            yield channel


def request(method: Any, model: str) -> Message:
    """One of the call's kind, which names the model where the kind has a place for its name."""
    kind = method.input_type
    if method.name == "Stream":
        return sequence_pb2.StreamRequest(open=sequence_pb2.Open(model=model))
    if method.name == "ChangeVersions":
        return admin_pb2.ChangeVersionsRequest(model=model, load=1)
    if method.name == "EndSequences":
        return admin_pb2.EndSequencesRequest(filter=admin_pb2.SequenceFilter(model=model))
    named = [name for name in ("model", "model_name", "name") if name in kind.fields_by_name]
    of_a_model = named and not method.name.startswith(("System", "Cuda"))
    made = getattr(next(m for m in (*SERVICES, sequence_pb2) if hasattr(m, kind.name)), kind.name)
    return made(**({named[0]: model} if of_a_model else {}))


def outcome(port: grpc.Channel, service: str, method: Any, shown: str, model: str = "lstm") -> tuple[str, str]:
    """The status of a call, and its first answer; of a stream, the reason that stands in it."""
    call = port.stream_stream(f"/{service}/{method.name}")
    metadata = [("authorization", f"Bearer {shown}")] if shown else []
    answers = call(iter([request(method, model).SerializeToString()]), metadata=metadata, timeout=120)
    try:
        first = next(answers, b"")
    except grpc.RpcError as error:
        return error.code().name, error.details()
    finally:
        answers.cancel()
    denied = next((reason for reason in REFUSED if reason.encode() in first), "")
    if method.name == "Stream":
        answer = sequence_pb2.StreamResponse.FromString(first)
        denied = "PERMISSION_DENIED" if answer.failure.error.reason == error_pb2.REASON_PERMISSION_DENIED else ""
    return denied or "OK", repr(first)


def test_the_table_names_every_call_of_the_port() -> None:
    assert {name for _, name, _ in methods()} == {*NEEDS, *EVERYBODY}


@pytest.mark.parametrize(("service", "method"), METHODS)
def test_a_call_needs_a_token_with_the_right_that_the_table_says(port: grpc.Channel, service: str, method: Any) -> None:
    needs = NEEDS.get(method.name)
    assert (outcome(port, service, method, "")[0] == "UNAUTHENTICATED") == (needs is not None)
    for right in Right:
        status, _ = outcome(port, service, method, SECRETS[right])
        assert (status == "PERMISSION_DENIED") == (needs is not None and right not in needs), right
        assert status != "UNAUTHENTICATED"


@pytest.mark.parametrize(("service", "method"), METHODS)
def test_a_token_for_other_models_learns_nothing_of_a_model(port: grpc.Channel, service: str, method: Any) -> None:
    there, not_there = (outcome(port, service, method, SECRETS["elsewhere"], name) for name in ("lstm", "none"))
    assert there[0] == not_there[0]
    assert there[1].replace("lstm", "MODEL") == not_there[1].replace("none", "MODEL")
    if method.name in OF_ALL_MODELS:
        assert there[0] == "PERMISSION_DENIED"
