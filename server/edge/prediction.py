"""A whole sequence at once: opens a sequence on a stream of its own, runs one chunk, and keeps nothing."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.caller import Caller
from server.durability.null_keeper import NullKeeper
from server.errors import OverLimit, TidegateError
from server.runtime.input_check import Named
from server.runtime.turns import AT_ONCE, Turns, Work
from server.streams.allowance import Allowance
from server.streams.events import Answered, Event, Failed, Opened
from server.streams.opening import Beginning
from server.streams.stream import Catalogue, Stream
from server.streams.trace import Manner

_WINDOW = Allowance(2**22)  # bytes of answers that are computed before they are copied into the whole
_MOST_WAITING = 64  # predictions of one client that may wait for room
_MOST_BEGINNING = 2  # predictions that begin in one turn of the event loop: each takes a third of a millisecond
_CLIENTS = 4  # clients that may have as many bytes as one may, at the same time
_PART = 16  # one part of so many of what a client may have is kept for it, whatever the others have
_KEPT = 64  # clients for which it is


@dataclass(frozen=True, eq=False)
class Prediction:
    """`outputs[name]` [T, ...row], `trace` [traced, columns] or None; `opened` holds the model and the columns."""

    opened: Opened
    outputs: dict[str, np.ndarray]
    trace: np.ndarray | None


class Predictor:
    """Makes predictions. The bytes that are computed and not yet sent are bounded, for each client and for all.

    Clients that do not read their answers keep those of others waiting that are large, but not the small ones.

    Args:
        catalogue: where the models are.
        most: the most bytes that the answers of one client may take at a time.
        turns: share the time for long work between the clients.
    """

    def __init__(self, catalogue: Catalogue, most: int, turns: Turns = AT_ONCE) -> None:
        self._catalogue = catalogue
        self._most = most
        self._aside = turns.line()
        self._beginnings = _Beginnings()
        self._taken: Counter[str] = Counter()  # bytes, by the address of a client
        self._waiting: list[asyncio.Future[None]] = []
        self._queued: Counter[str] = Counter()  # of those, by address

    async def predict(
        self, caller: Caller, name: str, version: int, inputs: Named, manner: Manner, seed: int | None = None
    ) -> tuple[Prediction, int]:
        """Runs the steps `inputs` [T, ...row] from the model's initial state, in the same batches as any sequence.

        Returns the prediction and its bytes, which count until `release` is called.

        Raises:
            TidegateError: the request was refused, its answer would be too large, or a step could not be computed.
        """
        (made,), size = await self.predict_all(caller, name, version, [inputs], manner, seed)
        return made, size

    async def predict_all(
        self,
        caller: Caller,
        name: str,
        version: int,
        batch: Sequence[Named],
        manner: Manner,
        seed: int | None = None,
    ) -> tuple[list[Prediction], int]:
        """Likewise of several sequences of as many steps each. Their answers count together, before one is computed."""
        runs, size = list[_Run](), 0
        try:
            for inputs in batch:
                await self._beginnings.turn(caller.account)
                runs.append(_Run(self._catalogue, caller))
                runs[-1].stream.open(0, 1, name, version, manner, Beginning(seed=seed))
                if not size:
                    steps, each = runs[0].stream.measure(0, inputs)
                    self._check(steps * len(batch), each * len(batch))
                    await self._reserve(caller.account, each * len(batch))
                    size = each * len(batch)
                runs[-1].begin(steps, inputs)
            made = [await run.prediction() for run in runs]
        except BaseException:
            self.release(caller, size)
            raise
        finally:
            self._aside.run(_ended(runs))
        return made, size

    def release(self, caller: Caller, size: int) -> None:
        """An answer of so many bytes was sent, or will not be."""
        self._taken[caller.account] -= size
        if not self._taken[caller.account]:
            del self._taken[caller.account]
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def _check(self, steps: int, size: int) -> None:
        if size > self._most:
            raise OverLimit(
                f"the answer to {steps} steps would take {size / 2**20:.0f} MiB; {self._most / 2**20:g} MiB is the "
                "limit of one Predict. Select a smaller trace, send fewer steps, or send them on a stream"
            )

    async def _reserve(self, client: str, size: int) -> None:
        while not self._has_room(client, size):
            if self._queued[client] >= _MOST_WAITING:
                raise OverLimit(f"{_MOST_WAITING} of your predictions wait for room, which is the limit; try again")
            self._waiting.append(asyncio.get_running_loop().create_future())
            self._queued[client] += 1
            try:
                await self._waiting[-1]
            finally:
                self._queued -= Counter((client,))
        self._taken[client] += size

    def _has_room(self, client: str, size: int) -> bool:
        own = self._taken[client] + size
        if own <= self._most // _PART and (client in self._taken or len(self._taken) < _KEPT):
            return True
        return own <= self._most and self._taken.total() + size <= _CLIENTS * self._most


class _Beginnings:
    """Of predictions that come together a few begin in each turn of the event loop, of each client in turn."""

    def __init__(self) -> None:
        self._left = _MOST_BEGINNING  # in this turn
        self._of: dict[str, deque[asyncio.Future[None]]] = {}  # that wait, by client; whose turn is next is first
        self._due = False

    async def turn(self, client: str) -> None:
        """Returns once one more of this client may begin."""
        self._turn_later()
        if self._left and not self._of:
            self._left -= 1
            return
        waits = asyncio.get_running_loop().create_future()
        self._of.setdefault(client, deque()).append(waits)
        await waits

    def _turn_later(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._due, self._left = False, _MOST_BEGINNING
        while self._of and self._left:
            client = next(iter(self._of))
            line = self._of.pop(client)
            waits = line.popleft()
            if line:
                self._of[client] = line  # behind the others
            if not waits.done():
                waits.set_result(None)
                self._left -= 1
        if self._left < _MOST_BEGINNING:
            self._turn_later()


def _ended(runs: list["_Run"]) -> Work:
    """Ends what still runs, and frees all."""
    while runs:
        runs.pop().abandon()
        yield


class _Run:
    """One sequence of a prediction: its stream, and what takes the stream's events and puts the answers together."""

    def __init__(self, catalogue: Catalogue, caller: Caller) -> None:
        self._collector = _Collector()
        self.stream = Stream(catalogue, NullKeeper(), 1, _WINDOW, self._collector.take, caller)

    def begin(self, steps: int, inputs: Named) -> None:
        """Takes all steps. Raises Refusal."""
        self._collector.stream, self._collector.steps = self.stream, steps
        self.stream.steps(0, 0, inputs)
        self.stream.close(0, 1)

    async def prediction(self) -> Prediction:
        """What came of it. Raises TidegateError."""
        await self._collector.ended.wait()
        return self._collector.prediction()

    def abandon(self) -> None:
        self.stream.abandon()
        self._collector.stream = None  # they refer to each other


