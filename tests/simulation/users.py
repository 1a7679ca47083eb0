"""Those who use the real client: each has a sequence or a fleet, does in order what it is told, checks every answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tests.shelf import MODEL
from tests.truth import Truth
from tidegate.errors import ConnectionLost, Refused, SequenceLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.simulation.world import World
    from tidegate import AsyncClient
    from tidegate.aio_sequence import AsyncFleet, AsyncSequence
    from tidegate.answers import Answer

NAN = np.array([np.nan, 0, 0], np.float32)
# What a user is told when nothing is wrong with what it asked: it asks again later.
LATER = {"STORE_UNAVAILABLE", "TOO_MANY_SEQUENCES", "DRAINING", "MODEL_NOT_READY"}
LOST = {"SEQUENCE_EVICTED", "SEQUENCE_EXPIRED"}
PAUSE = 1.0  # seconds before it asks again

T = TypeVar("T")
Order = tuple[Any, ...]


class User:
    """What all have in common: orders, which are carried out one after the other."""

    def __init__(self, world: World, client: AsyncClient) -> None:
        self.world = world
        self.client = client
        self.over = ""  # why it is
        self.working = True
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self.task = asyncio.create_task(self._live())

    @property
    def idle(self) -> bool:
        """Whether it has done what it was told."""
        return bool(self.over) or (not self.working and self._orders.empty())

    def tell(self, *order: Any) -> None:  # noqa: ANN401 - a word and what belongs to it
        """One more thing to do."""
        self._orders.put_nowait(order)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of its sequences."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many sequences it has."""
        return 1

    async def begin(self) -> None:
        """Gets what it works with."""
        raise NotImplementedError

    async def _live(self) -> None:
        try:
            await self.begin()
            self.working = False
            while not self.over:
                word, *given = await self._orders.get()
                self.working = True
                await getattr(self, word)(*given)
                self.working = False
        except SequenceLost as error:
            known = {self.world.store.why_gone(name) for name in self.ids}
            taken = error.reason == "TAKEN_OVER" and self.world.taken.intersection(self.ids)
            if error.reason not in LOST & known and not taken:
                raise AssertionError(f"{self.ids} are lost without reason: {known}") from error
            self.over = error.reason
            self.inherit()

    def inherit(self) -> None:
        """What is lost may have left something behind."""

    async def later(self, call: Callable[[], Awaitable[T]], check: Callable[[], None]) -> T:
        """Tries until it is not told to come again; `check` looks whether nothing changed meanwhile."""
        while True:
            try:
                return await call()
            except Refused as error:
                if error.reason not in LATER:
                    raise
                check()
            await asyncio.sleep(PAUSE)

    async def obtain(self, call: Callable[[], Awaitable[T]]) -> T:
        """The same for who has nothing yet that could go on by itself."""
        while True:
            try:
                return await self.later(call, lambda: None)
            except ConnectionLost:
                await asyncio.sleep(PAUSE)


