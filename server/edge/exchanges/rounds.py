"""Takes together what came at the same time on several streams, where that can be done."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from server.meter import NO_LIMITS, Meter
from server.runtime.loop_turn import ENDLESS, LoopTurn

if TYPE_CHECKING:
    from collections.abc import Hashable

    from server.edge.exchanges.dialect import Request, Single
    from server.edge.exchanges.exchange import Exchange

    _One = tuple[Exchange, Single]

log = logging.getLogger(__name__)

_AT_ONCE = 64  # streams whose messages are taken without a break
_FEW = 4  # steps of an account that are computed with those of others


class Rounds:
    """Of one event loop. Accounts take turns: who has one stream does not wait for the thousands of another.

    Args:
        turn: of the loop; says when several sockets are read.
    """

    def __init__(self, turn: LoopTurn = ENDLESS) -> None:
        self._turn = turn
        self._came: dict[Meter, list[Exchange]] = {}  # while sockets are read; by account
        self._waiting: OrderedDict[Meter, deque[Exchange]] = OrderedDict()  # likewise, whose turn is next first
        self._due = False

    def add(self, exchange: Exchange, account: Meter) -> bool:
        """Takes its messages once all sockets that are being read have been; False: there is no other."""
        if not self._came and not self._turn.after_reading(self._begin):
            return False
        if (own := self._came.get(account)) is None:
            own = self._came[account] = []
        own.append(exchange)
        return True

    def _begin(self) -> None:
        came, self._came = self._came, {}
        for account, own in came.items():
            self._waiting.setdefault(account, deque()).extend(own)
        if not self._due:
            self._go_on()

    def _go_on(self) -> None:
        """For as long as this turn has time; 64 streams at least."""
        began = now = perf_counter()
        ends = began + self._turn.left
        try:
            while self._waiting and (now < ends or now == began):
                _take(self._next())
                now = perf_counter()
        finally:
            self._turn.spend(now - began)
            self._due = bool(self._waiting)
            if self._due:
                self._turn.later(self._go_on)

    def _next(self) -> list[Exchange]:
        """One of each account in turn."""
        those: list[Exchange] = []
        while self._waiting and len(those) < _AT_ONCE:
            account, own = self._waiting.popitem(last=False)
            count = 1 if self._waiting else min(len(own), _AT_ONCE - len(those))
            those += [own.popleft() for _ in range(count)]
            if own:
                self._waiting[account] = own
        return those


def _take(exchanges: Sequence[Exchange]) -> None:
    """Nothing is taken by itself before all that can be joined is: it may change what others have looked up."""
    alike: dict[Hashable, list[_One]] = {}
    apart: list[tuple[Exchange, Request | None]] = []
    for exchange in exchanges:
        if (single := exchange.single()) is None:
            apart.append((exchange, None))
        else:
            alike.setdefault(single.kind, []).append((exchange, single))
    for those in [part for each in alike.values() for part in _shared(each)]:
        if len(those) == 1 or not _join(those):
            apart += [(exchange, single.request) for exchange, single in those]
    for exchange, request in apart:
        try:
            exchange.go_on(request)
        except Exception as error:
            log.exception("a stream failed")
            exchange.fail(error)


def _shared(those: list[_One]) -> list[list[_One]]:
    """Those that may be one block: of one account, or of several that have few, with the same part of the work each."""
    if len({single.account for _, single in those}) == 1:
        return [those]
    of: dict[Meter, list[_One]] = {}
    for one in those:
        of.setdefault(one[1].account, []).append(one)
    few = [one for account, own in of.items() if _may_be_mixed(account, own) for one in own]
    others = [own for account, own in of.items() if not _may_be_mixed(account, own)]
    return [few, *others] if few else others


def _may_be_mixed(account: Meter, own: Sequence[_One]) -> bool:
    return len(own) <= _FEW and account.limits.weight == NO_LIMITS.weight


def _join(those: Sequence[_One]) -> bool:
    exchanges = [exchange for exchange, _ in those]
    try:
        return exchanges[0].dialect.join([single for _, single in those], partial(_write, exchanges))
    except Exception as error:
        log.exception("steps of several streams failed")
        _fail(exchanges, error)
        return True


def _write(exchanges: Sequence[Exchange], those: slice, make: Callable[[], Sequence[bytes]], each: int) -> None:
    try:
        for exchange, message in zip(exchanges[those], make(), strict=True):
            exchange.answer(message, each)
    except Exception as error:
        log.exception("answers of several streams failed")
        _fail(exchanges[those], error)


def _fail(exchanges: Sequence[Exchange], error: Exception) -> None:
    """Of which steps are taken, or answered, only their clients know: each stream ends, and goes on anew from there."""
    for exchange in exchanges:
        exchange.fail(error)
