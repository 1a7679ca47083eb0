"""Which calls are served: counts streams and calls, of all and by address, and refuses them when the server drains.

An own limit, because grpc.aio's maximum_concurrent_rpcs cannot be relied on (grpc issue 41531).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from server.caller import Caller
from server.contexts import Held
from server.errors import Draining, OverLimit, Reason
from server.meter import Places
from server.repository.repository import Repository
from server.runtime.served_model import ServedModel
from server.settings import Settings


class Admission:
    """Finds the models of new sequences, and bounds the calls. Used in the event loop.

    Args:
        repository: where the models are.
        settings: how many calls are served, and whether sequences can go on elsewhere when this server stops.
    """

    def __init__(self, repository: Repository, settings: Settings) -> None:
        self._repository = repository
        self._moves = settings.outlives
        self.leaving = Leaving()
        most = settings.most_streams
        self._streams = _Calls("streams", most, settings.share_of(most), "share a stream between sequences")
        self._answers = _Calls("calls", most, settings.share_of(most), "read the answers to those before")
        self._watches = _Calls("calls that watch", most, settings.share_of(most), "share one")
        self._calls = 0  # streams and predictions that a server which stops waits for
        self._draining = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def streams(self) -> int:
        return self._streams.places.count

    @property
    def most_streams(self) -> int:
        return self._streams.places.most

    @property
    def ready(self) -> bool:
        """Whether new sequences are taken, of some model."""
        return not self._draining and bool(self._repository.served())

    async def drain(self, seconds: float) -> None:
        """Opens nothing new from now on. Waits for calls that are under way, but not longer than `seconds`."""
        self._draining = True
        if self._moves:
            self.leaving.begin()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), seconds)

    def stream(self, caller: Caller) -> Held[str | None]:
        """Takes a place for one stream while it is served. Raises OverLimit, Draining."""
        self._check_open()
        self._streams.take(caller)
        return self.call(caller.account)

    def call(self, account: str | None = None) -> Held[str | None]:
        """A server that stops waits for this call. `account`: it is a stream of this account."""
        self._calls += 1
        self._quiet.clear()
        return Held(self, account)

    def give_back(self, account: str | None) -> None:
        """See Lender."""
        if account is not None:
            self._streams.give_back(account)
        self._calls -= 1
        if not self._calls:
            self._quiet.set()

    def answer(self, caller: Caller) -> Callable[[], None]:
        """A place for one call, given back by the function that is returned. Raises OverLimit."""
        return self._answers.taken(caller)

    def watch(self, caller: Caller) -> Callable[[], None]:
        """Likewise for a call that goes on until its client ends it. Raises OverLimit."""
        return self._watches.taken(caller)

    def find(self, name: str, version: int, new: int = 0) -> ServedModel:
        """The model to open so many sequences of. Raises Refusal."""
        self._check_open()
        return self._repository.find(name, version, new)

    def exact(self, name: str, version: int, sha256: str) -> ServedModel:
        """The model with this hash of its file, to continue sequences of. Raises Refusal."""
        self._check_open()
        return self._repository.exact(name, version, sha256)

    def _check_open(self) -> None:
        if self._draining:
            raise Draining("this server is stopping and opens nothing new; connect to another or try again later")


class Leaving:
    """Whether open sequences are to go elsewhere, and what is to be called when that begins."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._calls: set[Callable[[], None]] = set()

    def begin(self) -> None:
        self._begun.set()
        while self._calls:
            self._calls.pop()()

    async def begun(self) -> None:
        """Returns once that has begun."""
        await self._begun.wait()

    def add(self, call: Callable[[], None]) -> None:
        """Calls it once that begins, or now."""
        if self._begun.is_set():
            call()
        else:
            self._calls.add(call)

    def discard(self, call: Callable[[], None]) -> None:
        """Does not call it any more."""
        self._calls.discard(call)


class _Calls:
    """Places for calls of a kind."""

    def __init__(self, what: str, most: int, share: int, advice: str) -> None:
        self.places = Places(most, share)
        self.give_back = self.places.give_back
        self._what = what
        self._advice = advice

    def taken(self, caller: Caller) -> Callable[[], None]:
        """Takes one; the function that is returned gives it back. Raises OverLimit."""
        self.take(caller)
        return partial(self.give_back, caller.account)

    def take(self, caller: Caller) -> None:
        """Takes one. Raises OverLimit."""
        places = self.places
        if places.take(caller.account):
            return
        if (own := places.of[caller.account]) >= places.of_one:
            why = f"{own} {self._what} are open {caller.whence}, which is the limit of one"
        elif places.count >= places.most:
            why = f"{places.most} {self._what} are open, which is the limit"
        else:
            why = f"{places.count} {self._what} are open, and the last {places.most - places.count} are for who has few"
        raise OverLimit(f"{why}; {self._advice}", Reason.TOO_MANY_STREAMS)
