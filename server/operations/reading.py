"""A moment of the whole server in numbers, taken in the event loop and free to be used anywhere. Knows no metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.durability.keeper import Keeper
from server.durability.store_thread import StoreThread
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
class StoreReading:
    """The store, as far as this server knows. `sequences` and `bytes` are of all servers that share it."""

    answers: bool
    errors: int
    sequences: int
    bytes: int
    unwritten: int
    lost: Mapping[str, int]  # by reason


@dataclass(frozen=True, eq=False)
class Reading:
    """Models by name and version; no store: nothing is kept."""

    streams: int
    models: Mapping[tuple[str, str], ModelReading]
    store: StoreReading | None


def take(repository: Repository, keeper: Keeper | None, store_thread: StoreThread | None, streams: int) -> Reading:
    """How things stand now."""
    models: dict[tuple[str, str], ModelReading] = {}
    for model in repository.served():
        key, reading = (model.name, str(model.version)), _of_model(model, keeper)
        models[key] = models[key] + reading if key in models else reading
    return Reading(
        streams, models, _of_store(keeper, store_thread) if keeper is not None and store_thread is not None else None
    )


def _of_model(model: ServedModel, keeper: Keeper | None) -> ModelReading:
    lag_steps, lag_seconds, done = 0, 0.0, model.slots.done
    if keeper is not None:
        keeper.count_replayed(model)
        lag_steps = model.watermarks.lag(done)
        lag_seconds = model.watermarks.lag_seconds(done, keeper.monotonic())
    return ModelReading(
        model.slots.in_use + model.asleep,
        model.asleep,
        model.loaded.engine.largest,
        lag_steps,
        lag_seconds,
        model.counters + Counters(),
    )


def _of_store(keeper: Keeper, store_thread: StoreThread) -> StoreReading:
    usage = keeper.usage
    return StoreReading(
        store_thread.failing_since is None,
        store_thread.errors,
        usage.sequences,
        usage.bytes,
        keeper.unwritten,
        dict(keeper.lost),
    )
