"""A call of a client with a token: its messages are taken no faster than the steps that the token allows.

What is not taken waits at the client, by HTTP/2's flow control: nothing is refused, and nothing is lost.
"""

import asyncio
from typing import Any

from server.caller import Caller
from server.edge.exchanges.dialect import Call, Listener
from server.edge.exchanges.pump import Pump
from server.meter import Meter


def carried(context: Any, caller: Caller) -> Call:  # noqa: ANN401 # of either transport
    """The call of a stream, from what its service gets."""
    call = context if isinstance(context, Call) else Pump(context)
    return Metered(call, caller.meter) if caller.token else call


class Metered:
    """Is a `Call`."""

    def __init__(self, call: Call, meter: Meter) -> None:
        self._call = call
        self._meter = meter
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.send = call.send

    def begin(self, listener: Listener) -> None:
        """See Call."""
        self._listener = listener
        self._call.begin(listener)

    def take(self) -> Any:  # noqa: ANN401 # what the handler's deserialiser makes
        """See Call."""
        if wait := self._meter.wait():
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(wait, self._go_on)
            return None
        return self._call.take()

    def _go_on(self) -> None:
        self._timer = None
        if self._listener is not None:
            self._listener.came()

    @property
    def several(self) -> bool:
        """See Call."""
        return self._call.several

    @property
    def asks(self) -> bool:
        """See Call."""
        return self._call.asks

    @property
    def full(self) -> bool:
        """See Call."""
        return self._call.full

    def end(self) -> None:
        """See Call."""
        self._listener = None
        if self._timer is not None:
            self._timer.cancel()
        self._call.end()
