"""What all protocols of a server are built on: one of each, so that limits hold whatever protocols a client speaks."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from server.access.authority import Authority
from server.caller import Caller
from server.durability.keeper import AnyKeeper
from server.edge.admission import Admission
from server.edge.callers import Peer, anybody, caller_of, trace_of
from server.edge.exchanges.pace import Pace
from server.edge.exchanges.rounds import Rounds
from server.edge.incoming import Incoming
from server.edge.prediction import Predictor
from server.edge.refusals import Refusals
from server.errors import Reason, TidegateError
from server.repository.repository import Repository
from server.runtime.loop_turn import ENDLESS, LoopTurn
from server.runtime.turns import REST, Turns
from server.settings import Settings
from server.streams.allowance import Allowances

_STREAMS = {"Stream", "ModelStreamInfer"}  # whose sequences are traced, each by itself


class Tracer(Protocol):
    """What records calls as spans."""

    def call(self, request: str, trace: str) -> tuple[Callable[[], None], Callable[[str], None]]:
        """Begins a call under the client's traceparent: what ends it, and what says why it was refused."""


class Backend:
    """The models and sequences of a server, and what bounds its clients."""

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        admission: Admission,
        keeper: AnyKeeper,
        authority: Authority | None = None,
        turn: LoopTurn = ENDLESS,
    ) -> None:
        self.settings = settings
        self.repository = repository
        self.admission = admission
        self.keeper = keeper
        self.authority = authority or Authority()
        self.refusals = Refusals()
        self.tracer: Tracer | None = None
        self.incoming = Incoming(settings)
        self.turns = Turns(lambda call: asyncio.get_running_loop().call_soon(call), rest=REST)
        self.allowances = Allowances(settings.window_bytes, settings.address_bytes)
        self.pace = Pace(
            lambda call: asyncio.get_running_loop().call_soon(call),
            crowded=lambda: self.allowances.accounts > 1,
            turn=turn,
        )
        self.rounds = Rounds(turn)
        self.predictor = Predictor(admission, settings.max_answer_bytes, self.turns)

    def caller(self, context: Peer) -> Caller:
        """The client of a call, to be asked for the rights that the call needs. Raises Unauthenticated."""
        caller = caller_of(context, self.authority)
        return caller if self.tracer is None else replace(caller, trace=trace_of(context))

    def noted(self, context: Peer, request: str) -> Callable[[TidegateError], None]:
        """A call of this kind begins: what notes that it was refused."""
        failed = self._traced(context, request)

        def note(error: TidegateError) -> None:
            caller = anybody(context)
            if error.reason is not Reason.UNAUTHENTICATED:  # to ask again would count as another guess
                with suppress(TidegateError):  # its token was withdrawn meanwhile
                    caller = self.caller(context)
            self.refusals.note(error, caller, request)
            failed(error.reason.name)

        return note

    def _traced(self, context: Any, request: str) -> Callable[[str], None]:  # noqa: ANN401 # gRPC's
        if self.tracer is None or request in _STREAMS:
            return _tell_nobody
        end, failed = self.tracer.call(request, trace_of(context))
        context.add_done_callback(lambda _: end())
        return failed


def _tell_nobody(_: str) -> None:
    """In place of what says why a call was refused, where no call is traced."""
