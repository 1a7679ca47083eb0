"""A whole sequence at once: bounded before it is computed, counted while it lives, and gone once it was answered."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.caller import Caller
from server.durability.null_keeper import NullKeeper
from server.edge import prediction
from server.edge.prediction import Predictor
from server.errors import BadInput, OverLimit, StepFailed
from server.runtime.scheduler import Batch, Block, Part
from server.settings import Settings
from server.streams.replies import Chunk
from server.streams.stream import Stream
from server.streams.trace import Manner, Selection
from server.streams.window import Window
from stepgraph.errors import StepFailed as Cause
from stepgraph.running.engine import Engine
from stepgraph.running.result import Result
from tests.server.world import versions
from tests.shelf import MODEL, Shelf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

CALLER = Caller("ipv4:10.0.0.1")
ROWS = np.random.default_rng(3).normal(size=(3_000, 3)).astype(np.float32)
NO_TRACE = Manner(Selection(none=True))


@pytest.fixture
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    shelf = Shelf(versions(tmp_path_factory.getbasetemp()), Settings(max_sequences=12))
    shelf.start()
    yield shelf
    shelf.assert_empty()
    shelf.stop()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What refers to itself stays for good."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def predict(predictor: Predictor, rows: np.ndarray, manner: Manner = NO_TRACE) -> Any:  # noqa: ANN401 - both
    return await predictor.predict(CALLER, MODEL, 1, [("", rows)], manner)


async def test_an_answer_that_would_be_too_large_is_refused_before_a_step_is_computed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        for name in ("run", "run_once"):
            patched.setattr(Engine, name, lambda *_: pytest.fail("a step was computed"))
        with pytest.raises(OverLimit, match=r"answer to 3000 steps would take .* MiB; .* MiB is the limit.*stream"):
            await predict(Predictor(shelf, 100_000), ROWS, Manner())
    made, _ = await predict(Predictor(shelf, 100_000), ROWS[:10], Manner())
    assert len(made.trace) == 10


async def test_an_answer_counts_for_its_client_until_it_was_sent(shelf: Shelf) -> None:
    predictor = Predictor(shelf, 50_000)
    _, size = await predict(predictor, ROWS)
    assert size <= 50_000 < 2 * size
    second = asyncio.ensure_future(predict(predictor, ROWS))
    other = await predictor.predict(Caller("ipv4:10.0.0.2"), MODEL, 1, [("", ROWS)], NO_TRACE)
    assert not second.done()
    predictor.release(CALLER, size)
    made, again = await second
    for name, rows in made.outputs.items():
        np.testing.assert_array_equal(rows, other[0].outputs[name])
    predictor.release(CALLER, again)
    predictor.release(Caller("ipv4:10.0.0.2"), other[1])
    assert not predictor._taken


async def test_a_selection_of_every_third_step_is_put_together_in_order(shelf: Shelf) -> None:
    predictor = Predictor(shelf, 2**25)
    whole, _ = await predict(predictor, ROWS, Manner())
    third, _ = await predict(predictor, ROWS, Manner(Selection(every=3)))
    np.testing.assert_array_equal(third.trace, whole.trace[::3])


async def test_clients_that_do_not_read_their_answers_do_not_keep_small_ones_of_others_waiting(shelf: Shelf) -> None:
    callers = [Caller(f"ipv4:10.0.0.{n}") for n in range(1, 7)]
    predictor = Predictor(shelf, 50_000)

    def ask(caller: Caller, rows: np.ndarray) -> Awaitable[Any]:
        return predictor.predict(caller, MODEL, 1, [("", rows)], NO_TRACE)

    unread = [await ask(caller, ROWS) for caller in callers[:4]]
    small = [await ask(caller, ROWS[:100]) for caller in callers[4:]]
    large = asyncio.ensure_future(ask(callers[5], ROWS))
    await asyncio.sleep(0)
    assert not large.done()
    assert predictor._taken.total() <= 4 * 50_000 + 2 * 50_000 / 16
    predictor.release(callers[0], unread[0][1])
    answers = [*unread[1:], *small, await large]
    for caller, (_, size) in zip([*callers[1:], callers[5]], answers, strict=True):
        predictor.release(caller, size)
    assert not predictor._taken


async def test_predictions_of_a_client_that_wait_leave_places_for_those_of_others(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "_MOST_WAITING", 2)
    predictor, other = Predictor(shelf, 50_000), Caller("ipv4:10.0.0.2")
    sizes = [(await predict(predictor, ROWS))[1]]
    waiting = [asyncio.ensure_future(predict(predictor, ROWS)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverLimit, match="2 of your predictions wait"):
        await predict(predictor, ROWS)
    sizes.append((await predictor.predict(other, MODEL, 1, [("", ROWS)], NO_TRACE))[1])
    predictor.release(other, sizes[1])
    for each in waiting:
        predictor.release(CALLER, sizes[0])
        await each
    predictor.release(CALLER, sizes[0])
    assert not predictor._taken
    assert not predictor._queued


async def test_answers_of_a_batch_count_together_before_one_is_computed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, batch = Predictor(shelf, 50_000), [("", np.stack([ROWS[:1_000]] * 3))]
    made, size = await predictor.predict_all(CALLER, MODEL, 1, 3, batch, NO_TRACE)
    assert predictor._taken.total() == size <= 50_000 < 2 * size
    second = asyncio.ensure_future(predictor.predict_all(CALLER, MODEL, 1, 3, batch, NO_TRACE))
    await asyncio.sleep(0)
    assert predictor._waiting
    predictor.release(CALLER, size)
    again, _ = await second
    for rows in (*made.outputs["y"], *again.outputs["y"]):
        np.testing.assert_array_equal(rows, made.outputs["y"][0])
    with monkeypatch.context() as patched:
        for name in ("run", "run_once"):
            patched.setattr(Engine, name, lambda *_: pytest.fail("a step was computed"))
        with pytest.raises(OverLimit, match="answer to 10000 steps would take"):
            await predictor.predict_all(CALLER, MODEL, 1, 10, [("", np.stack([ROWS[:1_000]] * 10))], NO_TRACE)
    predictor.release(CALLER, size)
    assert not predictor._taken


@pytest.mark.parametrize(("steps", "taken"), [(1, [10]), (2, [10, 10]), (3, [])])
@pytest.mark.parametrize("manner", [NO_TRACE, Manner()], ids=["no trace", "trace"])
async def test_a_batch_is_what_each_of_its_rows_is_by_itself_and_a_few_steps_of_many_rows_are_computed_together(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, steps: int, taken: list[int], manner: Manner
) -> None:
    monkeypatch.setattr(prediction, "_TOGETHER", 5)
    rows = ROWS[: 10 * steps].reshape(10, steps, 3)
    predictor, fleets = Predictor(shelf, 2**25), list[int]()
    fleet = Stream.fleet
    monkeypatch.setattr(
        Stream, "fleet", lambda self, handles, *given: fleets.append(len(handles)) or fleet(self, handles, *given)
    )
    made, size = await predictor.predict_all(CALLER, MODEL, 1, 10, [("", rows)], manner)
    predictor.release(CALLER, size)
    assert fleets == taken
    assert (made.trace is None) == (manner == NO_TRACE)
    for at, row in enumerate(rows):
        alone, size = await predict(predictor, row, manner)
        predictor.release(CALLER, size)
        assert made.outputs["y"][at].tobytes() == alone.outputs["y"].tobytes()
        if made.trace is not None:
            assert made.trace[at].tobytes() == alone.trace.tobytes()
    assert not predictor._taken


async def test_a_batch_of_which_a_step_cannot_be_computed_is_refused_for_that(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "_TOGETHER", 2)
    rows = ROWS[:32].reshape(8, 4, 3).copy()
    rows[5, 0, 0] = 77
    for name in ("run", "run_once"):
        compute = getattr(Engine, name)

        def failing(engine: Engine, inputs: Any, *given: Any, compute: Any = compute) -> Any:  # noqa: ANN401 - the engine's
            if any((x == 77).any() for x in inputs.values()):
                raise Cause("77 is not taken")
            return compute(engine, inputs, *given)

        monkeypatch.setattr(Engine, name, failing)
    predictor = Predictor(shelf, 2**25)
    with pytest.raises(StepFailed, match="77 is not taken"):
        await predictor.predict_all(CALLER, MODEL, 1, 8, [("", rows)], NO_TRACE)
    assert not predictor._taken


async def test_a_batch_with_a_row_that_cannot_be_taken_is_refused_and_leaves_nothing(shelf: Shelf) -> None:
    predictor = Predictor(shelf, 2**25)
    for steps in (1, 3):
        rows = ROWS[: 10 * steps].reshape(10, steps, 3).copy()
        rows[7, -1, 1] = np.nan
        with pytest.raises(BadInput, match="nan"):
            await predictor.predict_all(CALLER, MODEL, 1, 10, [("", rows)], NO_TRACE)
    with pytest.raises(OverLimit):
        await predictor.predict_all(CALLER, MODEL, 1, 13, [("", ROWS[:13].reshape(13, 1, 3))], NO_TRACE)
    assert not predictor._taken


async def test_of_a_batch_and_of_predictions_that_come_together_a_few_begin_in_each_turn_of_each_client(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[str]()
    begin = prediction._Run.begin
    monkeypatch.setattr(prediction, "_TOGETHER", 1)
    monkeypatch.setattr(
        prediction._Run, "begin", lambda run, *given: begun.append(run.stream._caller.account) or begin(run, *given)
    )
    predictor, other = Predictor(shelf, 2**25), Caller("ipv4:10.0.0.2")
    batch = predictor.predict_all(CALLER, MODEL, 1, 6, [("", np.stack([ROWS[:9]] * 6))], NO_TRACE)
    many = [predict(predictor, ROWS[:1]) for _ in range(4)]
    late = predictor.predict(other, MODEL, 1, [("", ROWS[:1])], NO_TRACE)
    tasks = [asyncio.ensure_future(each) for each in (batch, *many, late)]
    a_turn = list[int]()
    while not all(task.done() for task in tasks):
        before = len(begun)
        await asyncio.sleep(0)
        a_turn.append(len(begun) - before)
    assert (len(begun), max(a_turn)) == (11, prediction._MOST_BEGINNING)
    assert begun.index(other.account) <= 3
    for task in tasks:
        await task


@pytest.mark.usefixtures("no_collector")
async def test_what_was_answered_leaves_without_the_collector_of_cycles(shelf: Shelf) -> None:
    predictor = Predictor(shelf, 2**25)
    await predict(predictor, ROWS, Manner())
    shelf.stop()  # the engine's thread may still be on its way back
    assert left() == []


@pytest.mark.usefixtures("no_collector")
async def test_so_does_a_prediction_that_failed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Result:
        raise Cause("it cannot be computed")

    for name in ("run", "run_once"):
        monkeypatch.setattr(Engine, name, run)
    predictor = Predictor(shelf, 2**25)
    try:
        await predict(predictor, ROWS, Manner())
    except StepFailed:
        pass
    else:
        pytest.fail("it did not fail")
    shelf.stop()  # the engine's thread may still be on its way back
    assert left() == []
    assert not predictor._taken


def left() -> list[str]:
    """What is still there of what was computed."""
    kinds = (Batch, Block, Chunk, NullKeeper, Part, Result, Stream, Window)
    return [type(each).__name__ for each in gc.get_objects() if issubclass(type(each), kinds)]
