"""Health and reflection: what a client asks for without end keeps nobody waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc_reflection.v1alpha import reflection_pb2

from server.caller import Caller
from server.edge.admission import Admission
from server.edge.standard import Reflection
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ASKED = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()


class Context:
    """Of a call whose client has ended nothing."""

    def add_done_callback(self, _: object) -> None: ...


async def _requests(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield ASKED


async def test_of_all_requests_of_reflection_that_are_here_one_is_answered_in_a_turn_of_the_event_loop() -> None:
    admission = Admission(None, Settings(max_streams=10))  # type: ignore[arg-type]
    reflection = Reflection(admission, lambda _: Caller("ipv4:10.0.0.1"), "tidegate.v1.Tidegate")
    answers = [0]

    async def ask() -> None:
        context: Any = Context()
        async for _ in reflection._reflect(_requests(20), context):
            answers[-1] += 1

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(ask()) for _ in range(5)]
        while not all(one.done() for one in asking):
            answers.append(0)
            await asyncio.sleep(0)
    assert sum(answers) == 100
    assert max(answers) == 1


async def test_a_client_that_does_not_read_what_reflection_says_keeps_no_other_from_its_answer() -> None:
    admission = Admission(None, Settings(max_streams=10))  # type: ignore[arg-type]
    reflection = Reflection(admission, lambda _: Caller("ipv4:10.0.0.1"), "tidegate.v1.Tidegate")
    context: Any = Context()
    unread = reflection._reflect(_requests(2), context)
    assert await anext(unread)  # and no more is asked of it: it waits where it gave its answer
    async with asyncio.timeout(60):
        assert len([answer async for answer in reflection._reflect(_requests(2), context)]) == 2
    await unread.aclose()
