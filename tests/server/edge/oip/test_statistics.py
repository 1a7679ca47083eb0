"""Which requests count for a version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from server.edge.oip.requests import Asked
from server.edge.oip.statistics import Statistics
from server.errors import BadInput, PermissionDenied, TidegateError


@pytest.mark.parametrize(("error", "counted"), [(BadInput("a wrong shape"), 1), (PermissionDenied("it may not"), 0)])
def test_who_may_not_use_a_model_does_not_change_what_is_counted_of_it(error: TidegateError, counted: int) -> None:
    histogram = SimpleNamespace(sum=0.0, counts=[0])
    counters = SimpleNamespace(running=histogram, waiting=histogram, rows=histogram)
    model: Any = SimpleNamespace(name="weather", version=1, counters=counters)
    repository: Any = SimpleNamespace(find=lambda *_: model)
    statistics = Statistics(repository)
    statistics.note(Asked("1", "weather", 0, []), error, 0.1)
    assert statistics.of(model).inference_stats.fail.count == counted
