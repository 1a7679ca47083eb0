"""The server's numbers as a page for Prometheus, on a port of its own.

They are read when somebody asks for the page: taken in the event loop, and written out in the page's own thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server.durability.keeper import StoreReading
from server.operations.page import Page
from server.operations.reading import ModelReading, Reading
from server.runtime.counters import Counters, Histogram

_PATIENCE = 5.0  # seconds that the page waits for the event loop
_LABELS = ("model", "version")

_GAUGES: dict[str, tuple[str, Callable[[ModelReading], float]]] = {
    "sequences_open": ("Sequences that are open on a stream.", lambda r: r.open),
    "sequences_asleep": ("Those of them that are parked, because no step came for long.", lambda r: r.asleep),
    "batch_rows_limit": ("The most rows of a run.", lambda r: r.limit),
    "checkpoint_lag_steps": ("How far a sequence is ahead of its newest checkpoint, at most.", lambda r: r.lag_steps),
    "checkpoint_lag_seconds": ("For how long a state has waited to be written, at most.", lambda r: r.lag_seconds),
}
_COUNTERS: dict[str, tuple[str, Callable[[Counters], float]]] = {
    "sequences_opened": ("Sequences that clients opened.", lambda t: t.opened),
    "sequences_closed": ("Sequences that clients closed.", lambda t: t.closed),
    "sequences_parked": ("How often one left its stream and was kept, or was idle.", lambda t: t.parked),
    "sequences_resumed": ("How often a client came back to one.", lambda t: t.resumed),
    "checkpoints_written": ("States that the store took.", lambda t: t.written),
    "steps": ("Steps that were taken.", lambda t: t.steps),
    "steps_replayed": ("Those of them whose answers the client had had before.", lambda t: t.replayed),
}
_HISTOGRAMS: dict[str, tuple[str, Callable[[Counters], Histogram]]] = {
    "batch_rows": ("Rows of a run of the model, which takes one step of each.", lambda t: t.rows),
    "step_running_seconds": ("How long a run took.", lambda t: t.running),
    "step_waiting_seconds": ("From the coming of a message until its first step ran.", lambda t: t.waiting),
}


class Metrics(Collector):
    """Serves the page from `start` to `stop`. `read` is called in the event loop; see Page."""

    def __init__(self, read: Callable[[], Reading], silence: float) -> None:
        self._read = read
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def start(self, host: str, port: int) -> None:
        """Listens. Raises OSError: the port is not to be had."""
        try:
            self._page = Page(host.strip("[]"), port, make_wsgi_app(self._registry), self._silence)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port} for metrics: is the port taken?") from error

    async def stop(self) -> None:
        await asyncio.to_thread(self._page.stop)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the models."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """In the page's thread. Raises TimeoutError: the event loop does not answer."""
        return families(asyncio.run_coroutine_threadsafe(self._reading(), self._loop).result(_PATIENCE))

    async def _reading(self) -> Reading:
        return self._read()


def families(reading: Reading) -> Iterator[Metric]:
    yield GaugeMetricFamily("tidegate_streams_open", "Client streams.", reading.streams)
    yield from _of_models(reading.models)
    if reading.store is not None:
        yield from _of_store(reading.store)


def _of_models(models: Mapping[tuple[str, str], ModelReading]) -> Iterator[Metric]:
    for name, (text, gauged) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"tidegate_{name}", text, labels=_LABELS)
        for key, reading in models.items():
            gauge.add_metric(key, gauged(reading))
        yield gauge
    for name, (text, counted) in _COUNTERS.items():
        counter = CounterMetricFamily(f"tidegate_{name}", text, labels=_LABELS)
        for key, reading in models.items():
            counter.add_metric(key, counted(reading.counters))
        yield counter
    for name, (text, seen) in _HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"tidegate_{name}", text, labels=_LABELS)
        for key, reading in models.items():
            histogram.add_metric(key, _buckets(seen(reading.counters)), seen(reading.counters).sum)
        yield histogram


def _buckets(histogram: Histogram) -> list[tuple[str, int]]:
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    return list(zip(bounds, histogram.cumulated, strict=True))


def _of_store(store: StoreReading) -> Iterator[Metric]:
    yield GaugeMetricFamily("tidegate_store_up", "1 while the store of checkpoints answers, else 0.", store.answers)
    yield CounterMetricFamily("tidegate_store_errors", "Calls to the store that failed.", store.errors)
    yield GaugeMetricFamily(
        "tidegate_store_sequences", "Sequences in the store, open and parked, of all its servers.", store.sequences
    )
    yield GaugeMetricFamily("tidegate_store_bytes", "What they take, with what is known of those gone.", store.bytes)
    yield GaugeMetricFamily(
        "tidegate_sequences_unwritten", "Parked sequences that wait for the store.", store.unwritten
    )
    lost = CounterMetricFamily(
        "tidegate_sequences_lost",
        "Sequences that this server ended or lost without their client's will.",
        labels=("reason",),
    )
    for reason, count in store.lost.items():
        lost.add_metric((reason.lower(),), count)
    yield lost
