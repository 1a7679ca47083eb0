"""The server's numbers as a page for Prometheus, on a port of its own.

They are read when the page is asked for: taken in the event loop, and written out in the page's own thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily as Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server.durability.keeper import StoreSample
from server.edge.certificates import CertificateSample
from server.edge.transports import place
from server.operations.exposure import refused
from server.operations.page import Page
from server.operations.sample import ModelSample, Sample
from server.runtime import counters

_PATIENCE = 5.0  # seconds that the page waits for the event loop
Table = dict[str, tuple[type[Counter | Gauge | Histogram], str, str]]  # by name: the family, where it is read, its help
_OF_MODELS: Table = {
    "sequences_limit": (Gauge, "capacity", "The most that may be open."),
    "sequences_open": (Gauge, "open", "Sequences that are open on a stream."),
    "sequences_asleep": (Gauge, "asleep", "Those of them that are parked, because no step came for long."),
    "batch_rows_limit": (Gauge, "limit", "The most rows of a run."),
    "checkpoint_lag_steps": (Gauge, "lag_steps", "How far a sequence is ahead of its newest checkpoint, at most."),
    "checkpoint_lag_seconds": (Gauge, "lag_seconds", "For how long a state has waited to be written, at most."),
    "sequences_opened": (Counter, "counters.opened", "Sequences that clients opened."),
    "sequences_closed": (Counter, "counters.closed", "Sequences that clients closed."),
    "sequences_parked": (Counter, "counters.parked", "How often one left its stream and was kept, or was idle."),
    "sequences_resumed": (Counter, "counters.resumed", "How often a client came back to one."),
    "checkpoints_written": (Counter, "counters.written", "States that the store took."),
    "steps": (Counter, "counters.steps", "Steps that were taken."),
    "steps_replayed": (Counter, "counters.replayed", "Those of them whose answers the client had had before."),
    "batch_rows": (Histogram, "counters.rows", "Rows of a run of the model, which takes one step of each."),
    "step_running_seconds": (Histogram, "counters.running", "How long a run took."),
    "step_waiting_seconds": (Histogram, "counters.waiting", "From the coming of a message until its first step ran."),
}
_OF_STORE: Table = {
    "store_up": (Gauge, "answers", "1 while the store of checkpoints answers, else 0."),
    "store_errors": (Counter, "errors", "Calls to the store that failed."),
    "store_sequences": (Gauge, "sequences", "Sequences in the store, open and parked, of all its servers."),
    "store_sequences_parked": (Gauge, "parked", "Those of them that are parked."),
    "store_bytes": (Gauge, "bytes", "What they take, with what is known of those gone."),
    "store_limit_bytes": (Gauge, "limit", "What they may take; beyond, those parked for longest are evicted."),
    "store_seconds": (Histogram, "took", "How long calls of the store took."),
    "store_waiting_seconds": (Histogram, "waited", "From when the store was asked until it began."),
    "sequences_unwritten": (Gauge, "unwritten", "Parked sequences that wait for the store."),
}
_OF_SERVER: Table = {
    "streams_open": (Gauge, "streams", "Client streams."),
    "streams_limit": (Gauge, "streams_limit", "The most that may be open."),
    "tasks": (Gauge, "tasks", "Tasks of asyncio: what the server has under way."),
    "loop_late_seconds": (Histogram, "late", "How late the event loop was, looked at 20 times a second."),
}
_REFUSED = "Requests that were refused, by reason, and by the token of who asked."
_MODELS = "Versions of models, by what became of their files."
_OF_CERTIFICATE: Table = {
    "certificate_expires_seconds": (
        Gauge,
        "expires",
        "When the certificate that new connections get expires, as a time.",
    ),
    "certificate_failed_reads": (Counter, "failures", "How often its files had changed and could not be used."),
}
_LOST = "Sequences that this server ended or lost without their client's will."


class Metrics(Collector):
    """Serves the page from `start` to `stop`. `read` is called in the event loop."""

    def __init__(self, read: Callable[[], Sample], silence: float) -> None:
        self._read = read
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def start(self, host: str, port: int) -> None:
        """Listens. Raises OSError: the port is taken."""
        try:
            self._page = Page(host.strip("[]"), port, make_wsgi_app(self._registry), self._silence)
        except OSError as error:
            raise refused(f"{place(host, port)} for metrics", error) from error

    async def stop(self) -> None:
        await asyncio.to_thread(self._page.stop)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the metrics depend on the models."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """In the page's thread. Raises TimeoutError: the event loop does not answer."""
        sample = asyncio.run_coroutine_threadsafe(self._sample(), self._loop)
        try:
            return families(sample.result(_PATIENCE))
        except TimeoutError:
            sample.cancel()
            raise TimeoutError(f"the event loop did not answer within {_PATIENCE:g} s") from None

    async def _sample(self) -> Sample:
        return self._read()


def families(sample: Sample) -> Iterator[Metric]:
    yield from _families(_OF_SERVER, (), {(): sample})
    yield _counted(Counter("tidegate_refusals", _REFUSED, labels=("reason", "owner")), sample.refused)
    yield _counted(Gauge("tidegate_models", _MODELS, labels=("state",)), sample.files)
    yield from _families(_OF_MODELS, ("model", "version"), sample.models)
    if sample.certificate is not None:
        yield from _families(_OF_CERTIFICATE, (), {(): sample.certificate})
    if sample.store is not None:
        yield from _families(_OF_STORE, (), {(): sample.store})
        lost = {(reason,): count for reason, count in sample.store.lost.items()}
        yield _counted(Counter("tidegate_sequences_lost", _LOST, labels=("reason",)), lost)


def _counted(family: Counter | Gauge, counts: Mapping[Any, int]) -> Metric:
    for (first, *others), count in counts.items():
        family.add_metric((first.lower(), *others), count)
    return family


def _families(
    table: Table, labels: Sequence[str], samples: Mapping[Any, ModelSample | StoreSample | CertificateSample | Sample]
) -> Iterator[Metric]:
    for name, (kind, where, text) in table.items():
        family, value = kind(f"tidegate_{name}", text, labels=labels), attrgetter(where)
        for key, sample in samples.items():
            family.add_metric(key, *_added(value(sample)))
        yield family


def _added(value: float | counters.Histogram) -> tuple[Any, ...]:
    """A value as `add_metric` takes it; a histogram as the number of values up to each bound, and their sum."""
    if not isinstance(value, counters.Histogram):
        return (value,)
    bounds = [*map(floatToGoString, value.bounds), "+Inf"]
    return list(zip(bounds, value.cumulated, strict=True)), value.sum
