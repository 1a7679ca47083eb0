"""Answers requests, of a sequence or of none, and counts them."""

import asyncio
import logging
from functools import partial
from time import perf_counter

import numpy as np

from server.caller import Caller, Right
from server.edge.backend import Backend
from server.edge.oip.requests import Asked, steps_of
from server.edge.oip.responses import Made, wants_trace
from server.edge.oip.sequences import Sequences
from server.edge.oip.served import Done, Result, User
from server.edge.oip.statistics import Statistics
from server.edge.prediction import Prediction
from server.errors import OverLimit, TidegateError
from server.futures import settle
from server.runtime.input_check import Named
from server.runtime.served_model import ServedModel
from server.streams.trace import Manner, Selection

log = logging.getLogger(__name__)


class Inference:
    """What unary calls and streams share."""

    def __init__(self, backend: Backend) -> None:
        self.sequences = Sequences(backend)
        self.statistics = Statistics(backend.repository)
        self._backend = backend

    def counted(self, asked: Asked, done: Done) -> Done:
        """Counts a request that has come, once it has its result, and passes that on."""
        began = perf_counter()

        def note(result: Result) -> None:
            self.statistics.note(asked, result, perf_counter() - began)
            done(result)

        return note

    async def infer(self, caller: Caller, asked: Asked, user: User) -> tuple[Made, int]:
        """The answer to a call, and its bytes, which count until they are released. Raises TidegateError."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        done, size = self.counted(asked, partial(settle, answer)), 0
        try:
            if asked.place is None:
                size = await self.predict(caller, asked, done)
            else:
                self.sequences.ask(caller, asked, asked.place, user, done)
        except TidegateError as error:
            done(error)
        result = await answer
        if isinstance(result, TidegateError):
            raise result
        return result, size

    def refused(self, caller: Caller, error: TidegateError) -> None:
        """Notes that a request of a stream was refused."""
        self._backend.refusals.note(error, caller, "ModelStreamInfer")

    # Of no sequence ---------------------------------------------------------------------------------------------------

    async def predict(self, caller: Caller, asked: Asked, done: Done) -> int:
        """Every row of a request begins in the model's initial state, and nothing is kept.

        Returns the bytes of the answer, which count until they are released.
        """
        taken = list[int]()
        try:
            done(await self._predicted(caller, asked, taken))
        except TidegateError as error:
            self.release(caller, sum(taken))
            taken.clear()
            done(error)
        except BaseException:
            self.release(caller, sum(taken))
            raise
        return sum(taken)

    def release(self, caller: Caller, size: int) -> None:
        """An answer of so many bytes was sent, or will not be."""
        if size:
            self._backend.predictor.release(caller, size)

    async def _predicted(self, caller: Caller, asked: Asked, taken: list[int]) -> Made:
        caller.require(Right.PREDICT, asked.model)
        model = self._backend.admission.find(asked.model, asked.version, 1)
        steps, most = steps_of(asked.inputs, model.graph.inputs), self._backend.settings.max_batch
        if steps.batch > most:
            raise OverLimit(f"a batch of {steps.batch} rows came; {most} is the limit")
        manner = Manner(Selection(none=not wants_trace(asked.outputs, model.graph)))
        rows = [[(name, x[row]) for name, x in steps.inputs] for row in range(steps.batch)]
        with self._backend.admission.call():
            made = await asyncio.gather(
                *(self._row(caller, model, row, manner, taken) for row in rows), return_exceptions=True
            )
        for error in made:
            if isinstance(error, BaseException):
                raise error
        predictions = [one for one in made if isinstance(one, Prediction)]
        outputs = {name: np.stack([one.outputs[name] for one in predictions]) for name in predictions[0].outputs}
        traces = [one.trace for one in predictions if one.trace is not None]
        return Made(model, outputs, np.stack(traces) if traces else None, steps.axes)

    async def _row(
        self, caller: Caller, model: ServedModel, row: Named, manner: Manner, taken: list[int]
    ) -> Prediction:
        made, size = await self._backend.predictor.predict(caller, model.name, model.version, row, manner)
        taken.append(size)
        return made