class Single(User):
    """Has one sequence. `given`: with a state, it begins there; `private`: it is alone on its client."""

    sequence: AsyncSequence

    def __init__(
        self,
        world: World,
        client: AsyncClient,
        version: int = 1,
        given: tuple[AsyncSequence, Truth] | None = None,
        *,
        private: bool = False,
    ) -> None:
        self.truth = Truth(world.loaded, version)
        self._private = private
        if given is not None:
            self.sequence, self.truth = given
        super().__init__(world, client)

    @property
    def ids(self) -> tuple[str, ...]:
        return (self.sequence.id,)

    async def begin(self) -> None:
        if not hasattr(self, "sequence"):
            self.sequence = await self.obtain(self._open)
        assert self.sequence.next_step == self.truth.end
        assert self.sequence.version == self.truth.version

    async def _open(self) -> AsyncSequence:
        return await self.client.sequence(MODEL, version=self.truth.version)

    # What it can be told.

    async def step(self, rows: np.ndarray) -> None:
        for row in rows:
            self._take(await self.later(lambda row=row: self.sequence.step(row), self._check_unchanged), row)

    async def chunk(self, rows: np.ndarray) -> None:
        answers = await self.later(lambda: self.sequence.chunk(rows), self._check_unchanged)
        assert len(answers) == len(rows)
        for answer, row in zip(answers, rows, strict=True):
            self._take(answer, row)

    async def stream(self, rows: np.ndarray, window: int, pause: float = 0.0) -> None:
        """With a pause of so many seconds after each row, whether its answer is there or not, if there is time."""
        first = self.truth.end

        async def go_on() -> None:
            left = list(rows[self.truth.end - first :])
            given = self._now_and_then(left, pause) if pause else left
            async for answer in self.sequence.stream(given, window=window):
                self._take(answer, rows[self.truth.end - first])

        await self.later(go_on, self._check_unchanged)
        assert self.truth.end == first + len(rows)

    async def _now_and_then(self, rows: list[np.ndarray], pause: float) -> AsyncIterator[np.ndarray]:
        for row in rows:
            yield row
            await asyncio.sleep(0.0 if self.world.settling else pause)

    async def bad_step(self) -> None:
        try:
            await self.sequence.step(NAN)
        except Refused as error:
            if error.reason not in {"NOT_FINITE", *LATER}:
                raise
            self._check_unchanged()
            return
        raise AssertionError("a step that is no number was taken")

    async def read(self) -> None:
        state = await self.later(self.sequence.state, self._check_unchanged)
        assert (state.step, state.version) == (self.truth.end, self.truth.version)
        found = np.concatenate([array.ravel() for array in state.arrays.values()])
        np.testing.assert_array_equal(found, self.truth.states[-1])

    async def fork(self) -> None:
        if self._private or self.world.crowded:  # the first would leave it behind when it comes back
            return
        other = await self.later(self.sequence.fork, self._check_unchanged)
        self.world.users.append(Single(self.world, self.client, given=(other, self.truth.fork())))

    async def rewind(self, back: int) -> None:
        wanted = max(self.truth.start, self.truth.end - back)
        try:
            step = await self.later(lambda: self.sequence.rewind(wanted), self._check_unchanged)
        except Refused as error:
            if error.reason != "CHECKPOINT_GONE":
                raise
        else:
            assert self.truth.start <= step <= wanted
            self.truth.cut(step)
        self._check_unchanged()

    async def move(self, version: int) -> None:
        step = await self.later(lambda: self.sequence.move(version), self._check_unchanged)
        assert step == self.truth.end
        self.truth.version = version
        self._check_unchanged()

    async def close(self) -> None:
        name = self.sequence.id
        await self.later(self._close_twice, lambda: None)
        await self.sequence.close()
        self.over = "closed"
        self.world.closed.add(name)

    async def _close_twice(self) -> None:
        await asyncio.gather(self.sequence.close(), self.sequence.close())

    async def come_back(self) -> None:
        """Leaves with its client, and takes the sequence up with another one."""
        if not self._private:
            return
        id_, token = self.sequence.id, self.sequence.resume_token
        safe = self.sequence._books.order is None  # whether the server has told of any checkpoint
        await self.client.close()
        self.client = self.world.client()
        try:
            self.sequence = await self.obtain(lambda: self._take_up(id_, token))
        except SequenceLost as error:
            if safe or error.reason != "UNKNOWN_SEQUENCE":
                raise
            self.sequence = await self.obtain(self._open_anew)
        await self._again(self.sequence.next_step)

    async def _open_anew(self) -> AsyncSequence:
        truth = self.truth
        assert not truth.start, "a private sequence begins at step 0"
        return await self.client.sequence(MODEL, version=truth.version_at[0] if truth.rows else truth.version)

    async def _take_up(self, id_: str, token: str) -> AsyncSequence:
        return await self.client.resume(id_, token, answered=self.truth.end)

    async def _again(self, step: int) -> None:
        """Gives the server the inputs that it wants once more, and looks whether it answers as before."""
        truth = self.truth
        assert truth.start <= step <= truth.end
        for at in range(step - truth.start, len(truth.rows)):
            await self._be_at(truth.version_at[at])
            row = truth.rows[at]
            self._check(await self.later(lambda row=row: self.sequence.step(row), lambda: None), at)
        await self._be_at(truth.version)

    async def _be_at(self, version: int) -> None:
        if self.sequence.version != version:
            await self.later(lambda: self.sequence.move(version), lambda: None)

    # What it looks at.

    def _take(self, answer: Answer, row: np.ndarray) -> None:
        self.truth.take(row)
        self._check(answer, len(self.truth.rows) - 1)

    def _check(self, answer: Answer, at: int) -> None:
        assert answer.step == self.truth.start + at
        assert answer.output.tobytes() == self.truth.outputs[at], f"another output at step {answer.step}"
        assert answer.trace is not None
        assert answer.trace.tobytes() == self.truth.traces[at], f"another trace at step {answer.step}"

    def _check_unchanged(self) -> None:
        assert self.sequence.next_step == self.truth.end
        assert self.sequence.version == self.truth.version


