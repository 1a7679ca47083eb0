"""Requests of one stream that came at the same time."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import grpc

from server.edge.exchanges.dialect import Bundle, Call, Request


class Company:
    """The requests of one message or several, which are taken together where that can be done.

    Args:
        most: how many are taken together.
    """

    __slots__ = ("_apart", "_most", "after", "requests")

    def __init__(self, most: int) -> None:
        self._most = most
        self.requests: Iterator[Request] | None = None  # None: there are none
        self._apart = 0  # so many are taken one by one; below 0: all
        self.after: Request | Bundle | None = None  # a message that came with them, and after them

    def unpack(self, bundle: Bundle) -> None:
        self.requests, self._apart = iter(bundle.requests), -1 if bundle.apart else 0

    def gather(self, first: Request, call: Call) -> bool:
        """Takes the requests that are here besides the first; False: there are none, or each is taken by itself."""
        together = [first]
        while len(together) < self._most and call.several and (message := call.take()) is not None:
            if isinstance(message, Bundle) or message is grpc.aio.EOF:
                self.after = message
                break
            together.append(message)
        if len(together) == 1 and self.after is None:
            return False
        self.requests, self._apart = iter(together), 0
        return True

    def several(self) -> list[Request]:
        """Those that are next, if they may be taken together; `next` takes the first of them by itself."""
        if self.requests is None or self._apart:
            return []
        those = list(islice(self.requests, self._most))
        self.requests, self._apart = chain(those, self.requests), len(those)
        return those if len(those) > 1 else []

    def took(self, those: Sequence[Request]) -> None:
        """They were taken together."""
        assert self.requests is not None
        next(islice(self.requests, len(those) - 1, None))
        self._apart = 0

    def next(self) -> Request | None:
        """The next; None: there is none."""
        request = None if self.requests is None else next(self.requests, None)
        self.requests = None if request is None else self.requests
        self._apart -= 1
        return request

    def clear(self) -> None:
        self.requests = None
