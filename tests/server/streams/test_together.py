"""Single steps that come at the same time are one block, unless something is special about one of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.caller import Caller
from server.durability.null_keeper import NullKeeper
from server.runtime.answers import Answers
from server.runtime.loop_turn import LoopTurn
from server.settings import Settings
from server.streams.allowance import Allowance
from server.streams.events import Answered, Failed, SeveralAnswered, StateRead
from server.streams.stream import Stream
from server.streams.trace import Manner, Selection
from tests.server.world import versions
from tests.shelf import MODEL, Shelf, fail_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from server.runtime.scheduler import Block
    from server.streams.events import Event

MANY = 8
ROWS = np.random.default_rng(5).normal(size=(20, MANY, 3)).astype(np.float32)
HANDLES = list(range(MANY))
NO_TRACE = Selection(none=True)


class Client:
    def __init__(self, shelf: Shelf, *, bundle: bool = True) -> None:
        self.told: list[Event] = []
        caller = Caller("ipv4:10.0.0.1")
        self.stream = Stream(shelf, NullKeeper(), 2 * MANY, Allowance(2**20), self.told.append, caller)
        for handle in HANDLES:
            self.stream.open(handle, 1, MODEL, 1, Manner(NO_TRACE, bundle=bundle))
        self.blocks: list[Block] = []
        batcher = shelf.models[1].batcher
        submit = batcher.submit
        batcher.submit = lambda block: self.blocks.append(block) or submit(block)  # type: ignore[method-assign]

    def take(self, step: int, handles: list[int] | None = None, **changed: Any) -> bool:  # noqa: ANN401 - an argument
        """Whether a step of these was taken as one."""
        handles = HANDLES if handles is None else handles
        given = {
            "steps": [step] * len(handles),
            "inputs": [("", ROWS[step, [n % MANY for n in handles]])],
            "answered": [step] * len(handles),
        }
        return self.stream.together(**{"handles": handles} | given | changed)

    async def hears(self, count: int) -> list[Event]:
        async with asyncio.timeout(120):
            while len(self.answers) < count:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0)
        return self.answers

    @property
    def answers(self) -> list[Event]:
        return [event for event in self.told if isinstance(event, Answered | SeveralAnswered | Failed)]


@pytest.fixture(params=[0.0, 1e9], ids=["in the engine's thread", "on the spot"])
async def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    shelf = Shelf(versions(tmp_path_factory.getbasetemp()), Settings(max_sequences=4 * MANY, spot_us=request.param))
    shelf.start()
    yield shelf
    shelf.stop()


async def test_steps_that_come_together_are_one_block_and_answered_with_the_bits_of_each_by_itself(
    shelf: Shelf,
) -> None:
    apart, client = Client(shelf, bundle=False), Client(shelf)
    for step in range(3):
        client.blocks.clear()
        assert client.take(step, inputs=[("", ROWS[step][:, np.newaxis] if step == 1 else ROWS[step])])
        assert [len(block.slots) for block in client.blocks] == [MANY]
        event = (await client.hears(step + 1))[-1]
        assert isinstance(event, SeveralAnswered)
        client.stream.written(event.size)
        for handle, one in zip(HANDLES, event.apart(), strict=True):
            apart.stream.steps(handle, step, [("", ROWS[step, handle])])
            alone = (await apart.hears(step * MANY + handle + 1))[-1]
            assert isinstance(alone, Answered)
            assert (one.handle, one.first_step) == (alone.handle, alone.first_step) == (handle, step)
            assert one.outputs[0].tobytes() == alone.outputs[0].tobytes()
            assert one.outputs[0].shape == alone.outputs[0].shape
    assert client.stream.idle


@pytest.mark.parametrize(
    "changed",
    [
        {"handles": [*HANDLES[:-1], 0]},
        {"handles": [*HANDLES[:-1], 30]},
        {"handles": [*HANDLES[:-1], 2**32 - 1]},
        {"steps": [0] * (MANY - 1) + [1]},
        {"steps": [0] * (MANY - 1) + [2**64 - 1]},
        {"inputs": [("nobody", ROWS[0])]},
        {"inputs": [("", ROWS[0].astype(np.float64))]},
        {"inputs": [("", ROWS[0][:, :2])]},
        {"inputs": [("", np.stack([ROWS[0], ROWS[1]], 1))]},
        {"inputs": [("", np.where(np.arange(MANY)[:, np.newaxis] == 3, np.inf, ROWS[0]))]},
    ],
    ids=[
        "a handle twice",
        "no handle",
        "too high",
        "a step",
        "a high step",
        "a name",
        "a type",
        "a row",
        "two steps",
        "inf",
    ],
)
async def test_where_one_is_to_be_refused_nothing_is_taken(shelf: Shelf, changed: dict[str, Any]) -> None:
    client = Client(shelf)
    assert not client.take(0, **changed)
    assert not client.blocks
    assert client.stream.idle
    assert client.stream.handles.next[:MANY].tolist() == [0] * MANY
    assert client.take(0)
    await client.hears(1)


def _more(client: Client) -> None:
    client.stream.steps(3, 0, [("", ROWS[:10, 3])], company=True)


def _other_manner(client: Client) -> None:
    client.stream.answer_as(3, Manner(Selection()))


def _closed(client: Client) -> None:
    client.stream.close(3, 1)


def _full(client: Client) -> None:
    client.stream._window.outstanding = 2**20


@pytest.mark.parametrize("before", [_more, _other_manner, _closed, _full])
async def test_where_one_has_to_wait_or_differs_nothing_is_taken(
    shelf: Shelf, before: Callable[[Client], None]
) -> None:
    client = Client(shelf)
    before(client)
    assert not client.take(0, steps=client.stream.handles.next[:MANY].tolist())
    assert not [block for block in client.blocks if len(block.slots) > 1]


async def test_what_a_client_says_of_its_answers_is_kept_and_no_more_than_there_were(shelf: Shelf) -> None:
    client = Client(shelf)
    for step, said, kept in ((0, 0, 0), (1, 2**64 - 1, 1), (2, 1, 1)):
        assert client.take(step, answered=[said] * MANY)
        await client.hears(step + 1)
        slots = client.stream.handles.slots[:MANY]
        assert shelf.models[1].watermarks.acked[slots].tolist() == [kept] * MANY


async def test_a_step_that_fails_is_refused_as_a_step_and_the_others_are_answered(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(shelf)
    fail_at(ROWS[0, 5], monkeypatch)
    assert client.take(0)
    failed, answered = await client.hears(2)
    assert isinstance(failed, Failed)
    assert (failed.handles, failed.first_step, failed.expected, failed.request) == ((5,), 0, (0,), "steps")
    assert isinstance(answered, SeveralAnswered)
    assert answered.handles.tolist() == [n for n in HANDLES if n != 5]
    client.stream.written(answered.size)
    assert client.stream.idle
    monkeypatch.undo()
    others = [n for n in HANDLES if n != 5]
    assert client.take(1, others)
    await client.hears(3)
    client.stream.steps(5, 0, [("", ROWS[0, 5])])
    await client.hears(4)


async def test_a_state_that_is_asked_for_between_two_steps_is_that_of_the_first_although_answers_wait_for_a_turn(
    shelf: Shelf,
) -> None:
    client, batcher = Client(shelf), shelf.models[1].batcher
    batcher._answers = Answers(LoopTurn(asyncio.get_running_loop().call_soon, 1e-9))  # one in each turn
    for handle in HANDLES:
        client.stream.steps(handle, 0, [("", ROWS[0, handle])], company=True)
    await client.hears(1)
    client.stream.read_state(MANY - 1)
    client.stream.steps(MANY - 1, 1, [("", ROWS[1, MANY - 1])], company=True)
    await client.hears(MANY + 1)
    (state,) = [event for event in client.told if isinstance(event, StateRead)]
    assert state.step == 1
