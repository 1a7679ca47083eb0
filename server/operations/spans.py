"""OpenTelemetry spans by OTLP over HTTP: one for each unary call and for each stay of a sequence, none for a step.

Imported only where an endpoint is set. What is sent, where to, and which of them are sampled, the variables of
OpenTelemetry say too (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, ...).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from time import monotonic

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.lives import Living
from server.operations.journal import Budget

_SERVICE = "tidegate"
_RATE = 100  # spans of sequences that are begun in a second; the others have none
_MOST = 5_000  # spans of sequences that are under way
_BAD = {"checkpoint_gone", "internal", "sequence_evicted", "not opened"}
_PROPAGATOR = TraceContextTextMapPropagator()


class Spans:
    """A `lives.Watcher`, and what `Backend` tells of calls.

    Args:
        endpoint: where to, without /v1/traces; empty: as the variables of OpenTelemetry say.
        environment: those variables.
        clock: seconds.
    """

    def __init__(self, endpoint: str, environment: Mapping[str, str], clock: Callable[[], float] = monotonic) -> None:
        named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if named else {"service.name": _SERVICE})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_SERVICE)
        self._budget = Budget(_RATE, clock)
        self._stays: dict[str, Span] = {}  # by id

    def stop(self) -> None:
        """Ends all spans and sends what is left: takes as long as the receiver does."""
        for span in self._stays.values():
            span.end()
        self._provider.shutdown()

    # Calls ------------------------------------------------------------------------------------------------------------

    def call(self, request: str, trace: str) -> tuple[Callable[[], None], Callable[[str], None]]:
        """Begins a call under the client's traceparent: what ends it, and what says why it was refused."""
        span = self._tracer.start_span(request, _parent(trace), SpanKind.SERVER, {"rpc.system": "grpc"})

        def failed(reason: str) -> None:
            span.set_attribute("error.type", reason)
            span.set_status(Status(StatusCode.ERROR, reason))

        return span.end, failed

    # Sequences --------------------------------------------------------------------------------------------------------

    def came(self, those: Sequence[Living]) -> None:
        room = min(len(those), _MOST - len(self._stays))
        for one in islice(those, self._budget.take(room, "")):
            name, version = one.place
            span = self._tracer.start_span(
                f"sequence {name}",
                _parent(one.trace),
                SpanKind.SERVER,
                {
                    "tidegate.sequence": one.id,
                    "tidegate.model": name,
                    "tidegate.version": str(version),  # up to 2^64 - 1
                    "tidegate.owner": one.owner,
                },
            )
            if span.is_recording():
                span.add_event("resumed" if one.resumed else "opened", {"tidegate.step": one.taken})
                self._stays[one.id] = span

    def kept(self, those: Sequence[Living], steps: Sequence[int]) -> None:
        if self._stays:
            for one, step in zip(those, steps, strict=True):
                if span := self._stays.get(one.id):
                    span.add_event("checkpoint", {"tidegate.step": step})

    def moved(self, one: Living, before: tuple[str, int]) -> None:
        if span := self._stays.get(one.id):
            span.add_event("moved", {"tidegate.version": str(one.place[1]), "tidegate.version.before": str(before[1])})

    def left(self, those: Sequence[Living], why: str) -> None:
        if self._stays:
            for one in those:
                if span := self._stays.pop(one.id, None):
                    span.set_attributes({"tidegate.steps": one.taken, "tidegate.why": why})
                    if why in _BAD:
                        span.set_status(Status(StatusCode.ERROR, why))
                    span.end()

    def gone(self, ids: Sequence[str], why: str) -> None:
        """They are on no stream, so there is no span of theirs."""


def _parent(trace: str) -> Context | None:
    return _PROPAGATOR.extract({"traceparent": trace}) if trace else None
