"""Which requests count for a version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from server.edge.oip.requests import Asked
from server.edge.oip.statistics import Statistics
from server.edge.oip.stubs import grpc_service_pb2 as pb
from server.errors import BadInput, PermissionDenied, TidegateError
from server.runtime.counters import Counters


@pytest.mark.parametrize(("error", "counted"), [(BadInput("a wrong shape"), 1), (PermissionDenied("it may not"), 0)])
def test_who_may_not_use_a_model_does_not_change_what_is_counted_of_it(error: TidegateError, counted: int) -> None:
    histogram = SimpleNamespace(sum=0.0, counts=[0])
    counters = SimpleNamespace(running=histogram, waiting=histogram, rows=histogram, steps=0)
    model: Any = SimpleNamespace(name="weather", version=1, counters=counters)
    repository: Any = SimpleNamespace(find=lambda *_: model)
    statistics = Statistics(repository)
    statistics.note(Asked("1", "weather", 0, []), error, 0.1)
    assert told(statistics.of(model)).inference_stats.fail.count == counted


def test_what_is_said_of_a_model_is_made_again_only_once_something_has_happened_to_it() -> None:
    counters = Counters()
    model: Any = SimpleNamespace(name="weather", version=1, counters=counters)
    statistics = Statistics(SimpleNamespace(find=lambda *_: model))  # type: ignore[arg-type]
    first = statistics.of(model)
    assert statistics.of(model) is first
    counters.ran(3, 2, 0.5)
    second = statistics.of(model)
    assert told(second).execution_count == 2
    assert statistics.of(model) is second
    statistics.note(Asked("1", "weather", 0, []), BadInput("a wrong shape"), 0.1)
    assert told(statistics.of(model)).inference_stats.fail.count == 1


def told(message: bytes) -> pb.ModelStatistics:
    (model,) = pb.ModelStatisticsResponse.FromString(message).model_stats
    return model
