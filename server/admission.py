"""Who may come in: counts streams, and closes the door when the server drains.

An own limit, because grpc.aio's maximum_concurrent_rpcs cannot be relied on (grpc issue 41531).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import Draining, OverLimit
from server.model import ServedModel
from server.repository import Repository
from tidegate.v1 import error_pb2


class Admission:
    """Finds models for those who may open sequences. Lives in the event loop."""

    def __init__(self, repository: Repository, max_streams: int) -> None:
        self._repository = repository
        self._max_streams = max_streams
        self._streams = 0
        self._draining = False

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams

    def drain(self) -> None:
        """From now on nothing new is opened."""
        self._draining = True

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
                error_pb2.REASON_TOO_MANY_STREAMS,
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def find(self, name: str, version: int) -> ServedModel:
        """The model to open sequences of. Raises Refusal."""
        self._check_open()
        return self._repository.find(name, version)

    def _check_open(self) -> None:
        if self._draining:
            raise Draining("this server is stopping and opens nothing new; connect to another or try again later")