class _Collector:
    """Takes the events of a prediction's stream, and puts the answers together."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.stream: Stream | None = None
        self.steps = 0
        self._opened: Opened | None = None
        self._outputs: dict[str, np.ndarray] = {}
        self._trace: np.ndarray | None = None
        self._traced = 0
        self._error: TidegateError | None = None

    def take(self, event: Event) -> None:
        match event:
            case Opened():
                self._opened = event
            case Answered():
                self._add(event)
                if self.stream is not None:
                    self.stream.written(event.size)
            case Failed():
                self._error = self._error or event.error
            case _:
                self.ended.set()

    def _add(self, answered: Answered) -> None:
        first = answered.first_step
        for name, rows in zip(answered.form.names, answered.outputs, strict=True):
            if name not in self._outputs:
                self._outputs[name] = np.empty((self.steps, *rows.shape[1:]), rows.dtype)
            self._outputs[name][first : first + len(rows)] = rows
        if answered.trace is not None:
            if self._trace is None:
                self._trace = np.empty((self.steps, answered.trace.shape[1]), answered.trace.dtype)
            self._trace[self._traced : self._traced + len(answered.trace)] = answered.trace
            self._traced += len(answered.trace)

    def prediction(self) -> Prediction:
        """The whole prediction. Raises TidegateError: the first error."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback refers to this frame
        assert self._opened is not None
        return Prediction(self._opened, self._outputs, None if self._trace is None else self._trace[: self._traced])
