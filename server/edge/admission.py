"""Who may come in: counts streams, and closes the door when the server drains.

An own limit, because grpc.aio's maximum_concurrent_rpcs cannot be relied on (grpc issue 41531).
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from server.errors import Draining, OverLimit, Reason
from server.repository.repository import Repository
from server.runtime.served_model import ServedModel


class Admission:
    """Finds models for those who may open sequences. Lives in the event loop.

    Args:
        repository: where the models are.
        max_streams: the most streams at a time.
        moves: whether open sequences can go on elsewhere when this server stops, so that nobody has to wait for them.
    """

    def __init__(self, repository: Repository, max_streams: int, moves: bool) -> None:
        self._repository = repository
        self._moves = moves
        self.leaving = asyncio.Event()  # set when open sequences are to go elsewhere
        self._max_streams = max_streams
        self._streams = 0
        self._calls = 0  # streams and predictions
        self._draining = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams

    async def drain(self, seconds: float) -> None:
        """From now on nothing new is opened. Waits for what is under way to end, but not longer than `seconds`."""
        self._draining = True
        if self._moves:
            self.leaving.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), seconds)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A place for one stream.

        Raises:
            OverLimit, Draining: there is none.
        """
        self._check_open()
        if self._streams >= self._max_streams:
            raise OverLimit(
                f"{self._max_streams} streams are open, which is the limit; share a stream between sequences",
                Reason.TOO_MANY_STREAMS,
            )
        self._streams += 1
        try:
            with self.call():
                yield
        finally:
            self._streams -= 1

    @contextmanager
    def call(self) -> Iterator[None]:
        """A place for one call that a server which stops should wait for."""
        self._calls += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._quiet.set()

    def find(self, name: str, version: int) -> ServedModel:
        """The model to open sequences of. Raises Refusal."""
        self._check_open()
        return self._repository.find(name, version)

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model of this very content, to continue sequences of. Raises Refusal."""
        self._check_open()
        return self._repository.exact(name, version, sha256)

    def _check_open(self) -> None:
        if self._draining:
            raise Draining("this server is stopping and opens nothing new; connect to another or try again later")
