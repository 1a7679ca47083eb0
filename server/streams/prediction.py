"""A whole sequence at once: opens a sequence of its own, runs the chunk, and keeps nothing."""

import asyncio
from dataclasses import dataclass

import numpy as np

from server.caller import Caller
from server.durability.null_keeper import NullKeeper
from server.errors import TidegateError
from server.runtime.input_check import Named
from server.streams.events import Answered, Event, Failed, Opened
from server.streams.stream import Catalogue, Stream
from server.streams.trace import Manner, Selection


@dataclass(frozen=True, eq=False)
class Prediction:
    """`outputs[name]` [T, ...row], `trace` [traced, columns] or None; what `opened` says of model and columns."""

    opened: Opened
    outputs: dict[str, np.ndarray]
    trace: np.ndarray | None


async def predict(
    catalogue: Catalogue, caller: Caller, name: str, version: int, inputs: Named, selection: Selection
) -> Prediction:
    """Runs the steps `inputs` [T, ...row] from the model's initial state, through the same batches as any sequence.

    Raises:
        TidegateError: the request was refused, or a step could not be computed.
    """
    collector = _Collector()
    stream = collector.stream = Stream(catalogue, NullKeeper(), 1, 2**62, collector.take, caller)
    try:
        stream.open(0, 1, name, version, Manner(selection))
        stream.steps(0, 0, inputs)
        stream.close(0, 1)
        await collector.ended.wait()
    finally:
        stream.abandon()
    return collector.prediction()


class _Collector:
    stream: Stream

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._opened: Opened | None = None
        self._answers: list[Answered] = []
        self._error: TidegateError | None = None

    def take(self, event: Event) -> None:
        match event:
            case Opened():
                self._opened = event
            case Answered():
                self._answers.append(event)
                self.stream.written(event.size)
            case Failed():
                self._error = self._error or event.error
            case _:
                self.ended.set()

    def prediction(self) -> Prediction:
        if self._error is not None:
            raise self._error
        assert self._opened is not None
        names = self._answers[0].form.names
        outputs = {name: np.concatenate([a.outputs[i] for a in self._answers]) for i, name in enumerate(names)}
        traces = [a.trace for a in self._answers if a.trace is not None]
        return Prediction(self._opened, outputs, np.concatenate(traces) if traces else None)
