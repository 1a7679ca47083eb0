"""A moment of the whole server in numbers, taken in the event loop and free to be used anywhere. Knows no metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.durability.keeper import AnyKeeper, StoreReading
from server.repository.repository import Repository
from server.runtime.counters import Counters
from server.runtime.served_model import ServedModel


@dataclass(frozen=True, eq=False)
class ModelReading:
    """A version, together with those of the same number that it replaced and that still have sequences.

    They share one tally: it counts once, as the later of the two has seen it.
    """

    open: int
    asleep: int
    limit: int  # the most rows of a batch
    lag_steps: int
    lag_seconds: float
    counters: Counters

    def __add__(self, other: "ModelReading") -> "ModelReading":
        return ModelReading(
            self.open + other.open,
            self.asleep + other.asleep,
            max(self.limit, other.limit),
            max(self.lag_steps, other.lag_steps),
            max(self.lag_seconds, other.lag_seconds),
            other.counters,
        )


@dataclass(frozen=True, eq=False)
class Reading:
    """Models by name and version; no store: nothing is kept."""

    streams: int
    models: Mapping[tuple[str, str], ModelReading]
    store: StoreReading | None


def take(repository: Repository, keeper: AnyKeeper, streams: int) -> Reading:
    models: dict[tuple[str, str], ModelReading] = {}
    for model in repository.served():
        key, reading = (model.name, str(model.version)), _of_model(model, keeper.monotonic())
        models[key] = models[key] + reading if key in models else reading
    return Reading(streams, models, keeper.reading())


def _of_model(model: ServedModel, now: float) -> ModelReading:
    watermarks, done = model.watermarks, model.slots.done
    model.counters.replayed += watermarks.replayed(watermarks.replaying(), done)
    return ModelReading(
        model.slots.in_use + model.asleep,
        model.asleep,
        model.loaded.engine.largest,
        watermarks.lag(done),
        watermarks.lag_seconds(done, now),
        model.counters + Counters(),
    )
