"""A moment of the whole server in numbers, taken in the event loop and used in any thread. Knows no metrics."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.durability.keeper import AnyKeeper, StoreSample
from server.edge.admission import Admission
from server.edge.certificates import Certificates, CertificateSample
from server.edge.refusals import Refusals
from server.repository.entry import State
from server.repository.repository import Repository
from server.runtime.counters import Counters, Histogram
from server.runtime.served_model import ServedModel


@dataclass(frozen=True, eq=False)
class ModelSample:
    """A version, together with the files that it had before and that still have sequences."""

    open: int
    asleep: int
    capacity: int  # the most that may be open
    limit: int  # the most rows of a batch
    lag_steps: int
    lag_seconds: float
    counters: Counters  # all files of a version share them


@dataclass(frozen=True, eq=False)
class Sample:
    """Models by name and version; `store` is None where nothing is kept, `certificate` without TLS."""

    streams: int
    streams_limit: int
    tasks: int  # of asyncio
    late: Histogram  # of the event loop, in seconds
    refused: Mapping[tuple[str, str], int]  # requests, by reason and token
    files: Mapping[tuple[State], int]  # versions, by state
    models: Mapping[tuple[str, str], ModelSample]
    store: StoreSample | None
    certificate: CertificateSample | None


def take(
    repository: Repository,
    keeper: AnyKeeper,
    admission: Admission,
    refusals: Refusals,
    late: Histogram,
    tls: Certificates | None = None,
) -> Sample:
    files = defaultdict[tuple[str, str], list[ServedModel]](list)
    for model in repository.served():
        files[model.name, str(model.version)].append(model)
    now = keeper.monotonic()
    return Sample(
        admission.streams,
        admission.most_streams,
        len(asyncio.all_tasks()),
        late.copy(),
        dict(refusals.counts),
        {(state,): 0 for state in State} | Counter((entry.state,) for entry in repository.entries()),
        {key: _of_version(models, now) for key, models in files.items()},
        keeper.sample(),
        None if tls is None else tls.sample(),
    )


def _of_version(models: Sequence[ServedModel], now: float) -> ModelSample:
    for model in models:
        replaying = model.watermarks.replaying()
        model.counters.replayed += model.watermarks.replayed(replaying, model.slots.done)
    asleep = sum(model.asleep for model in models)
    return ModelSample(
        sum(model.slots.in_use for model in models) + asleep,
        asleep,
        models[0].slots.in_use + models[0].slots.free,
        max(model.loaded.engine.largest for model in models),
        max(model.watermarks.lag(model.slots.done) for model in models),
        max(model.watermarks.lag_seconds(model.slots.done, now) for model in models),
        models[0].counters + Counters(),
    )
