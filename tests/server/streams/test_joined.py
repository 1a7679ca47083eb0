"""Single steps that come at the same time on several streams are one block, unless one of them is special."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.caller import Caller
from server.durability.null_keeper import NullKeeper
from server.errors import BadInput
from server.runtime.input_check import InputCheck
from server.settings import Settings
from server.streams.allowance import Allowance
from server.streams.events import Answered, Failed, SeveralAnswered, StateRead
from server.streams.joined import Member, checked, join
from server.streams.stream import Stream
from server.streams.trace import Manner, Selection
from tests.server.world import versions
from tests.shelf import MODEL, Shelf, fail_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from server.streams.events import Event

MANY = 8
ROWS = np.random.default_rng(5).normal(size=(20, MANY, 3)).astype(np.float32)
NO_TRACE = Selection(none=True)


class Client:
    """One stream, with a sequence."""

    def __init__(self, shelf: Shelf, selection: Selection = NO_TRACE) -> None:
        self.told: list[Event] = []
        self.stream = Stream(shelf, NullKeeper(), 2 * MANY, Allowance(2**20), self.told.append, Caller("ipv4:10.0.0.1"))
        self.stream.open(0, 1, MODEL, 1, Manner(selection))
        self.told.clear()


class Clients:
    """Several; `told` has what they are told by `join`: which of them, and what."""

    def __init__(self, shelf: Shelf, selection: Selection = NO_TRACE) -> None:
        self.all = [Client(shelf, selection) for _ in range(MANY)]
        self.told: list[tuple[int, Answered]] = []
        self.parts = list[int]()  # how many were answered at a time
        self.batcher = shelf.models[1].batcher

    def members(self, step: int) -> list[Member | None]:
        return [client.stream.member(0, step) for client in self.all]

    def take(self, step: int, **changed: Any) -> bool:  # noqa: ANN401 - an argument
        """Whether a step of each was taken as one."""
        members = [member for member in self.members(step) if member is not None]
        given = {"inputs": [("", ROWS[step])], "answered": [step] * MANY} | changed
        if len(members) < MANY or (found := checked(members, given["inputs"])) is None:
            return False
        join(members, np.full(MANY, step), found, given["answered"], self.write)
        return True

    def write(self, those: slice, make: Callable[[], SeveralAnswered], each: int) -> None:
        event = make()
        self.parts.append(len(event.handles))
        for at, one in zip(range(MANY)[those], event.apart(), strict=True):
            assert one.size == each
            self.told.append((at, one))
            self.all[at].stream.written(one.size)

    async def hear(self, count: int) -> None:
        async with asyncio.timeout(120):
            while len(self.told) + len(self.refusals) < count:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0)

    @property
    def refusals(self) -> list[tuple[int, Failed]]:
        return [(at, x) for at, client in enumerate(self.all) for x in client.told if isinstance(x, Failed)]

    @property
    def idle(self) -> bool:
        return all(client.stream.idle for client in self.all)


@pytest.fixture(params=[0.0, 1e9], ids=["in the engine's thread", "on the spot"])
async def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    shelf = Shelf(versions(tmp_path_factory.getbasetemp()), Settings(max_sequences=6 * MANY, spot_us=request.param))
    shelf.start()
    yield shelf
    shelf.stop()


@pytest.mark.parametrize("selection", [NO_TRACE, Selection()], ids=["no trace", "every gate"])
async def test_steps_of_several_streams_are_one_block_and_answered_with_the_bits_of_each_by_itself(
    shelf: Shelf, selection: Selection
) -> None:
    apart, clients = Clients(shelf, selection), Clients(shelf, selection)
    for step in range(3):
        assert clients.take(step, inputs=[("", ROWS[step][:, np.newaxis] if step == 1 else ROWS[step])])
        assert not clients.idle
        await clients.hear((step + 1) * MANY)
        for at, one in clients.told[step * MANY :]:
            alone = apart.all[at]
            alone.stream.steps(0, step, [("", ROWS[step, at])])
            async with asyncio.timeout(120):
                while not alone.told:  # noqa: ASYNC110 - nothing else tells
                    await asyncio.sleep(0)
            (answer,) = alone.told
            assert isinstance(answer, Answered)
            assert (one.handle, one.first_step) == (answer.handle, answer.first_step) == (0, step)
            assert one.outputs[0].tobytes() == answer.outputs[0].tobytes()
            assert one.outputs[0].shape == answer.outputs[0].shape
            assert one.size == answer.size
            assert (one.trace is None) == (answer.trace is None) == selection.none
            if one.trace is not None and answer.trace is not None:
                assert one.trace.tobytes() == answer.trace.tobytes()
            alone.stream.written(answer.size)
            alone.told.clear()
    assert [at for at, _ in clients.told] == [*range(MANY)] * 3
    assert clients.idle


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": [("nobody", ROWS[0])]},
        {"inputs": [("", ROWS[0].astype(np.float64))]},
        {"inputs": [("", ROWS[0][:, :2])]},
        {"inputs": [("", np.stack([ROWS[0], ROWS[1]], 1))]},
        {"inputs": [("", np.where(np.arange(MANY)[:, np.newaxis] == 3, np.nan, ROWS[0]))]},
    ],
    ids=["a name", "a type", "a row", "two steps", "nan"],
)
async def test_where_one_is_to_be_refused_nothing_is_taken(shelf: Shelf, changed: dict[str, Any]) -> None:
    clients = Clients(shelf)
    assert not clients.take(0, **changed)
    assert clients.idle
    assert clients.take(0)
    await clients.hear(MANY)


def _more(client: Client) -> None:
    client.stream.steps(0, 0, [("", ROWS[:10, 3])], company=True)


def _unwritten(client: Client) -> None:
    client.stream._window.outstanding = 1


def _closed(client: Client) -> None:
    client.stream.close(0, 1)


def _now_and_then(client: Client) -> None:
    client.stream.answer_as(0, Manner(Selection(every=2)))


def _observed(client: Client) -> None:
    client.stream.model(0).observer = client  # type: ignore[assignment] # anything


@pytest.mark.parametrize("before", [_more, _unwritten, _closed, _now_and_then, _observed])
async def test_a_stream_that_has_something_else_under_way_or_to_be_seen_is_not_joined(
    shelf: Shelf, before: Callable[[Client], None]
) -> None:
    client = Client(shelf)
    assert client.stream.member(0, 0) is not None
    before(client)
    assert client.stream.member(0, 0) is None


@pytest.mark.parametrize(("handle", "step"), [(0, 1), (0, 2**64 - 1), (1, 0), (2**32 - 1, 0)])
async def test_a_step_that_is_not_the_next_of_an_open_sequence_is_not_joined(
    shelf: Shelf, handle: int, step: int
) -> None:
    assert Client(shelf).stream.member(handle, step) is None


async def test_what_a_client_says_of_its_answers_is_kept_and_no_more_than_there_were(shelf: Shelf) -> None:
    clients = Clients(shelf)
    for step, said, kept in ((0, 0, 0), (1, 2**64 - 1, 1), (2, 1, 1)):
        assert clients.take(step, answered=[said] * MANY)
        await clients.hear(MANY * (step + 1))
        slots = [client.stream.handles.slots.item(0) for client in clients.all]
        assert shelf.models[1].watermarks.acked[slots].tolist() == [kept] * MANY


async def test_a_step_that_fails_is_refused_on_its_stream_and_the_others_are_answered(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Clients(shelf)
    fail_at(ROWS[0, 5], monkeypatch)
    assert clients.take(0)
    clients.all[5].stream.steps(0, 1, [("", ROWS[1, 5])])  # behind it
    await clients.hear(MANY + 1)
    ((at, failed), (also_at, behind)) = clients.refusals
    assert (at, failed.handles, failed.first_step, failed.expected, failed.request) == (5, (0,), 0, (0,), "steps")
    assert (also_at, behind.first_step, tuple(behind.expected)) == (5, 1, (0,))
    assert [at for at, _ in clients.told] == [at for at in range(MANY) if at != 5]
    assert clients.idle
    monkeypatch.undo()
    assert clients.all[5].stream.member(0, 0) is not None
    assert clients.all[4].stream.member(0, 1) is not None


async def test_a_client_that_leaves_takes_no_step_of_others_with_it(shelf: Shelf) -> None:
    clients = Clients(shelf)
    assert clients.take(0)
    clients.all[2].stream.abandon()
    await clients.hear(MANY)
    assert [at for at, _ in clients.told] == list(range(MANY))  # what it is told, its exchange drops
    assert clients.all[3].stream.idle


async def test_a_state_that_is_asked_for_behind_a_joined_step_is_that_after_it(shelf: Shelf) -> None:
    clients = Clients(shelf)
    assert clients.take(0)
    clients.all[6].stream.read_state(0)
    await clients.hear(MANY)
    async with asyncio.timeout(120):
        while not (states := [x for x in clients.all[6].told if isinstance(x, StateRead)]):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert states[0].step == 1


def test_of_steps_that_came_by_themselves_one_axis_of_one_step_is_left_out(shelf_check: InputCheck) -> None:
    for x in (ROWS[0], ROWS[0][:, np.newaxis]):
        (checked,) = shelf_check.singles([("", x)], MANY).values()
        assert checked.shape == (1, MANY, 3)


def test_no_steps_are_refused_with_how_many_are_wanted(shelf_check: InputCheck) -> None:
    with pytest.raises(BadInput, match=r"has shape \[0, 3\]; expected \[steps, 3\], with at least one step"):
        shelf_check.count([("", ROWS[0][:0])])


@pytest.fixture
def shelf_check(tmp_path_factory: pytest.TempPathFactory) -> InputCheck:
    return InputCheck(versions(tmp_path_factory.getbasetemp())[1].graph.inputs)
