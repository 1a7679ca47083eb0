"""The admin service asks each caller for the right that the call needs, before anything is looked at."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from server.access.authority import Authority
from server.caller import Caller, Right
from server.edge.admin.service import SERVICE, AdminServicer
from server.edge.incoming import Incoming
from server.errors import Unauthenticated
from server.settings import Settings
from tidegate.v1 import admin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

OBSERVED = {"ListSequences", "DescribeStore", "CheckStore", "ListVersions"}
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["Admin"].methods]
WHOLE = {"DescribeStore", "CheckStore", "BackUpStore", "RestoreStore"}  # of all models, or of none


class Untouched:
    """What stands in the place of what must not be asked for anything."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it is never given
        raise AssertionError(f"{name} was asked for")


class Ended(Exception):
    """The call was ended with a status."""


class Context:
    """A call with some messages."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self.messages = [*reversed(requests)]
        self.status = ""

    async def read(self) -> Any:  # noqa: ANN401 - bytes, or gRPC's end
        return self.messages.pop() if self.messages else grpc.aio.EOF

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        self.status = code.name
        raise Ended

    def add_done_callback(self, _: object) -> None:
        """Nothing is counted here."""


class Handlers:
    """A transport that keeps what is registered."""

    def add_generic_rpc_handlers(self, handlers: Any) -> None:  # noqa: ANN401 - gRPC's
        (self.generic,) = handlers

    def of(self, method: str) -> Any:  # noqa: ANN401 - gRPC's
        return self.generic.service(SimpleNamespace(method=f"/{SERVICE}/{method}", invocation_metadata=()))


async def status(
    method: str,
    caller: Caller,
    *requests: bytes,
    authority: Any = None,  # noqa: ANN401
    upkeep: Any = None,  # noqa: ANN401
) -> str:
    """How a call ends for a caller, where nothing may be looked at but what `upkeep` is."""
    settings = Settings()
    backend: Any = SimpleNamespace(
        settings=settings,
        caller=lambda _: caller,
        authority=authority or Authority(),
        noted=lambda *_: lambda _: None,
        admission=SimpleNamespace(answer=lambda _: lambda: None),
        incoming=Incoming(settings),
        keeper=SimpleNamespace(upkeep=upkeep or Untouched()),
        repository=Untouched(),
    )
    handlers, context = Handlers(), Context(requests or [b""])
    AdminServicer(backend).add_to(handlers)
    handler = handlers.of(method)
    with ended():
        if handler.stream_stream is not None:
            async for _ in handler.stream_stream(None, context):
                pass
        else:
            await handler.stream_unary(None, context)
    return context.status


@contextmanager
def ended() -> Iterator[None]:
    with pytest.raises(Ended):
        yield


@pytest.mark.parametrize("method", METHODS)
async def test_who_may_only_predict_may_call_nothing_of_it(method: str) -> None:
    assert await status(method, Caller()) == "PERMISSION_DENIED"


@pytest.mark.parametrize("method", sorted({*METHODS} - OBSERVED))
async def test_who_may_observe_changes_nothing(method: str) -> None:
    assert await status(method, Caller(rights=frozenset({Right.OBSERVE}))) == "PERMISSION_DENIED"


@pytest.mark.parametrize("method", sorted(WHOLE))
async def test_who_may_administer_some_models_gets_and_gives_no_states_of_all(method: str) -> None:
    caller = Caller(rights=frozenset({Right.ADMINISTER}), models=("weather*",))
    assert await status(method, caller) == "PERMISSION_DENIED"


@pytest.mark.parametrize("kind", ["ListVersions", "ChangeVersions"])
async def test_the_versions_of_another_model_are_neither_shown_nor_changed(kind: str) -> None:
    request = getattr(pb, f"{kind}Request")(model="secret").SerializeToString()
    caller = Caller(rights=frozenset({Right.ADMINISTER}), models=("weather*",))
    assert await status(kind, caller, request) == "PERMISSION_DENIED"


async def test_a_call_that_goes_on_for_long_ends_once_its_token_does_not_hold_any_more() -> None:
    async def pages() -> AsyncIterator[bytes]:
        for page in (b"1", b"2"):
            yield page

    keeper = Caller(rights=frozenset({Right.ADMINISTER}))
    errors = iter([None, Unauthenticated("token 'keeper' was removed")])
    authority = SimpleNamespace(withdrawn=lambda _: next(errors))
    upkeep = SimpleNamespace(back_up=pages)
    assert await status("BackUpStore", keeper, authority=authority, upkeep=upkeep) == "UNAUTHENTICATED"
    assert next(errors, "asked twice") == "asked twice"


async def test_messages_of_a_restore_are_put_into_the_store_together() -> None:
    sizes = list[int]()

    async def restore(_: object, data: bytes) -> Sequence[object]:
        sizes.append(len(data))
        return ()

    keeper = Caller(rights=frozenset({Right.ADMINISTER}))
    parts = [pb.RestoreStoreRequest(data=bytes(2**18)).SerializeToString()] * 5
    upkeep = SimpleNamespace(restore=restore)
    assert await status("RestoreStore", keeper, *parts, upkeep=upkeep) == "INVALID_ARGUMENT"  # it is no whole backup
    assert sizes == [2**20, 2**18]
