"""How many requests each version has answered, in what time: counted here, with what its batches say of themselves."""

from contextlib import suppress
from dataclasses import dataclass
from time import time

from server.edge.oip.requests import Asked
from server.edge.oip.responses import Made
from server.edge.oip.served import Result
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.errors import PermissionDenied, TidegateError
from server.repository.repository import Repository
from server.runtime.counters import Histogram
from server.runtime.served_model import ServedModel


@dataclass(slots=True)
class _Tally:
    """Requests of this protocol to one version."""

    answered: int = 0
    answered_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    steps: int = 0  # rows, over all requests and all of their steps
    last_ms: int = 0  # since 1970
    # what was said last, and when it was true
    written: tuple[object, ...] = ()
    message: bytes = b""

    @property
    def counts(self) -> tuple[int, ...]:
        """Change whenever anything does."""
        return self.answered, self.answered_ns, self.failed, self.failed_ns


class Statistics:
    """Counts requests from when the server began."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._tallies: dict[tuple[str, int], _Tally] = {}

    def note(self, asked: Asked, result: Result, seconds: float) -> None:
        """A request has this result. Not counted: what no version could answer, and what the caller may not ask."""
        if isinstance(result, Made):
            tally = self._tally(result.model)
            tally.answered += 1
            tally.answered_ns += int(seconds * 1e9)
            tally.steps += result.batch * result.steps
            tally.last_ms = int(time() * 1e3)
            return
        if isinstance(result, PermissionDenied):
            return
        with suppress(TidegateError):
            tally = self._tally(self._repository.find(asked.model, asked.version))
            tally.failed += 1
            tally.failed_ns += int(seconds * 1e9)

    def _tally(self, model: ServedModel) -> _Tally:
        return self._tallies.setdefault((model.name, model.version), _Tally())

    def of(self, model: ServedModel) -> bytes:
        """What Triton says of a model, as a ModelStatisticsResponse: made again once something has happened to it."""
        tally, counters = self._tally(model), model.counters
        now = tally.counts, counters.running.sum, counters.waiting.sum, counters.steps
        if now != tally.written:
            tally.written = now
            tally.message = pb.ModelStatisticsResponse(model_stats=[_written(model, tally)]).SerializeToString()
        return tally.message


def _written(model: ServedModel, tally: _Tally) -> pb.ModelStatistics:
    """A step waits for a batch, which computes steps of all protocols: how long that takes is the mean over them."""
    counters = model.counters
    infer = int(_mean(counters.running) * 1e9 * tally.steps)
    queue = int(_mean(counters.waiting) * 1e9 * tally.answered)
    stats = pb.InferStatistics(
        success=pb.StatisticDuration(count=tally.answered, ns=tally.answered_ns),
        fail=pb.StatisticDuration(count=tally.failed, ns=tally.failed_ns),
        queue=pb.StatisticDuration(count=tally.answered, ns=queue),
        compute_input=pb.StatisticDuration(count=tally.answered),
        compute_infer=pb.StatisticDuration(count=tally.answered, ns=infer),
        compute_output=pb.StatisticDuration(count=tally.answered),
    )
    return pb.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=tally.last_ms,
        inference_count=tally.steps,
        execution_count=sum(counters.rows.counts),
        inference_stats=stats,
    )


def _mean(histogram: Histogram) -> float:
    return histogram.sum / max(1, sum(histogram.counts))
