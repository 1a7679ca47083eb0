from collections.abc import Iterator

import pytest

import tidegate
from tests.tidegate.fake_server import AT_ONCE, FakeServer, Store


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """It keeps checkpoints."""
    with FakeServer(store=Store()) as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[tidegate.Client]:
    """It comes back at once."""
    with tidegate.connect(server.address, resuming=AT_ONCE) as connected:
        yield connected
