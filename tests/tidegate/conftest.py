from collections.abc import Iterator

import pytest

import tidegate
from tests.tidegate.fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[tidegate.Client]:
    with tidegate.connect(server.address) as connected:
        yield connected
