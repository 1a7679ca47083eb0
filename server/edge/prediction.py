"""Whole sequences at once: opens them on a stream of their own, takes all their steps, and keeps nothing."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from server.caller import Caller, Right
from server.durability.null_keeper import NullKeeper
from server.errors import OverLimit, TidegateError
from server.runtime.input_check import Named
from server.runtime.served_model import ServedModel
from server.runtime.turns import AT_ONCE, Turns, once
from server.streams.allowance import Allowance
from server.streams.events import Answered, Event, Failed, FleetAnswered, Opened
from server.streams.handles import row_bytes
from server.streams.opening import Beginning, Catalogue
from server.streams.stream import Stream
from server.streams.trace import Manner, plan

_WINDOW = Allowance(2**22)  # bytes of answers that are computed before they are copied into the whole
_MOST_WAITING = 64  # predictions of one client that may wait for room
_MOST_BEGINNING = 2  # predictions that begin in one turn of the event loop: each takes a third of a millisecond
_CLIENTS = 4  # clients that may have as many bytes as one may, at the same time
_TOGETHER = 8  # rows of a batch whose steps are taken without a break: that costs as much as a step of all rows
_PART = 16  # one part of so many of what a client may have is kept for it, whatever the others have
_KEPT = 64  # clients for which it is


@dataclass(frozen=True, eq=False)
class Prediction:
    """`outputs[name]` [T, ...row], `trace` [traced, columns] or None; of a batch each has an axis of rows before these.

    `opened` holds the model and the columns.
    """

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
        self._turns, self._aside = turns, turns.line()
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
        rows = [(port, x[np.newaxis]) for port, x in inputs]
        made, size = await self.predict_all(caller, name, version, 1, rows, manner, seed)
        outputs = {port: x[0] for port, x in made.outputs.items()}
        return Prediction(made.opened, outputs, None if made.trace is None else made.trace[0]), size

    async def predict_all(
        self,
        caller: Caller,
        name: str,
        version: int,
        rows: int,
        inputs: Named,
        manner: Manner,
        seed: int | None = None,
    ) -> tuple[Prediction, int]:
        """Likewise of a batch: `inputs` are [rows, T, ...row], and so is what is predicted.

        Its answers count together, before one is computed.
        """
        caller.require(Right.PREDICT, name)
        model = self._catalogue.find(name, version, rows)
        steps = model.check.count([(port, x[0]) for port, x in inputs])
        size = rows * steps * row_bytes(model, plan(manner.selection, model.graph), manner.values)
        self._check(rows * steps, size)
        await self._reserve(caller.account, size)
        run = _Run(self._catalogue, caller, rows, steps, self._turns)
        try:
            await self._beginnings.turn(caller.account)
            await run.open(model, manner, seed)
            for at, part in enumerate(run.parts()):
                if at:
                    await self._beginnings.turn(caller.account)
                run.begin(*part, inputs)
            made = await run.prediction()
        except BaseException:
            self.release(caller, size)
            raise
        finally:
            self._aside.run(once(run.abandon))
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


class _Run:
    """The rows of a prediction, which are sequences of one stream, and what puts their answers together."""

    def __init__(self, catalogue: Catalogue, caller: Caller, rows: int, steps: int, turns: Turns) -> None:
        self._rows, self._steps = rows, steps
        self._collector = _Collector(rows, steps)
        self.stream = Stream(catalogue, NullKeeper(), rows, _WINDOW, self._collector.take, caller, turns=turns)
        self._collector.stream = self.stream

    async def open(self, model: ServedModel, manner: Manner, seed: int | None) -> None:
        """Opens a sequence for each row. Raises Refusal."""
        self.stream.open(0, self._rows, model.name, model.version, manner, Beginning(seed=seed))
        await self._collector.opened.wait()
        self._collector.check()

    def parts(self) -> Iterator[tuple[range, range]]:
        """The rows and steps of what is taken without a break: one step of all rows, or all steps of a few rows."""
        rows, steps = self._rows, self._steps
        if rows > 1 and (steps == 1 or _TOGETHER * steps <= rows):
            return ((range(rows), range(step, step + 1)) for step in range(steps))
        return ((range(at, min(at + _TOGETHER, rows)), range(steps)) for at in range(0, rows, _TOGETHER))

    def begin(self, rows: range, steps: range, inputs: Named) -> None:
        """Takes a part of the steps `inputs` [rows, T, ...row]. Raises TidegateError."""
        self._collector.check()  # what failed is said before what follows from it
        if len(rows) > 1 and len(steps) == 1:
            handles, step = np.arange(len(rows)), np.full(len(rows), steps.start)
            self.stream.fleet(handles, step, [(port, x[:, steps.start]) for port, x in inputs])
        else:
            for row in rows:
                self.stream.steps(row, 0, [(port, x[row]) for port, x in inputs], company=self._rows > 1)
        if rows.stop == self._rows and steps.stop == self._steps:
            self.stream.close(0, self._rows)

    async def prediction(self) -> Prediction:
        """What came of it. Raises TidegateError."""
        await self._collector.ended.wait()
        self._collector.check()
        return self._collector.prediction()

    def abandon(self) -> None:
        """Ends what still runs, and frees all."""
        self.stream.abandon()
        self._collector.stream = None  # they refer to each other


class _Collector:
    """Takes the events of a prediction's stream, and puts the answers together."""

    def __init__(self, rows: int, steps: int) -> None:
        self.opened, self.ended = asyncio.Event(), asyncio.Event()
        self.stream: Stream | None = None
        self._rows, self._steps = rows, steps
        self._opened: Opened | None = None
        self._outputs: dict[str, np.ndarray] = {}
        self._trace: np.ndarray | None = None
        self._traced = np.zeros(rows, np.intp)  # steps of each row that are in the trace
        self._error: TidegateError | None = None

    def take(self, event: Event) -> None:
        match event:
            case Opened():
                self._opened = event
                self.opened.set()
            case Answered():
                self._add(event, event.handle, slice(event.first_step, event.first_step + len(event.outputs[0])))
            case FleetAnswered():
                self._add(event, event.handles, event.steps)
            case Failed():
                self._error = self._error or event.error
                self.opened.set()  # or never will be
            case _:
                self.ended.set()

    def _add(self, event: Answered | FleetAnswered, rows: int | np.ndarray, steps: slice | np.ndarray) -> None:
        for name, x in zip(event.form.names, event.outputs, strict=True):
            if name not in self._outputs:
                self._outputs[name] = np.empty((self._rows, self._steps, *x.shape[1:]), x.dtype)
            self._outputs[name][rows, steps] = x
        if event.trace is not None:
            self._add_trace(event.trace, rows)
        if self.stream is not None:
            self.stream.written(event.size)

    def _add_trace(self, trace: np.ndarray, rows: int | np.ndarray) -> None:
        """Of the next steps of a row, or of a step of each of several."""
        if self._trace is None:
            self._trace = np.empty((self._rows, self._steps, trace.shape[1]), trace.dtype)
        if isinstance(rows, int):
            at = self._traced.item(rows)
            self._trace[rows, at : at + len(trace)] = trace
            self._traced[rows] += len(trace)
        else:
            self._trace[rows, self._traced[rows]] = trace
            self._traced[rows] += 1

    def check(self) -> None:
        """Raises TidegateError: the first error."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback refers to this frame

    def prediction(self) -> Prediction:
        assert self._opened is not None
        trace = None if self._trace is None else self._trace[:, : self._traced.item(0)]
        return Prediction(self._opened, self._outputs, trace)
