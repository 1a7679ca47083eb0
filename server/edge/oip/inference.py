"""Answers requests, of a sequence or of none, and counts them."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from time import perf_counter

import numpy as np

from server.caller import Caller, Right
from server.edge.backend import Backend
from server.edge.oip.requests import Asked, Steps, steps_of
from server.edge.oip.responses import Made, wants_trace
from server.edge.oip.sequences import Sequences
from server.edge.oip.served import Done, Result, User
from server.edge.oip.statistics import Statistics
from server.errors import OverLimit, TidegateError
from server.futures import settle
from server.runtime.served_model import ServedModel
from server.streams.handles import row_bytes
from server.streams.trace import Manner, Selection, plan

log = logging.getLogger(__name__)

_SMALL = 2**16  # bytes of an answer
_ADDRESSES = 4  # all together may have so many times what one may


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A request of no sequence that was not refused so far."""

    model: ServedModel
    steps: Steps
    manner: Manner


class Inference:
    """What unary calls and streams share."""

    def __init__(self, backend: Backend) -> None:
        self.sequences = Sequences(backend)
        self.statistics = Statistics(backend.repository)
        self._backend = backend
        self._unread = Counter[str]()  # bytes of large answers of sequences, by account

    def counted(self, asked: Asked, done: Done) -> Done:
        """Counts a request that has come, once it has its result, and passes that on."""
        began = perf_counter()

        def note(result: Result) -> None:
            self.statistics.note(asked, result, perf_counter() - began)
            done(result)

        return note

    async def infer(self, caller: Caller, asked: Asked, user: User) -> tuple[Made, Callable[[], None]]:
        """The answer to a call, and what gives back its bytes, which count until then. Raises TidegateError."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        done = self.counted(asked, partial(settle, answer))
        if asked.place is None:
            prepared = self.prepared(caller, asked, done)
            size = 0 if prepared is None else await self.predict(caller, prepared, done)
            left: Callable[[], None] = partial(self.release, caller, size)
        else:
            left = self._asked(caller, asked, user, done)
        try:
            return _made(await answer), left
        except BaseException:
            left()
            raise
        finally:
            del answer, done  # an error refers to this frame

    def _asked(self, caller: Caller, asked: Asked, user: User, done: Done) -> Callable[[], None]:
        left = self.reserve(caller, 0)
        try:
            left = self.reserve(caller, self.expected(asked))
            assert asked.place is not None, "it is of a sequence"
            self.sequences.ask(caller, asked, asked.place, user, done)
        except TidegateError as error:
            done(error)
            del done  # the error refers to this frame
        return left

    def expected(self, asked: Asked) -> int:
        """About how many bytes the answer will take; 0 for a request that will be refused."""
        try:
            model = self._backend.repository.find(asked.model, asked.version)
            rows = {port.name: prod(port.row) for port in model.graph.inputs}
            steps = max((x.size // rows[name] for name, x in asked.inputs if rows.get(name)), default=1)
            traced = wants_trace(asked.outputs, model.graph)
        except TidegateError:
            return 0
        return steps * row_bytes(model, plan(Selection(none=not traced), model.graph))

    def reserve(self, caller: Caller, size: int) -> Callable[[], None]:
        """Counts an answer of a sequence until the function that is returned gives its bytes back.

        Raises OverLimit: so many wait already. Small ones are bounded by the number of calls and streams.
        """
        if size <= _SMALL:
            return partial(self._give_back, caller.account, 0)
        most = self._backend.settings.address_bytes
        if self._unread[caller.account] + size > most or self._unread.total() + size > _ADDRESSES * most:
            raise OverLimit(
                f"{self._unread[caller.account] / 2**20:.0f} MiB of answers {caller.whence} were not read yet, and "
                f"{most / 2**20:g} MiB is the limit: read them before more is asked for"
            )
        self._unread[caller.account] += size
        return partial(self._give_back, caller.account, size)

    def _give_back(self, account: str, size: int) -> None:
        if size:
            self._unread -= Counter({account: size})

    def refused(self, caller: Caller, error: TidegateError) -> None:
        """Notes that a request of a stream was refused."""
        self._backend.refusals.note(error, caller, "ModelStreamInfer")

    # Of no sequence ---------------------------------------------------------------------------------------------------

    def prepared(self, caller: Caller, asked: Asked, done: Done) -> Prepared | None:
        """What `predict` takes; None: it is refused, which `done` was told. So a flood of those needs no tasks."""
        try:
            return self._looked_at(caller, asked)
        except TidegateError as error:
            done(error)
            del done  # the error refers to this frame
        except Exception:
            log.exception("a request failed")
            done(TidegateError("the server failed; its log has the details"))
        return None

    async def predict(self, caller: Caller, prepared: Prepared, done: Done) -> int:
        """Every row of a request begins in the model's initial state, and nothing is kept.

        Returns the bytes of the answer, which count until they are released.
        """
        taken = list[int]()
        try:
            done(await self._predicted(caller, prepared, taken))
        except TidegateError as error:
            self.release(caller, sum(taken))
            taken.clear()
            done(error)
            del done  # the error refers to this frame
        except BaseException:
            self.release(caller, sum(taken))
            raise
        return sum(taken)

    def release(self, caller: Caller, size: int) -> None:
        """An answer of so many bytes was sent, or will not be."""
        if size:
            self._backend.predictor.release(caller, size)

    def _looked_at(self, caller: Caller, asked: Asked) -> Prepared:
        caller.require(Right.PREDICT, asked.model)
        model = self._backend.admission.find(asked.model, asked.version, 1)
        steps, most = steps_of(asked.inputs, model.graph.inputs), self._backend.settings.max_batch
        if steps.batch > most:
            raise OverLimit(f"a batch of {steps.batch} rows came; {most} is the limit")
        return Prepared(model, steps, Manner(Selection(none=not wants_trace(asked.outputs, model.graph))))

    async def _predicted(self, caller: Caller, prepared: Prepared, taken: list[int]) -> Made:
        model, steps = prepared.model, prepared.steps
        with self._backend.admission.call():
            made, size = await self._backend.predictor.predict_all(
                caller, model.name, model.version, steps.batch, steps.inputs, prepared.manner
            )
        taken.append(size)
        count = next(iter(made.outputs.values())).shape[1]
        outputs = {name: [_rows_together(x)] for name, x in made.outputs.items()}
        trace = None if made.trace is None else [_rows_together(made.trace)]
        return Made(model, outputs, trace, steps.batch, count, steps.axes)


def _rows_together(x: np.ndarray) -> np.ndarray:
    """[rows, T, ...] as [rows * T, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _made(result: Result) -> Made:
    if not isinstance(result, TidegateError):
        return result
    try:
        raise result
    finally:
        del result  # it refers to this frame
