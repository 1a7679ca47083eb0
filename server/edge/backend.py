"""What all protocols of a server are built on: one of each, so that limits hold whatever protocols a client speaks."""

import asyncio
from collections.abc import Callable

from server.access.authority import Authority
from server.caller import Caller
from server.durability.keeper import AnyKeeper
from server.edge.admission import Admission
from server.edge.callers import Peer, anybody, caller_of
from server.edge.incoming import Incoming
from server.edge.pace import Pace
from server.edge.prediction import Predictor
from server.edge.refusals import Refusals
from server.errors import TidegateError
from server.repository.repository import Repository
from server.runtime.turns import REST, Turns
from server.settings import Settings
from server.streams.allowance import Allowances


class Backend:
    """The models and sequences of a server, and what bounds its clients."""

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        admission: Admission,
        keeper: AnyKeeper,
        authority: Authority | None = None,
    ) -> None:
        self.settings = settings
        self.repository = repository
        self.admission = admission
        self.keeper = keeper
        self.authority = authority or Authority()
        self.refusals = Refusals()
        self.incoming = Incoming(settings)
        self.pace = Pace(lambda call: asyncio.get_running_loop().call_soon(call))
        self.turns = Turns(lambda call: asyncio.get_running_loop().call_soon(call), rest=REST)
        self.allowances = Allowances(settings.window_bytes, settings.address_bytes)
        self.predictor = Predictor(admission, settings.max_answer_bytes)

    def caller(self, context: Peer) -> Caller:
        """The client of a call, to be asked for the rights that the call needs. Raises Unauthenticated."""
        return caller_of(context, self.authority)

    def noted(self, context: Peer, request: str) -> Callable[[TidegateError], None]:
        """Notes that a call of this kind was refused."""

        def note(error: TidegateError) -> None:
            try:
                caller = self.caller(context)
            except TidegateError:
                caller = anybody(context)
            self.refusals.note(error, caller, request)

        return note
