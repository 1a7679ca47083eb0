"""Some hundred drawn connections; `python -m tests.server.edge.http2.fuzz 100000` takes many."""

import pytest

from tests.server.edge.http2.fuzz import run


@pytest.mark.parametrize("seed", range(2))
def test_connections_whole_and_damaged_are_judged_as_another_library_judges_them(seed: int) -> None:
    found = run(300, seed)
    assert not [what for what in found if what.startswith("differs")]
    assert found["the connection ended"]
    assert found["the connection goes on"] >= found["whole"]
