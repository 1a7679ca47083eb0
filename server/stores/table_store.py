"""A store that decides as `Transaction` does, over tables in this process or in a file."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from server.stores.eviction import RANKED
from server.stores.observed_time import ObservedTime
from server.stores.records import Outcome, Page, Record
from server.stores.store import Claim, Claimed, End, Evicted, Gone, Hold, Refused, Swept, Usage, Write
from server.stores.table import Table, Tables
from server.stores.terms import Terms
from server.stores.transaction import Transaction

T = TypeVar("T")


class TableStore:
    """See `Store`: each call is one transaction over `tables`."""

    def __init__(self, terms: Terms, tables: Tables) -> None:
        self.terms = terms
        self.tables = tables
        self._time = ObservedTime(terms.gap)

    def write(self, writes: Sequence[Write], now: float) -> list[Refused]:
        return self._change(now, lambda t: t.write(writes))

    def claim(self, claims: Sequence[Claim], now: float, asked: float | None = None) -> list[int | Gone]:
        return self._change(now, lambda t: t.claim(claims, now if asked is None else asked))

    def read(self, claims: Sequence[Claim], now: float) -> list[Claimed | Gone]:
        return self._look(now, lambda t: t.read(claims))

    def hold(self, holds: Sequence[Hold], now: float) -> list[Refused]:
        return self._change(now, lambda t: t.hold(holds))

    def end(self, ends: Sequence[End], now: float) -> list[Refused]:
        return self._change(now, lambda t: t.end(ends))

    def expire(self, now: float, limit: int = 1_000) -> Swept:
        return self._change(now, lambda t: t.expire(limit))

    def evict(self, count: int, now: float, *, owner: str | None = None) -> list[Evicted]:
        return self._change(now, lambda t: t.evict(count, owner))

    def forget(self, count: int, now: float) -> int:
        return self._change(now, lambda t: t.forget(count))

    def page(self, cursor: object | None, limit: int, now: float) -> Page:
        return self._look(now, lambda t: t.page(cursor, limit))

    def records(self, ids: Collection[str], now: float) -> tuple[Record, ...]:
        return self._look(now, lambda t: t.records(ids))

    def put(self, records: Sequence[Record], now: float) -> list[Outcome]:
        return self._change(now, lambda t: t.put(records))

    def usage(self, owner: str | None = None) -> Usage:
        with self.tables.reading() as table:
            return table.usage(owner)

    def parked_by(self, account: str) -> Sequence[tuple[str, int]]:
        with self.tables.reading() as table:
            return table.largest(RANKED, account)

    def shrink(self) -> bool:
        return self.tables.shrink()

    def losses(self) -> int:
        return self.tables.losses()

    def close(self) -> None:
        self.tables.close()

    def _look(self, now: float, decide: Callable[[Transaction], T]) -> T:
        with self.tables.reading() as table:
            return decide(self._transaction(table, now))

    def _change(self, now: float, decide: Callable[[Transaction], T]) -> T:
        with self.tables.writing() as table:
            transaction = self._transaction(table, now)
            answer = decide(transaction)
            transaction.save()
            return answer

    def _transaction(self, table: Table, now: float) -> Transaction:
        return Transaction(table, self.terms, now, self._time.look(table.time(), now))