class Heir(Single):
    """Goes on with a member of a fleet that is lost because of others."""

    def __init__(self, world: World, client: AsyncClient, truth: Truth, name: str, token: str) -> None:
        super().__init__(world, client)
        self.truth = truth
        self._name, self._token = name, token

    @property
    def ids(self) -> tuple[str, ...]:
        return (self._name,)

    async def begin(self) -> None:
        try:
            self.sequence = await self.obtain(lambda: self._take_up(self._name, self._token))
        except SequenceLost as error:
            if error.reason != "UNKNOWN_SEQUENCE":
                raise
            self.over = "never kept"
            return
        await self._again(self.sequence.next_step)


class Taker(User):
    """Takes over a sequence that another has, with a client of its own, and leaves it as it is."""

    def __init__(self, world: World, name: str, token: str, answered: int) -> None:
        super().__init__(world, world.client())
        self._claim = (name, token, answered)

    @property
    def ids(self) -> tuple[str, ...]:
        return self._claim[:1]

    async def begin(self) -> None:
        name, token, answered = self._claim
        with suppress(SequenceLost):  # who has it may have closed it, or lost it
            await self.obtain(lambda: self._take_up(name, token, answered))
        await self.client.close()
        self.over = "left"

    async def _take_up(self, name: str, token: str, answered: int) -> AsyncSequence:
        return await self.client.resume(name, token, answered=answered)


class Many(User):
    """Has a fleet."""

    fleet: AsyncFleet

    def __init__(self, world: World, client: AsyncClient, count: int) -> None:
        self.truths = [Truth(world.loaded, 1) for _ in range(count)]
        super().__init__(world, client)

    @property
    def ids(self) -> tuple[str, ...]:
        return self.fleet.ids

    @property
    def size(self) -> int:
        return len(self.truths)

    async def begin(self) -> None:
        self.fleet = await self.obtain(self._open)

    async def _open(self) -> AsyncFleet:
        return await self.client.fleet(MODEL, len(self.truths), version=1)

    async def step(self, members: list[int], rows: np.ndarray) -> None:
        answers = await self.later(lambda: self.fleet.step(rows, members), self._check_unchanged)
        assert answers.members.tolist() == members
        assert answers.trace is not None
        for at, (member, row) in enumerate(zip(members, rows, strict=True)):
            truth = self.truths[member]
            assert answers.steps[at] == truth.end
            truth.take(row)
            assert answers.output[at].tobytes() == truth.outputs[-1]
            assert answers.trace[at].tobytes() == truth.traces[-1]

    async def close(self) -> None:
        await self.later(self.fleet.close, lambda: None)
        self.over = "closed"
        self.world.closed.update(self.fleet.ids)

    def inherit(self) -> None:
        for name, truth in zip(self.fleet.ids, self.truths, strict=True):
            if not self.world.store.why_gone(name):
                self.world.users.append(Heir(self.world, self.client, truth, name, self.fleet.resume_token))

    def _check_unchanged(self) -> None:
        assert self.fleet.next_steps.tolist() == [truth.end for truth in self.truths]
