"""The sequences of the Open Inference Protocol that are here, by account, model and the id that their client chose."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from hashlib import sha256
from typing import NamedTuple

from server.caller import Caller, Right
from server.durability.sequence import Identity
from server.edge.backend import Backend
from server.edge.oip.requests import Asked, Place, SequenceId
from server.edge.oip.served import Done, Life, ServedSequence, Ticket, User
from server.errors import Reason, SequenceGone, UnknownHandle
from server.runtime.turns import Work
from server.streams.closing import countdown

log = logging.getLogger(__name__)

_GLANCE = 1.0  # seconds between two looks for sequences that no client uses
_PIECE = 500  # sequences that are looked at without a break
_EARLY = 0.9  # of the idle time of sequences in general, so that none of these is put to sleep


class Key(NamedTuple):
    """What a sequence is found by. A number and a string are different ids."""

    account: str
    model: str
    id: SequenceId


class Sequences:
    """A sequence outlives calls and connections: it stays until a client ends it, or is parked once none uses it.

    One that was parked, here or at another server that shares the store, is resumed by its id with its next request.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._idle = _EARLY * backend.settings.idle_seconds
        self._keeps = backend.settings.store != "none"
        self._here: dict[Key, ServedSequence] = {}
        self._fence = 0
        self._aside = backend.turns.line()  # for those that leave together
        self._watching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    def ask(
        self, caller: Caller, asked: Asked, place: Place, user: User, done: Done, *, company: bool = False
    ) -> ServedSequence:
        """Carries out one request of a sequence; `done` is called with its answer, or why there is none.

        Returns the sequence. Raises Refusal.
        """
        caller.require(Right.PREDICT, asked.model)  # also of one that is here: rights may have changed meanwhile
        key = Key(caller.account, asked.model.partition("@")[0], place.id)
        ticket, here = Ticket(asked, place, done, company), self._here.get(key)
        if place.start:
            return self._start(key, caller, ticket, user, here)
        if here is None or here.life is Life.PARKING:
            return self._come(key, caller, user, here, lambda new: new.resume(ticket))
        if here.life is Life.ENDING:
            raise SequenceGone(f"sequence {place.id!r} of model '{key.model}' has ended", Reason.SEQUENCE_ENDED)
        here.user = user
        here.ask(ticket)
        return here

    def _start(
        self, key: Key, caller: Caller, ticket: Ticket, user: User, here: ServedSequence | None
    ) -> ServedSequence:
        if here is not None and here.life in (Life.COMING, Life.OPEN):
            if here.user.here and not ticket.place.restart:
                raise UnknownHandle(
                    f"sequence {key.id!r} of model '{key.model}' is running; end it, take another id, or send "
                    "sequence_restart with sequence_start",
                    Reason.SEQUENCE_RUNNING,
                )
            here.end()
        return self._come(key, caller, user, here, lambda new: new.start(ticket))

    def _come(
        self,
        key: Key,
        caller: Caller,
        user: User,
        before: ServedSequence | None,
        begin: Callable[[ServedSequence], None],
    ) -> ServedSequence:
        """A sequence is opened or resumed, once the one before it under its id is gone."""
        self._watch()
        new = ServedSequence(self._backend, caller, self._identity(key), user, partial(self._left, key))
        self._here[key] = new
        if before is None:
            begin(new)
        else:
            before.after(lambda: begin(new))
        return new

    def _identity(self, key: Key) -> Identity:
        digest = sha256("\0".join((key.account, key.model, type(key.id).__name__, str(key.id))).encode()).hexdigest()
        self._fence = max(self._fence, int(time.time() * 1_000)) + 1
        told = re.sub(r"[^\w.:-]", "_", str(key.id), flags=re.ASCII)[:64]
        return Identity.of(digest, told, self._fence)

    def _left(self, key: Key, sequence: ServedSequence) -> None:
        if self._here.get(key) is sequence:
            del self._here[key]

    def __len__(self) -> int:
        return len(self._here)

    # Leaving ----------------------------------------------------------------------------------------------------------

    def let_go(self, user: User, sequences: Iterable[ServedSequence], done: Callable[[], None]) -> None:
        """A client is gone: those that no other client uses are parked, where they are kept; then `done` is called."""
        coming = (Life.COMING, Life.GONE)
        those = [one for one in sequences if one.user is user and one.life not in coming] if self._keeps else []
        left = countdown(1 + len(those), done)
        for one in those:
            one.after(left)
        self._aside.run(self._park(those))
        left()

    def _park(self, sequences: Iterable[ServedSequence]) -> Work:
        for sequence in sequences:
            sequence.park()
            yield

    def _watch(self) -> None:
        """Looks after them from now on."""
        if self._watching is None:
            loop = asyncio.get_running_loop()
            self._watching = loop.create_task(self._look())
            if self._backend.settings.outlives:
                self._leaving = loop.create_task(self._leave())

    async def _look(self) -> None:
        """Parks those that no client has used for long, whose client is gone, or may not use their model any more."""
        while True:
            await asyncio.sleep(_GLANCE)
            here, allows = list(self._here.items()), cache(self._allows)
            for at in range(0, len(here), _PIECE):
                since = self._backend.keeper.monotonic() - self._idle
                piece = here[at : at + _PIECE]
                leave = [
                    s
                    for key, s in piece
                    if not allows(key.account, key.model) or (s.quiet and (s.used < since or self._is_over(s)))
                ]
                self._aside.run(self._park(leave))
                await asyncio.sleep(0)

    def _allows(self, account: str, model: str) -> bool:
        if allowed := self._backend.authority.allows(account, model):
            return allowed
        log.info("sequences of %s with model '%s' are parked: it may not predict with it any more", account, model)
        return False

    def _is_over(self, sequence: ServedSequence) -> bool:
        return self._keeps and not sequence.user.here

    async def _leave(self) -> None:
        """The server stops: parks all, and has it wait until they have left."""
        with self._backend.admission.call():
            await self._backend.admission.leaving.begun()
            while self._here:
                self._aside.run(self._park(list(self._here.values())))
                await asyncio.sleep(_GLANCE / 100)
