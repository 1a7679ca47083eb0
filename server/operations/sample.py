"""A moment of the whole server in numbers, taken in the event loop and used in any thread. Knows no metrics."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.durability.keeper import AnyKeeper, StoreSample
from server.repository.repository import Repository
from server.runtime.counters import Counters
from server.runtime.served_model import ServedModel


@dataclass(frozen=True, eq=False)
class ModelSample:
    """A version, together with the files that it had before and that still have sequences."""

    open: int
    asleep: int
    limit: int  # the most rows of a batch
    lag_steps: int
    lag_seconds: float
    counters: Counters  # all files of a version share them


@dataclass(frozen=True, eq=False)
class Sample:
    """Models by name and version; `store` is None where nothing is kept."""

    streams: int
    models: Mapping[tuple[str, str], ModelSample]
    store: StoreSample | None


def take(repository: Repository, keeper: AnyKeeper, streams: int) -> Sample:
    files = defaultdict[tuple[str, str], list[ServedModel]](list)
    for model in repository.served():
        files[model.name, str(model.version)].append(model)
    now = keeper.monotonic()
    return Sample(streams, {key: _of_version(models, now) for key, models in files.items()}, keeper.sample())


def _of_version(models: Sequence[ServedModel], now: float) -> ModelSample:
    for model in models:
        replaying = model.watermarks.replaying()
        model.counters.replayed += model.watermarks.replayed(replaying, model.slots.done)
    asleep = sum(model.asleep for model in models)
    return ModelSample(
        sum(model.slots.in_use for model in models) + asleep,
        asleep,
        max(model.loaded.engine.largest for model in models),
        max(model.watermarks.lag(model.slots.done) for model in models),
        max(model.watermarks.lag_seconds(model.slots.done, now) for model in models),
        models[0].counters + Counters(),
    )
