from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.valkey_server import RunningValkey

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    with RunningValkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running
